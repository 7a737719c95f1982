"""Adapters (PEFT) that lie beside the configs of the model that they are for."""

import json
from pathlib import Path


def base_of_adapter(name_or_path) -> str | None:
    """
    The model that an adapter belongs to, if a local folder holds the adapter's weights and the model's configs but not
    the model's weights; transformers takes such a folder for a whole model. Else `None`.

    Raises:
        ValueError: if the adapter's config does not name its model, with the file.
    """
    folder = Path(name_or_path or "")
    names = ("adapter_config.json", "config.json", "generation_config.json")
    if not all((folder / name).is_file() for name in names):
        return None
    if any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        return None
    base = json.loads((folder / names[0]).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ValueError(
            f"{folder / names[0]}: `base_model_name_or_path` must name the adapter's model, but is {base!r}"
        )
    return base
