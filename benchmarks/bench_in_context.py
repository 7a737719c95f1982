"""
Narrations a second of a stream of clips, after 16 demonstrations: by a session, which reads the demonstrations once,
against the plain way, in which each clip brings all of them along. The cost of a clip by the number of demonstrations.

    python benchmarks/bench_in_context.py
    python benchmarks/bench_in_context.py --model full --device cuda --dtype bfloat16 --queries 64

Seconds are those of CPUs, on a GPU those of the clock. Both begin with decoded frames; beams are searched as the
published checkpoints do. Weights are random, so the narrations are of `--tokens` tokens each, and equal.
"""

import argparse
import json
import time

import torch
from bench_loader import NUM_EXAMPLES, NUM_FRAMES
from models import SHAPES, make_model, make_processor

from transformers_eilev.in_context import InContextSession


# Prompt and narration: in the tokens of small vocabularies, a thousand with 16 demonstrations.
TEXTS = {
    "opt": (
        "Question: What is the camera wearer doing? Answer:",
        "The camera wearer picks up the cup from the table.",
    ),
    "t5": ("What is this?", "The camera wearer drops the dough."),
}


def make_frames(number: int, size: int, seed: int) -> list[torch.Tensor]:
    """Clips of random pixels, uint8, of shape (8, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(0, 256, (NUM_FRAMES, 3, size, size), dtype=torch.uint8, generator=generator)
        for _ in range(number)
    ]


def narrate_plainly(model, processor, prompt, demonstrations, clips, batch_size: int, settings: dict) -> list[str]:
    """All of the prompt for each clip, as `generate` has it."""
    said = []
    text = processor.build_prompt([narration for _, narration in demonstrations], prompt)
    context = [clip for clip, _ in demonstrations]
    for start in range(0, len(clips), batch_size):
        batch = clips[start : start + batch_size]
        inputs = processor(text=[text] * len(batch), videos=[[*context, clip] for clip in batch])
        generated_ids = model.generate(**inputs.to(model.device, model.dtype), **settings)
        said += processor.post_process_narrations(generated_ids, inputs)
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="midsize")
    parser.add_argument("--family", choices=["opt", "t5"], nargs="+", default=["opt", "t5"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queries", type=int, default=16, help="of the session")
    parser.add_argument("--plain_queries", type=int, default=2, help="of the plain way, which takes as long for each")
    parser.add_argument("--batch_size", type=int, default=8, help="of the session; of the plain way --plain_queries")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--num_beams", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "num_beams": args.num_beams}
    settings |= {"length_penalty": -1.0}
    results = {}
    for family in args.family:
        processor = make_processor(family=family)
        model = make_model(args.model, processor.video_token_id, family)
        processor = make_processor(model.config, family)
        model = model.to(args.device, getattr(torch, args.dtype))
        # Nothing but words.
        tokenizer, vocab_size = processor.tokenizer, model.config.text_config.vocab_size
        words = {"suppress_tokens": [*tokenizer.all_special_ids, *range(len(tokenizer), vocab_size)]}
        results[family] = measure(model, processor, TEXTS[family], args, {**settings, **words})
        report(family, results[family])
    print(json.dumps({"benchmark": "in_context", "model": args.model, "device": args.device, **results}))


def measure(model, processor, texts: tuple[str, str], args, settings: dict) -> dict:
    """Seconds a clip, by the number of demonstrations."""
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    size = model.config.vision_config.image_size
    prompt, narration = texts
    clips = make_frames(args.queries, size, 1)
    session_sec, plain_sec = {}, {}
    for num_examples in (0, 4, NUM_EXAMPLES):
        demonstrations = [(clip, narration) for clip in make_frames(num_examples, size, 0)]
        start = clock()
        session = InContextSession(model, processor, demonstrations, prompt=prompt)
        session.narrate(make_frames(1, size, 2), **settings)  # the demonstrations are read with the first clip
        beginning = clock() - start
        start = clock()
        said = session.narrate(clips, batch_size=args.batch_size, **settings)
        session_sec[num_examples] = (clock() - start) / len(clips)
        few = clips[: args.plain_queries]
        start = clock()
        plain = narrate_plainly(model, processor, prompt, demonstrations, few, args.plain_queries, settings)
        plain_sec[num_examples] = (clock() - start) / len(few)
        if args.dtype == "float32" and plain != said[: len(plain)]:
            raise SystemExit(f"The session says {said[: len(plain)]}, but the plain way {plain}")
    length = len(processor.encode(processor.build_prompt([narration] * NUM_EXAMPLES, prompt))["input_ids"])
    return {"tokens": length, "plain_sec": plain_sec, "session_sec": session_sec, "beginning_sec": beginning}


def report(family: str, result: dict):
    plain_sec, session_sec = result["plain_sec"], result["session_sec"]
    print(
        f"{family}: the first clip after {NUM_EXAMPLES} demonstrations ({result['tokens']} tokens) takes "
        f"{result['beginning_sec']:.2f} s"
    )
    print(f"{'demonstrations':>16}{'plain':>16}{'session':>16}{'':10}minutes of video a minute, narrated every 4 s")
    for number, plain in plain_sec.items():
        own = session_sec[number]
        print(f"{number:16}{plain:14.2f} s{own:14.2f} s ({plain / own:5.1f}x)  {4 / plain:.2f} and {4 / own:.2f}")


if __name__ == "__main__":
    main()
