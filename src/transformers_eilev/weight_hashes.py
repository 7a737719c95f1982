"""Hashes of weights: whether something was computed with these weights, or with others."""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


# Parts of a model by name: modules, and parameters that are in none of them.
Parts = Mapping[str, nn.Module | torch.Tensor]

# Values of each tensor that tell a changed one.
_NUM_SAMPLES = 64


def hash_weights(weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype | None = None) -> str:
    """
    SHA-256 of tensors: of their names, shapes and values, in the order given.

    Args:
        weights (`Iterable[tuple[str, torch.Tensor]]`): names and tensors, on any device.
        dtype (`torch.dtype`, *optional*): to round them to before; by default they are hashed as they are, and their
            types with them.

    Raises:
        ValueError: if a tensor's values are not in memory, by its name.
    """
    digest = hashlib.sha256()
    for name, weight in weights:
        _check_in_memory(name, weight)
        kind = f" {weight.dtype}" if dtype is None else ""
        digest.update(f"{name} {tuple(weight.shape)}{kind}\n".encode())
        digest.update(_bytes_of(weight if dtype is None else weight.detach().to(dtype)))
    return digest.hexdigest()


class PartsHash:
    """
    The hash of all that decides what parts of a model compute: their weights and buffers in the type that they have,
    the state of their quantization (bitsandbytes) and of adapters (PEFT) among them. Called, it takes the hash when
    the parts have changed since it was called before, and else gives the one it took.

    That they have changed is told by where their tensors lie, by what PyTorch counts of changes, and, as it counts
    neither those of fused optimizers nor those through `.data`, by 64 values of each tensor. A single value changed
    through `.data` goes unnoticed. 4-bit weights change when they are first run on a CPU that has bfloat16.
    """

    def __init__(self):
        self._seen = None
        self._hash = ""

    def __call__(self, parts: Parts) -> str:
        """
        Args:
            parts (`Mapping[str, nn.Module | torch.Tensor]`): by name, which is hashed as well.

        Raises:
            ValueError: if a weight is not in memory, by its name.
        """
        seen = look_over(parts)
        if self._seen != seen:
            quantized, settings = _quantization(parts)
            weights = sorted([*_parameters_and_buffers(parts), *quantized], key=lambda item: item[0])
            whole = [hash_weights(weights), settings, _adapters(parts)]
            self._hash = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
            self._seen = seen
        return self._hash


def _parameters_and_buffers(parts: Parts) -> Iterator[tuple[str, torch.Tensor]]:
    for part, module in parts.items():
        if isinstance(module, torch.Tensor):
            yield part, module
        else:
            yield from module.named_parameters(part)
            yield from module.named_buffers(part)


def _modules(parts: Parts) -> Iterator[tuple[str, nn.Module]]:
    for part, module in parts.items():
        if isinstance(module, nn.Module):
            yield from module.named_modules(prefix=part)


def _quantization(parts: Parts) -> tuple[list[tuple[str, torch.Tensor]], list[Any]]:
    """What quantized weights are scaled by, which is neither parameter nor buffer, and the settings of that."""
    tensors, settings = [], []
    if "bitsandbytes" not in sys.modules:
        return tensors, settings  # so no layer is one of its
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    # Not from `state_dict`: once they have run on a CPU, it rearranges 4-bit weights in their places, and wrongly.
    for name, layer in _modules(parts):
        state = {}
        if isinstance(layer, Linear8bitLt):
            # With the weight until the layer is first run.
            state["SCB"] = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
        elif isinstance(layer, Linear4bit) and layer.weight.quant_state is not None:
            state = layer.weight.quant_state.as_dict()
        tensors += [(f"{name}.{key}", value) for key, value in state.items() if isinstance(value, torch.Tensor)]
        settings += [[name, key, str(value)] for key, value in state.items() if not isinstance(value, torch.Tensor)]
    return tensors, settings


def look_over(parts: Parts) -> tuple:
    """
    What differs, in all likelihood, once the parts have changed, at a thousandth of the price of a hash: see
    [`PartsHash`]. To be compared in the process that made it.
    """
    places, samples = [], defaultdict(list)
    for name, tensor in _parameters_and_buffers(parts):
        _check_in_memory(name, tensor)
        version = None if tensor.is_inference() else tensor._version
        places.append((name, tensor.data_ptr(), version, tensor.dtype, tuple(tensor.shape)))
        step = max(1, tensor.numel() // _NUM_SAMPLES)
        values = tensor.detach().reshape(-1)[::step].contiguous()
        samples[tensor.device].append(values.view(torch.uint8))
    # Of a GPU, in one transfer.
    values = [_bytes_of(torch.cat(on_device)).tobytes() for on_device in samples.values()]
    return places, values, _adapters(parts)


def _adapters(parts: Parts) -> list[Any]:
    """Of each layer with adapters: which are active, whether they are disabled or merged, and how they are scaled."""
    if "peft" not in sys.modules:
        return []  # so no layer is one of its
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = []
    for name, layer in _modules(parts):
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
            settings = {key: getattr(layer, key) for key in layer.other_param_names}
            numbers = {key: str(value) for key, value in settings.items() if isinstance(value, dict)}
            # Copies: the lists are changed in place.
            active, merged = list(layer.active_adapters), list(layer.merged_adapters)
            layers.append([name, active, layer.disable_adapters, merged, numbers])
    return layers


def _check_in_memory(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta:
        raise ValueError(f"{name} is not in memory but offloaded, or was never loaded, so it can't be hashed")


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()


__all__ = ["Parts", "PartsHash", "hash_weights", "look_over"]
