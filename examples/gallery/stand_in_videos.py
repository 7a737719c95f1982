"""
The gallery's stand-in for your own camera: rendered first-person videos of a world that the package's checkpoints
never saw, with its own words for what is done, and a list of narrated clips as you would write one.
"""

import csv
import os
from pathlib import Path

from transformers_eilev.data import (
    SyntheticConfig,
    clean_narration_text,
    load_ego4d,
    make_synthetic_dataset,
)


# What is made up, and what no training of the package's checkpoints showed.
NEW_VERBS = ("wam", "wag", "fanit", "ruk")
_HALF_CLIP_SEC = 4.0


def make_videos(folder: str | os.PathLike, *, minutes: float = 5.0) -> list[dict]:
    """
    Renders videos of 5 minutes each, in Ego4D's folders, and returns their narrated actions: rows as of `load_ego4d`.

    One look for each noun and a near camera, as what the checkpoints have seen: a small model can't tell more.
    """
    config = SyntheticConfig.for_small_models(
        hours=minutes / 60,
        seed=1,
        image_size=48,
        fps=2,
        video_sec=300.0,
        action_sec=11.0,
        made_up_verbs=4,
        made_up_nouns=16,
        looks_per_noun=1,
        verb_skew=0.0,
        noun_skew=0.0,
    )
    make_synthetic_dataset(folder, config)
    splits = load_ego4d(folder, cache_dir=Path(folder) / "cache")
    return [action for split in sorted(splits) for action in splits[split]]


def write_list(path: str | os.PathLike, actions: list[dict]) -> None:
    """Writes a list of narrated clips as you would: a line for each, with the 8 seconds around its narration."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "narration", "start", "end", "verb", "noun"])
        for action in actions:
            # No window begins before its video; one that ends behind it is shorter.
            start = max(0.0, action["narration_timestamp_sec"] - _HALF_CLIP_SEC)
            end = action["narration_timestamp_sec"] + _HALF_CLIP_SEC
            video = os.path.relpath(action["video_path"], Path(path).parent)
            narration = clean_narration_text(action["narration_text"])
            labels = action["structured_verb"], action["structured_noun"]
            writer.writerow([video, narration, f"{start:.1f}", f"{end:.1f}", *labels])
