"""
Narrates a clip with a VideoBLIP model, which was trained on single clips.

    python examples/narration/run_video_blip_narration.py \\
        --model kpyu/video-blip-opt-2.7b-ego4d --device cuda --dtype float16 \\
        mixer.mp4 "Question: What is the camera wearer doing? Answer:"

One frame a second of the first ten seconds is read; the narration is drawn, so that another `--seed` gives another.
"""

import argparse

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

import transformers_eilev  # noqa: F401  (the auto classes know the model by this)
from transformers_eilev.commands.arguments import arrange_videos_and_texts


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos_and_texts", nargs="+", metavar="VIDEO|TEXT", help="a clip, and a question about it")
    parser.add_argument("--model", default="kpyu/video-blip-flan-t5-xl-ego4d", help="model id or folder")
    parser.add_argument("--processor", help="model id or folder of the processor, if it lies elsewhere")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16, float16, or auto: as it was saved")
    parser.add_argument("--fps", type=float, default=1, help="frames a second of the clip")
    parser.add_argument("--end", type=float, default=10, help="seconds of the clip to read")
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--num_beams", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top_p", type=float, default=0.9)
    parser.add_argument("--repetition_penalty", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def main():
    args = parse_arguments()
    blocks, clips = arrange_videos_and_texts(args.videos_and_texts)

    processor = AutoProcessor.from_pretrained(args.processor or args.model, prompt_layout="prepended")
    inputs = processor(text=[blocks], videos=[clips], fps=args.fps, start=0, end=args.end)

    set_seed(args.seed)
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=args.dtype).to(args.device)
    generated_ids = model.generate(
        **inputs.to(args.device, model.dtype),
        max_new_tokens=args.max_new_tokens,
        num_beams=args.num_beams,
        length_penalty=1.0,
        do_sample=True,
        temperature=args.temperature,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
    )
    print(f"Generated text: {processor.post_process_narrations(generated_ids, inputs)[0]}")


if __name__ == "__main__":
    main()
