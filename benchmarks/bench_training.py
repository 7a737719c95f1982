"""
A 16-shot training step, and the loading of its sample, against the same done the plain way: every part in autograd,
float32 pixels through the loader, every frame decoded from PNG, logits of every token. Each way in a process of its
own, for its peak memory.

    python benchmarks/bench_training.py
    python benchmarks/bench_training.py --model full --device cuda --dtype bfloat16

Seconds are those of CPUs, on a GPU those of the clock. "yardstick" is a model that fits two cores (vision model and
Q-Former of 4 layers and width 128, 112 pixels; OPT of 8 layers and width 512); "full" has the shape of EILEV with
OPT-2.7B, with random weights.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_loader import NUM_EXAMPLES, NUM_FRAMES, make_clips
from models import make_model, make_processor
from torch.utils.data import DataLoader

from transformers_eilev.data import (
    ClipStoreWriter,
    DataCollatorForVideoNarration,
    InContextDataset,
    InContextSampler,
    load_clip_store,
    read_frame_folders,
    write_frame_folders,
)
from transformers_eilev.training import ClipAugmentation, VisionFeatureStore, extract_vision_features, freeze
from transformers_eilev.training.callbacks import _peak_memory_gib
from transformers_eilev.training.trainer import TrainingCollator


WAYS = {
    "plain": "all parts in autograd, float32 pixels, PNG",
    "ours": "frozen parts, uint8 pixels, JPEG, head where needed",
    "augmented": "the same, augmented as EILEV's",
    "features": "the same, from stored features of the vision model",
}


def open_samples(way: str, folder: Path, processor, model):
    """The data set and the collator of a way."""
    if way == "plain":
        clips, collate = read_frame_folders(folder / "folders"), DataCollatorForVideoNarration(processor)
    else:
        clips = load_clip_store(folder / "store", split="train", cache_dir=str(folder / "cache"))
        collate = TrainingCollator(processor, normalize=False)
    options = {}
    if way == "augmented":
        size = processor.video_processor.size
        options["transform"] = ClipAugmentation((size["height"], size["width"]))
    if way == "features":
        features = folder / "features"
        extract_vision_features(model, processor, clips, features)
        options.update(load_clip=VisionFeatureStore(features).load, clips_as="vision_hidden_states")
    sampler = InContextSampler(clips["structured_verb"], clips["structured_noun"], num_examples=NUM_EXAMPLES)
    return InContextDataset(clips, sampler, **options), collate


def measure(way: str, folder: Path, args) -> dict[str, float]:
    """Median seconds to load a sample and to make a step of it, and the peak of memory."""
    # CPU seconds do not depend on who else computes.
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    torch.set_num_threads(args.threads)
    processor = make_processor()
    model = make_model(args.model, processor.video_token_id)
    processor = make_processor(model.config)
    model = model.to(args.device).train()
    if way != "plain":
        freeze(model, frozen_dtype=getattr(torch, args.dtype))
    dataset, collate = open_samples(way, folder, processor, model)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    autocast = contextlib.nullcontext()
    if args.dtype != "float32":
        autocast = torch.autocast(torch.device(args.device).type, getattr(torch, args.dtype))
    loading, stepping = [], []
    batches = iter(DataLoader(dataset, batch_size=1, collate_fn=collate))
    for _ in range(args.steps + 1):
        start = clock()
        batch = next(batches)
        loaded = clock()
        batch = {name: v.to(args.device) if torch.is_tensor(v) else v for name, v in batch.items()}
        if way in ("ours", "augmented"):
            batch["pixel_values"] = processor.video_processor.normalize_frames(batch["pixel_values"])
        with autocast:
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        loading.append(loaded - start)
        stepping.append(clock() - loaded)
    return {
        "load_sec": sorted(loading[1:])[args.steps // 2],
        "step_sec": sorted(stepping[1:])[args.steps // 2],
        "peak_gib": _peak_memory_gib(),
        "tokens": batch["input_ids"].shape[1],
    }


def write_clips(folder: Path):
    (folder / "store" / "data").mkdir(parents=True)
    with ClipStoreWriter(folder / "store" / "data" / "train-00000.parquet") as writer:
        for row, frames in make_clips():
            writer.write(row, frames, frame_sec=[0.0] * NUM_FRAMES)
    clips = load_clip_store(folder / "store", split="train", cache_dir=str(folder / "cache"))
    write_frame_folders(clips, folder / "folders")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["yardstick", "full"], default="yardstick")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the frozen weights and of autocast")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.folder, args)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder))
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--folder", folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[way] = json.loads(output.splitlines()[-1])
    plain = results["plain"]
    print(f"{'':12}{'load a sample':>16}{'step':>16}{'peak memory':>18}")
    for way, result in results.items():
        cells = [
            f"{result['load_sec']:8.2f} s ({plain['load_sec'] / result['load_sec']:.1f}x)",
            f"{result['step_sec']:7.2f} s ({plain['step_sec'] / result['step_sec']:.1f}x)",
            f"{result['peak_gib']:7.2f} GiB ({plain['peak_gib'] / result['peak_gib']:.1f}x)",
        ]
        print(f"{way:12}{cells[0]:>16}{cells[1]:>16}{cells[2]:>18}  {WAYS[way]}")
    print(json.dumps({"benchmark": "training", "model": args.model, "device": args.device, **results}))


if __name__ == "__main__":
    main()
