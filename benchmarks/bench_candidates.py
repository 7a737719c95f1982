"""
792 candidates of about 6 tokens after a prompt of about 1,000: as a tree over one copy of what was read of the prompt,
against batches of 32 candidates with a copy of it each.

    python benchmarks/bench_candidates.py
    python benchmarks/bench_candidates.py --model full --device cuda --dtype bfloat16

Seconds are those of CPUs, on a GPU those of the clock; memory is what scoring adds at its peak, each way in a process
of its own. The candidates are all pairs of 24 verbs and 33 nouns, and, for the worst case, random tokens, which have
nothing in common.
"""

import argparse
import copy
import json
import random
import subprocess
import sys
import time

import torch
from models import SHAPES, make_model
from transformers import DynamicCache

from transformers_eilev.training.callbacks import _peak_memory_gib


VIDEO, SUBJECT, ARTICLE = 3, 10, 11
NUM_VERBS, NUM_NOUNS = 24, 33
WAYS = {"copies": "batches of 32 candidates, the prompt's cache copied for each", "tree": "this package"}


def make_candidates(kind: str, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, of shape (792, any): "pairs" or "random", of about 6 tokens each."""
    rng = random.Random(0)

    def words(shortest, longest):
        return [rng.randrange(12, vocab_size) for _ in range(rng.randint(shortest, longest))]

    if kind == "pairs":
        verbs, nouns = [words(1, 2) for _ in range(NUM_VERBS)], [words(1, 3) for _ in range(NUM_NOUNS)]
        rows = [[SUBJECT, *verb, ARTICLE, *noun] for verb in verbs for noun in nouns]
    else:
        rows = [words(4, 8) for _ in range(NUM_VERBS * NUM_NOUNS)]
    rng.shuffle(rows)
    length = max(map(len, rows))
    ids = torch.tensor([row + [1] * (length - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def make_prompt(num_examples: int) -> list[int]:
    """Clips of 32 tokens, with 28 of text after each."""
    rng = random.Random(1)
    return [2] + [
        token for _ in range(num_examples + 1) for token in (*[VIDEO] * 32, *rng.choices(range(11, 99), k=28))
    ]


@torch.no_grad()
def score_copies(model, input_ids, features, candidates, mask) -> torch.Tensor:
    """Each batch of candidates goes on from a copy of the prompt's cache for each of them."""
    outputs = model(
        input_ids, mm_encoder_outputs=features, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1
    )
    first = outputs.logits[:, -1].float().log_softmax(-1)
    scores = []
    for ids, is_token in zip(candidates.split(32), mask.split(32)):
        cache = copy.deepcopy(outputs.past_key_values)
        cache.batch_repeat_interleave(len(ids))
        logits = model(ids[:, :-1], past_key_values=cache, use_cache=True).logits.float().log_softmax(-1)
        rest = logits.gather(-1, ids[:, 1:, None]).squeeze(-1)
        told = torch.cat([first[0, ids[:, :1]], rest], dim=1)
        scores.append(told.masked_fill(is_token == 0, 0).sum(-1) / is_token.sum(-1))
    return torch.cat(scores)


def score_tree(model, input_ids, features, candidates, mask) -> torch.Tensor:
    return model.read_prompts(input_ids, mm_encoder_outputs=features).score(candidates, mask)[0]


def measure(way: str, args) -> dict:
    from transformers.models.blip_2.modeling_blip_2 import BaseModelOutputWithVisionQformerOutputs

    torch.set_num_threads(args.threads)
    model = make_model(args.model, VIDEO).to(args.device, getattr(torch, args.dtype))
    text_config = model.config.text_config
    candidates, mask = (part.to(args.device) for part in make_candidates(args.candidates, text_config.vocab_size))
    input_ids = torch.tensor([make_prompt(args.examples)], device=args.device)
    states = torch.randn(args.examples + 1, 32, text_config.hidden_size, generator=torch.Generator().manual_seed(0))
    states = states.to(args.device, model.dtype)
    features = {"video": BaseModelOutputWithVisionQformerOutputs(pooler_output=states)}
    score = {"copies": score_copies, "tree": score_tree}[way]
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    # What is read of the prompt is in the memory before, and in the time of neither.
    with torch.no_grad():
        start = clock()
        model.read_prompts(input_ids, mm_encoder_outputs=features).log_probs.sum().item()
        reading = clock() - start
    before = _peak_memory_gib()
    start = clock()
    scores = score(model, input_ids, features, candidates, mask)
    scores.sum().item()
    cache_bytes = (
        input_ids.numel() * 2 * text_config.num_hidden_layers * text_config.hidden_size * model.dtype.itemsize
    )
    return {
        "seconds": clock() - start - reading,
        "reading_sec": reading,
        "extra_gib": _peak_memory_gib() - before,
        "cache_gib": cache_bytes / 2**30,
        "scores": scores.tolist(),
        "tokens": input_ids.shape[1],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="yardstick")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--candidates", choices=["pairs", "random"], help="only these")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    results = {}
    for kind in [args.candidates] if args.candidates else ["pairs", "random"]:
        results[kind] = compare(kind)
    print(json.dumps({"benchmark": "candidates", "model": args.model, "device": args.device, **results}))


def compare(kind: str) -> dict:
    """Both ways, each in a process of its own."""
    results = {}
    for way in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--candidates", kind, "--way", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results[way] = json.loads(output.splitlines()[-1])
    first, second = (result.pop("scores") for result in results.values())
    apart = max(abs(a - b) for a, b in zip(first, second))
    copies, tree = results["copies"], results["tree"]
    print(
        f"{len(first)} candidates ({kind}) after {tree['tokens']} tokens, which are read in {tree['reading_sec']:.2f} "
        f"s; scores are {apart:.0e} apart"
    )
    for way, result in results.items():
        print(
            f"{way:8}{result['seconds']:8.2f} s ({copies['seconds'] / result['seconds']:.1f}x)"
            f"{result['extra_gib']:8.3f} GiB more, {result['extra_gib'] / result['cache_gib']:.1f} times the prompt's "
            f"cache  {WAYS[way]}"
        )
    return {"apart": apart, **results}


if __name__ == "__main__":
    main()
