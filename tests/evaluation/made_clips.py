"""Rows of clips, with and without frames."""

import io

import datasets
import numpy as np
import torch
from PIL import Image

from transformers_eilev.data import ClipStoreWriter


VERBS = {"wash_(clean)": "washes", "cut_(slice)": "cuts", "open": "opens", "take_(pick,_grab)": "takes"}
NOUNS = {"cup_(mug)": "cup", "carrot": "carrot", "door": "door", "spoon": "spoon", "towel_(cloth)": "towel"}


def make_rows(number=60, prefix="video"):
    """Verbs and nouns in changing company; each clip's number is its own colour."""
    rows = []
    for index in range(number):
        verb, noun = list(VERBS)[index % len(VERBS)], list(NOUNS)[index * 7 // 3 % len(NOUNS)]
        rows.append(
            {
                "frame_path": f"{prefix}_{index // 4}|{index % 4}",
                "video_uid": f"{prefix}_{index // 4}",
                "clip_index": index % 4,
                "narration_text": f"#C C {VERBS[verb]} the {NOUNS[noun]}",
                "structured_verb": verb,
                "structured_noun": noun,
            }
        )
    return rows


def make_clips(number=60, prefix="video", seed=0):
    """As a clip store's data set is opened, with 4 frames of 40 pixels."""
    rng = np.random.default_rng(seed)
    rows = [{**row, "frames": [_png(rng) for _ in range(4)]} for row in make_rows(number, prefix)]
    return datasets.Dataset.from_list(rows)


def _png(rng):
    file = io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    coarse.resize((40, 40)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_store(folder, **numbers):
    """A clip store with so many clips in each split."""
    (folder / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, number in numbers.items():
        with ClipStoreWriter(folder / "data" / f"{split}-00000.parquet", encoding="png") as writer:
            for row in make_rows(number, prefix=split):
                coarse = torch.from_numpy(rng.uniform(0, 255, (4, 3, 5, 5)).astype(np.float32))
                frames = torch.nn.functional.interpolate(coarse, size=(40, 40)).to(torch.uint8)
                writer.write({**row, "narration_timestamp_sec": 1.0}, frames, frame_sec=[0.0] * 4)
    return folder
