"""
Draws the contexts of an evaluation beforehand, one file of JSON lines for each number of shots:

    python examples/evaluation/sample_in_context_examples.py --clips clips --split val --context_clips clips \
        --context_split train --shots 1 4 16 --verb_noun_ratio 0.5 --seed 0 --output_dir contexts

    {"context": ["video|3", ...], "query": "video|7"}

`run_generation.py` and `run_classification.py` read them by `--contexts_dir contexts`, and draw the same by themselves
from the same arguments without it. Contexts of the conditions `random` and `top_100` are always drawn from the seed.
"""

from dataclasses import dataclass, field

from transformers_eilev.evaluation import QueryArguments, load_queries
from transformers_eilev.training import parse_arguments


@dataclass
class OutputArguments:
    """Where contexts go."""

    output_dir: str = field(metadata={"help": "For a file `contexts-16.jsonl` for each number of shots."})


def main():
    query_args, output_args = parse_arguments([QueryArguments, OutputArguments])
    for path in load_queries(query_args).write(output_args.output_dir):
        print(path)


if __name__ == "__main__":
    main()
