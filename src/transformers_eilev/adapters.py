"""Adapters (PEFT) that lie beside the configs of the model that they are for."""

import json
from pathlib import Path


def base_of_adapter(name_or_path) -> str | None:
    """
    The model that an adapter belongs to, if a local folder holds the adapter's weights and the model's configs but not
    the model's weights; transformers takes such a folder for a whole model. Else `None`.
    """
    folder = Path(name_or_path or "")
    names = ("adapter_config.json", "config.json", "generation_config.json")
    if not all((folder / name).is_file() for name in names):
        return None
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        return None
    return json.loads((folder / names[0]).read_text(encoding="utf-8"))["base_model_name_or_path"]
