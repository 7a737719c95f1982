"""
Draws a map of clips as a model sees them: those of two data sets lie apart if they look different to it.

    python examples/evaluation/run_embeddings.py --model_name_or_path kpyu/eilev-blip2-opt-2.7b \
        --clips ego4d-clips:val epic-clips:val --max_clips 2000 --features_dir features --output_dir maps

Leaves `clips.png`, `clips.svg` and `clips.jsonl`, with the place of each clip. With `--features_dir` a run that was
stopped goes on where it stood. `pip install scikit-learn matplotlib`, and `umap-learn` for `--method umap`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data import FrameLoader, load_narrated_clips
from transformers_eilev.data.files import atomic_file
from transformers_eilev.embedded_checkpoints import find_checkpoint
from transformers_eilev.evaluation.embeddings import FEATURES, METHODS, draw_clips, embed_clips, project
from transformers_eilev.evaluation.plots import plot_points, save_figure
from transformers_eilev.in_context import ClipEncoder, ClipFeatureStore


LABELS = ("structured_verb", "structured_noun")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="model id, folder, or name in the package")
    parser.add_argument(
        "--clips", required=True, nargs="+", metavar="CLIPS[:SPLIT]", help="of each data set: folder, or id on the Hub"
    )
    parser.add_argument("--names", nargs="+", help="of the data sets, to show; by default as --clips has them")
    parser.add_argument("--max_clips", type=int, help="of each data set, drawn by the seed; by default all")
    parser.add_argument("--features", choices=FEATURES, default="qformer")
    parser.add_argument("--method", choices=METHODS, default="tsne")
    parser.add_argument("--num_neighbours", type=int, help="of each clip; perplexity of t-SNE")
    parser.add_argument("--color_by", choices=("dataset", *LABELS), default="dataset")
    parser.add_argument("--num_frames", type=int, help="of each clip; by default all that are stored")
    parser.add_argument("--features_dir", help="keep features here")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.names = arguments.names or arguments.clips
    if len({*arguments.names}) != len(arguments.clips):
        parser.error(f"--names must be {len(arguments.clips)} different ones, one for each of --clips")
    return arguments


def open_rows(arguments):
    """Of each data set its name and its clips."""
    for number, (name, clips) in enumerate(zip(arguments.names, arguments.clips)):
        path, _, split = clips.partition(":")
        rows = load_narrated_clips(path, split=split or "train")
        yield name, rows.select(draw_clips(len(rows), arguments.max_clips, (arguments.seed, number)))


def main():
    arguments = parse_arguments()
    checkpoint = find_checkpoint(arguments.model_name_or_path)
    model = VideoBlip2ForConditionalGeneration.from_pretrained(checkpoint, dtype=arguments.dtype).to(arguments.device)
    processor = VideoBlip2Processor.from_pretrained(checkpoint)
    encoder = ClipEncoder(model, processor, store=ClipFeatureStore(arguments.features_dir))
    of_all, lines = [], []
    for name, rows in open_rows(arguments):
        settings = {"features": arguments.features, "batch_size": arguments.batch_size, "progress": True}
        of_all.append(embed_clips(encoder, rows, FrameLoader(arguments.num_frames), **settings))
        for row in rows.remove_columns("frames"):
            lines.append({"frame_path": row["frame_path"], "dataset": name, **{label: row[label] for label in LABELS}})
    points = project(
        np.concatenate(of_all), method=arguments.method, num_neighbours=arguments.num_neighbours, seed=arguments.seed
    )
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with atomic_file(arguments.output_dir / "clips.jsonl") as file:
        for line, (x, y) in zip(lines, points.tolist()):
            file.write((json.dumps({**line, "x": x, "y": y}, ensure_ascii=False) + "\n").encode())
    groups = [line[arguments.color_by] or "" for line in lines]
    title = arguments.color_by.replace("structured_", "").replace("dataset", "data set")
    description = f"A map ({arguments.method}) of {len(lines)} clips of {', '.join(arguments.names)}, by {title}."
    save_figure(plot_points(points, groups, title=title), arguments.output_dir / "clips", description=description)
    print(f"{len(lines)} clips are in {arguments.output_dir / 'clips.png'}")


if __name__ == "__main__":
    main()
