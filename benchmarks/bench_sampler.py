"""
Microseconds to draw one context of `InContextSampler`, and what the index costs, by the number of actions. Verbs and
nouns are Zipf-distributed, as many as Ego4D's. "walking" is the plain way: gather the query's candidates by looking at
every action, as masks over arrays.

    OMP_NUM_THREADS=1 python benchmarks/bench_sampler.py
"""

import argparse
import json
import time
import tracemalloc

import numpy as np

from transformers_eilev.data.in_context import InContextSampler


NUM_VERBS, NUM_NOUNS = 117, 521


def zipf_words(size: int, num_words: int, rng) -> np.ndarray:
    weights = 1 / np.arange(1, num_words + 1)
    return rng.choice(num_words, size, p=weights / weights.sum())


def draw_by_walking(verbs, nouns, query: int, num_examples: int, rng) -> np.ndarray:
    same_verb, same_noun = verbs == verbs[query], nouns == nouns[query]
    by_verb, by_noun = np.flatnonzero(same_verb & ~same_noun), np.flatnonzero(same_noun & ~same_verb)
    half = num_examples // 2
    drawn = [rng.choice(group, min(half, len(group)), replace=False) for group in (by_verb, by_noun)]
    missing = num_examples - sum(map(len, drawn))
    if missing:
        rest = np.setdiff1d(np.flatnonzero(~(same_verb & same_noun)), np.concatenate(drawn))
        drawn.append(rng.choice(rest, missing, replace=False))
    return np.concatenate(drawn)


def microseconds(draw, queries) -> float:
    """The median over chunks of queries, for one draw."""
    times = []
    for chunk in np.array_split(queries, 10):
        start = time.perf_counter()
        for query in chunk.tolist():
            draw(query)
        times.append((time.perf_counter() - start) / len(chunk))
    return float(np.median(times)) * 1e6


def measure(size: int, num_examples: int, num_draws: int) -> dict:
    rng = np.random.default_rng(size)
    verbs, nouns = zipf_words(size, NUM_VERBS, rng), zipf_words(size, NUM_NOUNS, rng)
    words = [f"verb {code}" for code in verbs], [f"noun {code}" for code in nouns]
    start = time.perf_counter()
    sampler = InContextSampler(*words, num_examples=num_examples, seed=0)
    build_s = time.perf_counter() - start
    tracemalloc.start()
    kept = InContextSampler(*words, num_examples=num_examples, seed=0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    queries = rng.integers(size, size=num_draws)
    any_of_all = InContextSampler(*words, num_examples=num_examples, random=True, seed=0)
    return {
        "rows": size,
        "draw_us": microseconds(sampler.sample, queries),
        "random_us": microseconds(any_of_all.sample, queries),
        "walking_us": microseconds(
            lambda query: draw_by_walking(verbs, nouns, query, num_examples, np.random.default_rng([0, 0, query])),
            queries[:50],
        ),
        "build_s": build_s,
        "held_mib": held / 2**20,
        "peak_mib": peak / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--num_examples", type=int, default=16)
    parser.add_argument("--draws", type=int, default=5_000)
    arguments = parser.parse_args()

    names = ("draw_us", "random_us", "walking_us", "build_s", "held_mib", "peak_mib")
    print(f"{'rows':>10}" + "".join(f"{name:>12}" for name in names))
    results = []
    for size in arguments.rows:
        results.append(measure(size, arguments.num_examples, arguments.draws))
        print(f"{size:10,}" + "".join(f"{results[-1][name]:12.1f}" for name in names))
    print(json.dumps({"benchmark": "sampler", "num_examples": arguments.num_examples, "results": results}))


if __name__ == "__main__":
    main()
