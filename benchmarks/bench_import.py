"""
What `import transformers_eilev` costs over `import transformers`, and what registering with the auto classes adds to
their first use. Each row is the fastest of several fresh interpreters, the two sides taken in turns.

    python benchmarks/bench_import.py --repeats 5
"""

import argparse
import json
import subprocess
import sys
import time


AUTO = "from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline"
CASES = {
    "import": ("import transformers", "import transformers_eilev"),
    "first use of the auto classes": (AUTO, f"import transformers_eilev; {AUTO}"),
}


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    results = {}
    print(f"{'':32}{'transformers':>14}{'ours':>10}{'ratio':>8}")
    for name, statements in CASES.items():
        times = [[seconds(statement) for statement in statements] for _ in range(repeats)]
        theirs, ours = map(min, zip(*times))
        results[name] = {"transformers_s": theirs, "ours_s": ours, "ratio": ours / theirs}
        print(f"{name:32}{theirs:12.2f} s{ours:8.2f} s{ours / theirs:8.2f}")
    print(json.dumps({"benchmark": "import", "repeats": repeats, **results}))


if __name__ == "__main__":
    main()
