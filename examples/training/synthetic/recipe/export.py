"""A trained model as it is handed on: weights in float16, computed with in float32, and its card."""

import json
from pathlib import Path

import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data.files import write_json


NOTICE = "Trained on rendered video, to see and test in-context learning: what it says of real footage means nothing."


def export_checkpoint(source: Path, target: Path, card: str) -> None:
    """
    Args:
        source (`Path`): folder of a trained model and its processor.
        target (`Path`): gets the same, half as large, and the card as README.md.
        card (`str`): Markdown.
    """
    model = VideoBlip2ForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    model.config.notice = NOTICE
    model.half().save_pretrained(target)
    # What is on disk need not be what is computed in: a CPU is slow at half precision.
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    write_json(target / "config.json", config)
    VideoBlip2Processor.from_pretrained(source).save_pretrained(target)
    (target / "README.md").write_text(card, encoding="utf-8")
