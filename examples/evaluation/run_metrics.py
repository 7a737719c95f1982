"""
Measures narrations that are there already, whoever made them: JSON lines with a `narration` and a `reference`, or the
clip's name as `query`, whose narration is then taken from the clips.

    python examples/evaluation/run_metrics.py predictions.jsonl
    python examples/evaluation/run_metrics.py theirs.jsonl --clips clips --split val --output metrics.json
"""

import argparse
import json
from pathlib import Path

from transformers import HfArgumentParser

from transformers_eilev.data import load_narrated_clips
from transformers_eilev.data.files import write_json
from transformers_eilev.evaluation import MetricArguments, library_versions, load_metrics, load_predictions


def main():
    parser = HfArgumentParser(
        MetricArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="file of predictions, or folder of a run")
    parser.add_argument("--clips", help="clips that they are of, whose narrations are the references")
    parser.add_argument("--split", default="val", help="of the clips")
    parser.add_argument("--annotation_file", help="CSV of narrated actions instead of those beside the clips")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="JSON file of the metrics")
    metric_args, arguments = parser.parse_args_into_dataclasses()

    rows = None
    if arguments.clips is not None:
        settings = {"split": arguments.split, "annotation_file": arguments.annotation_file, "with_frames": False}
        rows = load_narrated_clips(arguments.clips, **settings)
    predictions, counts = load_predictions(arguments.predictions, rows)
    metrics = load_metrics(metric_args, seed=arguments.seed)
    scores = metrics(*([line[name] for line in predictions] for name in ("narration", "reference")))
    results = {
        "num_predictions": len(predictions),
        "num_empty": scores.num_empty,
        **counts,
        "metrics": scores.metrics,
        "unavailable": scores.unavailable,
        "settings": metrics.settings,
        "versions": library_versions(),
    }
    print(json.dumps(results, indent=1))
    if arguments.output is not None:
        write_json(arguments.output, results)


if __name__ == "__main__":
    main()
