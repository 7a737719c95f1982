"""
Narrates a clip with a model trained by EILEV, in the manner of narrated clips that come before it.

    python examples/narration/run_eilev_narration.py \\
        --model kpyu/eilev-blip2-opt-2.7b --device cuda --dtype float16 \\
        cup.mp4 "Question: What is the camera wearer doing? Answer: The camera wearer washes a cup." \\
        mixer.mp4 "Question: What is the camera wearer doing? Answer:"

Clips and texts may come in any order: an argument that is a file is a clip, a text belongs to the clips right before
it, and texts that follow each other are joined.
"""

import argparse

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import transformers_eilev  # noqa: F401  (the auto classes know the model by this)
from transformers_eilev.commands.arguments import arrange_videos_and_texts


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos_and_texts", nargs="+", metavar="VIDEO|TEXT")
    parser.add_argument("--model", default="kpyu/eilev-blip2-opt-2.7b", help="model id or folder")
    parser.add_argument("--processor", help="model id or folder of the processor, if it lies elsewhere")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16, or auto: as it was saved")
    parser.add_argument("--num_frames", type=int, default=8, help="frames of each clip")
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--num_beams", type=int, default=5)
    parser.add_argument("--length_penalty", type=float, default=-1.0)
    return parser.parse_args()


def main():
    args = parse_arguments()
    blocks, clips = arrange_videos_and_texts(args.videos_and_texts)

    processor = AutoProcessor.from_pretrained(args.processor or args.model, prompt_layout="interleaved")
    inputs = processor(text=[blocks], videos=[clips], num_frames=args.num_frames, start=0, end=8)

    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=args.dtype).to(args.device)
    generated_ids = model.generate(
        **inputs.to(args.device, model.dtype),
        max_new_tokens=args.max_new_tokens,
        num_beams=args.num_beams,
        length_penalty=args.length_penalty,
        do_sample=False,
        repetition_penalty=1.0,
    )
    print(f"Generated text: {processor.post_process_narrations(generated_ids, inputs)[0]}")


if __name__ == "__main__":
    main()
