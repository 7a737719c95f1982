"""
Tables and pictures of what evaluations have left: of any models, data sets and seeds.

    python examples/evaluation/run_report.py results/eilev results/video-blip --output_dir report

Leaves `report.md`, `report.json` with all cells, and `plots`. With `--model` also `model_index.yaml`, for the
metadata of that model's card. The same records give the same files. `pip install matplotlib`.
"""

import argparse
from pathlib import Path

from transformers_eilev.evaluation.published import PAPER_FIGURES
from transformers_eilev.evaluation.records import read_records
from transformers_eilev.evaluation.reports import write_report


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="folders of evaluations, or their results.json")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--title", default="Evaluation")
    parser.add_argument("--metrics", nargs="+", help="which, in this order; by default all that there are")
    parser.add_argument("--bars_at", type=int, help="shots of the bars; by default the most")
    parser.add_argument("--published", choices=PAPER_FIGURES, help="figures of EILEV's paper to show beside")
    parser.add_argument("--model", help="write `model_index.yaml` of this one")
    parser.add_argument("--dataset_id", nargs="+", default=[], metavar="NAME=ID", help="ids on the Hub, for --model")
    arguments = parser.parse_args()
    if any("=" not in pair for pair in arguments.dataset_id):
        parser.error(f"--dataset_id is NAME=ID, but one is not: {arguments.dataset_id}")
    return arguments


def main():
    arguments = parse_arguments()
    path = write_report(
        read_records(arguments.results),
        arguments.output_dir,
        title=arguments.title,
        metrics=arguments.metrics,
        bars_at=arguments.bars_at,
        published=PAPER_FIGURES.get(arguments.published, ()),
        model=arguments.model,
        dataset_ids=dict(pair.split("=", 1) for pair in arguments.dataset_id),
    )
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
