"""
Training samples a second from a store of clips, in one process: 16 narrated clips and the one to narrate, 8 frames of
448 pixels each, decoded, resized to 224 and normalized. Beside it, the same from the original's folders of PNGs.

    python benchmarks/bench_loader.py --samples 6
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoProcessor

import transformers_eilev  # noqa: F401  (the auto classes know the processor by this)
from transformers_eilev.data import (
    ClipStoreWriter,
    DataCollatorForVideoNarration,
    InContextDataset,
    InContextSampler,
    read_frame_folders,
    write_frame_folders,
)


CHECKPOINT = Path(__file__).parents[1] / "tests/fixtures/golden/opt/checkpoint"
NUM_CLIPS, NUM_EXAMPLES, NUM_FRAMES, SIZE = 64, 16, 8, 448


def make_clips():
    """Frames that are as hard to compress as a camera's: smooth shapes, and a little noise."""
    rng = np.random.default_rng(0)
    for index in range(NUM_CLIPS):
        rough = torch.from_numpy(rng.uniform(0, 255, (NUM_FRAMES, 3, 24, 24)).astype(np.float32))
        frames = torch.nn.functional.interpolate(rough, size=(SIZE, SIZE), mode="bicubic")
        frames = (frames + torch.from_numpy(rng.normal(0, 4, frames.shape).astype(np.float32))).clamp(0, 255)
        row = {
            "frame_path": f"video|{index}",
            "video_uid": "video",
            "clip_index": index,
            "narration_timestamp_sec": float(index),
            "narration_text": "#C C does something",
            "structured_verb": f"verb {index % 4}",
            "structured_noun": f"noun {index % 5}",
        }
        yield row, frames.to(torch.uint8)


def samples_a_second(clips, num_samples: int) -> float:
    sampler = InContextSampler(clips["structured_verb"], clips["structured_noun"], num_examples=NUM_EXAMPLES)
    dataset = InContextDataset(clips, sampler)
    processor = AutoProcessor.from_pretrained(
        CHECKPOINT, prompt_layout="interleaved", size={"height": 224, "width": 224}
    )
    collate = DataCollatorForVideoNarration(processor)
    collate([dataset[0]])
    start = time.perf_counter()
    for index in range(num_samples):
        batch = collate([dataset[index]])
    seconds = time.perf_counter() - start
    assert batch["pixel_values"].shape == (NUM_EXAMPLES + 1, NUM_FRAMES, 3, 224, 224)
    return num_samples / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)

    import datasets

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "clips.parquet"
        with ClipStoreWriter(store) as writer:
            for row, frames in make_clips():
                writer.write(row, frames, frame_sec=[0.0] * NUM_FRAMES)
        options = {"split": "train", "cache_dir": folder}
        clips = datasets.load_dataset("parquet", data_files=str(store), **options)
        write_frame_folders(clips, Path(folder) / "folders")
        pngs = read_frame_folders(Path(folder) / "folders")
        results = {
            "clip store (JPEG)": samples_a_second(clips, args.samples),
            "frame folders (PNG)": samples_a_second(pngs, args.samples),
        }
        results["size ratio"] = sum(p.stat().st_size for p in (Path(folder) / "folders").rglob("*.png")) / (
            store.stat().st_size
        )
    ratio = results["clip store (JPEG)"] / results["frame folders (PNG)"]
    for name in list(results)[:2]:
        print(f"{name:22}{results[name]:8.2f} samples a second, {results[name] * (NUM_EXAMPLES + 1):6.1f} clips")
    print(f"store over folders: {ratio:.1f} times the speed, 1/{results['size ratio']:.1f} of the size")
    print(json.dumps({"benchmark": "loader", **results, "ratio": ratio}))


if __name__ == "__main__":
    main()
