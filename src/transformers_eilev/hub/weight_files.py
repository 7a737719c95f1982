"""A checkpoint's weights from file to file: no model is built in memory, and no byte of a weight changes."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from transformers.modeling_utils import load_state_dict
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)
from transformers.utils.hub import get_checkpoint_shard_files


# In the order in which transformers looks for them.
_NAMES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)

# All that a checkpoint's weights may be called, for whoever puts others in their place; an adapter that lay there
# would be applied to these.
WEIGHT_PATTERNS = [
    *("model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json"),
    *("adapter_config.json", "adapter_model*.safetensors", "adapter_model*.bin"),
]


@dataclass(frozen=True)
class SelectedWeights:
    """
    Weights as a model of today keeps them.

    Attributes:
        tensors (`dict[str, torch.Tensor]`): by name; still on disk, as far as their file allows it.
        left_out (`list[str]`): what the files hold besides: copies of tied weights, and what is computed today.
    """

    tensors: dict[str, torch.Tensor]
    left_out: list[str]


def find_weight_files(name_or_path: str, **hub_kwargs) -> list[Path]:
    """
    The files of a checkpoint's weights, downloaded if need be.

    Args:
        name_or_path (`str`): a folder or a model id on the Hub.
        hub_kwargs: `revision` and other arguments of `from_pretrained` that say where files lie.

    Raises:
        FileNotFoundError: if there are none, or not all that the index names.
    """
    for name in _NAMES:
        path = cached_file(name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub_kwargs)
        if path is None:
            continue
        if not name.endswith(".index.json"):
            return [Path(path)]
        shards, _ = get_checkpoint_shard_files(name_or_path, path, **hub_kwargs)
        if missing := [Path(shard).name for shard in shards if not Path(shard).is_file()]:
            raise FileNotFoundError(f"{path} names {missing}, which {name_or_path} lacks")
        return [Path(shard) for shard in shards]
    raise FileNotFoundError(f"{name_or_path} has no weights: none of {', '.join(_NAMES)}")


def read_weights(files: list[Path]) -> dict[str, torch.Tensor]:
    """
    All tensors of some weight files, `.safetensors` or `.bin`; of the latter only tensors are unpickled.

    Raises:
        ValueError: if one can't be read, with its name.
    """
    tensors = {}
    for file in files:
        try:
            tensors |= load_state_dict(file)
        except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"{file} can't be read as weights: {reason}") from error
    return tensors


def select_weights(tensors: dict[str, torch.Tensor], model, where: str) -> SelectedWeights:
    """
    Those of a checkpoint's tensors that a model has, each of the tied ones once.

    Args:
        tensors (`dict[str, torch.Tensor]`): as they were stored.
        model ([`~transformers.PreTrainedModel`]): for its names and shapes; its weights may be on "meta".
        where (`str`): the checkpoint, for errors.

    Raises:
        ValueError: if a weight is missing or of another shape.
    """
    expected = model.state_dict()
    selected = {name: tensor for name, tensor in tensors.items() if name in expected}
    missing = set(expected) - set(selected)
    for tied, kept in model.all_tied_weights_keys.items():
        if tied in tensors and kept in tensors and torch.equal(tensors[tied], tensors[kept]):
            selected.pop(tied, None)
        elif tied in tensors or kept in tensors:  # transformers takes the one that is there for both
            missing -= {tied, kept}
    if missing:
        raise ValueError(f"{where} lacks weights of the model that its config.json describes: {_few(sorted(missing))}")
    for name, tensor in selected.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{where}: {name} is of shape {tuple(tensor.shape)}, but config.json describes a model with "
                f"{tuple(expected[name].shape)}"
            )
    return SelectedWeights(selected, sorted(set(tensors) - set(selected)))


def cast_weights(tensors: dict[str, torch.Tensor], dtype: torch.dtype, kept: set[str]) -> dict[str, torch.Tensor]:
    """
    The floating-point ones of some tensors in another type.

    Args:
        kept (`set[str]`): names of modules and parameters that stay as they are, wherever they are in the model.
    """
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() and kept.isdisjoint(name.split(".")) else tensor
        for name, tensor in tensors.items()
    }


def write_weights(tensors: dict[str, torch.Tensor], folder: Path, max_shard_size: str = "5GB") -> None:
    """Writes safetensors into `folder`, with an index if there are several files."""
    save_torch_state_dict(tensors, folder, max_shard_size=max_shard_size)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
