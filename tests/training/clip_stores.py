"""Small stores of narrated clips, written as the extraction writes them, and checkpoints to train."""

import csv
import json
import shutil

import numpy as np
import torch

from transformers_eilev.data import ClipStoreWriter


VERBS = ["wash", "cut", "open", "take"]
NOUNS = ["cup", "carrot", "door", "spoon", "towel"]


def rows_of(split, num_clips):
    for index in range(num_clips):
        verb, noun = VERBS[index % len(VERBS)], NOUNS[index * 7 % len(NOUNS)]
        yield {
            "frame_path": f"{split}_video_{index // 4}|{index % 4}",
            "video_uid": f"{split}_video_{index // 4}",
            "clip_index": index % 4,
            "narration_timestamp_sec": float(index),
            "narration_text": f"#C C {verb}s the {noun}",
            "structured_verb": verb,
            "structured_noun": noun,
        }


def write_clip_store(folder, num_train=16, num_val=6, size=56, num_frames=8):
    """Clips of coloured noise, so that no two are alike."""
    rng = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    for split, num_clips in (("train", num_train), ("val", num_val)):
        with ClipStoreWriter(folder / "data" / f"{split}-00000.parquet", encoding="png") as writer:
            for row in rows_of(split, num_clips):
                coarse = torch.from_numpy(rng.uniform(0, 255, (num_frames, 3, 7, 7)).astype(np.float32))
                frames = torch.nn.functional.interpolate(coarse, size=(size, size)).to(torch.uint8)
                writer.write(row, frames, frame_sec=[0.0] * num_frames)
    return folder


def write_annotations(path, rows):
    """A CSV as the original's `narrated_actions.csv`."""
    rows = list(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def copy_without_dropout(checkpoint, folder):
    """A checkpoint whose loss does not depend on chance."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in ("vision_config", "qformer_config", "text_config"):
        for name in (
            "dropout",
            "attention_dropout",
            "dropout_rate",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
        ):
            config.setdefault(part, {})[name] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder
