"""The vision model's weights: out of a checkpoint, and told from others."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# Not from `transformers`: see `modeling_video_blip_2.py`.
from transformers.models.blip_2.modeling_blip_2 import Blip2VisionModel

from ..weight_hashes import hash_weights


def load_vision_model(name_or_path: str | os.PathLike, **kwargs: Any) -> Blip2VisionModel:
    """
    Loads the vision model out of a checkpoint, and nothing else of it.

    Args:
        name_or_path (`str`): of a whole model, such as "kpyu/eilev-blip2-opt-2.7b" or "Salesforce/blip2-opt-2.7b".
        kwargs: for `from_pretrained`, such as `dtype` and `revision`.

    Raises:
        ValueError: if it has no such weights.
        OSError: if there is no such checkpoint.
    """
    model, info = _VisionPart.from_pretrained(
        name_or_path, key_mapping={r"^vision_model\.": ""}, output_loading_info=True, **kwargs
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{name_or_path} lacks {len(missing)} weights of the vision model, {missing[0]!r} first")
    return model.eval()


class _VisionPart(Blip2VisionModel):
    _keys_to_ignore_on_load_unexpected = [r".*"]  # the rest of the whole model


def vision_fingerprint(model: nn.Module) -> dict[str, str]:
    """
    SHA-256 of the vision model's weights, to tell by whether features are theirs.

    A checkpoint is loaded now in one type, now in another. So its weights are hashed as they are when rounded to
    bfloat16, and to float16; float32 has both hashes, and each of the others its own. A training that changes weights
    by less than they are rounded still changes some of a billion roundings. A second pair of hashes leaves out the
    matrices of the linear layers, the only weights that quantization changes.

    Returns:
        `dict[str, str]`: "all bfloat16", "all float16", "unquantized bfloat16", "unquantized float16", or those of
        them that the weights' types allow.
    """
    return {key: hash_weights(weights, dtype) for key, weights, dtype in _comparable(vision_part(model))}


def has_fingerprint(model: nn.Module, fingerprint: Mapping[str, str]) -> bool:
    """
    Whether the vision model's weights are those that `vision_fingerprint` gave `fingerprint` for.

    Raises:
        ValueError: if the model's are of a type that can't be compared.
    """
    vision_model = vision_part(model)
    comparable = [entry for entry in _comparable(vision_model) if entry[0] in fingerprint]
    for part in ("all", "unquantized"):
        of_part = [entry for entry in comparable if entry[0].startswith(part)]
        if of_part:
            # One is enough: weights that were rounded to one type, the other type rounds twice.
            return any(fingerprint[key] == hash_weights(weights, dtype) for key, weights, dtype in of_part)
    raise ValueError(
        f"The vision model's weights are {vision_model.dtype}, and can't be compared with a fingerprint of "
        f"{', '.join(fingerprint)}: load the model as float32"
    )


def vision_part(model: nn.Module) -> nn.Module:
    """The vision model of a whole one, or itself."""
    vision_model = getattr(model, "vision_model", model)
    if not isinstance(vision_model, Blip2VisionModel):
        raise ValueError(f"`model` must have a BLIP-2 vision model, but is a {type(model).__name__}")
    return vision_model


def _comparable(vision_model: nn.Module) -> list[tuple[str, list[tuple[str, torch.Tensor]], torch.dtype]]:
    matrices = {f"{name}.weight" for name, module in vision_model.named_modules() if isinstance(module, nn.Linear)}
    everything = sorted(vision_model.named_parameters())
    others = [(name, weight) for name, weight in everything if name not in matrices]
    return [
        (f"{part} {name}", weights, getattr(torch, name))
        for part, weights in (("all", everything), ("unquantized", others))
        for name in ("bfloat16", "float16")
        if all(weight.dtype in (torch.float32, getattr(torch, name)) for _, weight in weights)
    ]


__all__ = ["has_fingerprint", "load_vision_model", "vision_fingerprint", "vision_part"]
