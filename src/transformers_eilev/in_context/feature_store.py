"""What the model made of clips, kept in memory and on disk.

In the folder, one file for each clip, of 50 to 160 KiB:

    4f/4f0c...e1.safetensors        by the clip's key, in folders by its first two digits

Each is there whole or not at all, so any number of processes may read and write one folder, and be killed at it.
"""

import os
import re
import warnings
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..data.files import atomic_file
from ..weight_hashes import hash_weights


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """
    What the model makes of a clip, on the CPU.

    Attributes:
        video_hidden_states (`torch.Tensor` of shape `(num_query_tokens, hidden_size)`):
            What stands in the text for the clip, in the model's type.
        vision_embedding (`torch.Tensor` of shape `(vision_hidden_size,)`):
            Mean of the vision model's tokens over all frames, float32; to find similar clips by.
        qformer_embedding (`torch.Tensor` of shape `(qformer_hidden_size,)`):
            Mean of the Q-Former's queries before they are projected, float32; likewise.
        message (`str`): What is missing of a clip that can be read in part only; else empty.
    """

    video_hidden_states: torch.Tensor
    vision_embedding: torch.Tensor
    qformer_embedding: torch.Tensor
    message: str = ""


_TENSORS = tuple(field.name for field in fields(ClipFeatures) if field.type is torch.Tensor)


class ClipFeatureStore:
    """
    Features of clips by their key: those used last in memory, all of them on disk if there is a folder.

    A file that is damaged, or another's, counts as missing, with a warning, and is written anew. A folder that can't
    be written to, as the disk is full or the folder another's, is warned about once, and then only read.

    Args:
        folder (`str`, *optional*): where to keep them on disk; made when the first are kept.
        max_memory_bytes (`int`, defaults to 256 MiB): to keep in memory; 0 keeps none there.

    Attributes:
        hits (`int`): how often `get` had what was asked for.
        misses (`int`): how often it had not.

    Raises:
        NotADirectoryError: if `folder` is a file.
        ValueError: if `max_memory_bytes` is negative.
    """

    def __init__(self, folder: str | os.PathLike | None = None, *, max_memory_bytes: int = 256 << 20):
        if max_memory_bytes < 0:
            raise ValueError(f"`max_memory_bytes` must not be negative, but is {max_memory_bytes}")
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"`folder` is {self.folder}, which is a file")
        self.max_memory_bytes = max_memory_bytes
        self.hits = self.misses = 0
        self._memory: OrderedDict[str, ClipFeatures] = OrderedDict()  # those used last at the end
        self._memory_bytes = 0
        self._writes = self.folder is not None

    def get(self, key: str) -> ClipFeatures | None:
        """The features kept under `key`, or `None`; the caller's own, to do with as he likes.

        Raises:
            ValueError: if `key` is not 64 hexadecimal digits.
        """
        _check_key(key)
        features = self._memory.get(key)
        if features is not None:
            self._memory.move_to_end(key)
            features = _copy(features)
        elif self.folder is not None:
            features = self._read(key)
            if features is not None:
                self._remember(key, features)
        if features is None:
            self.misses += 1
        else:
            self.hits += 1
        return features

    def put(self, key: str, features: ClipFeatures) -> None:
        """Keeps `features`, a copy of them, under `key`, in place of what was there.

        Raises:
            ValueError: if `key` is not 64 hexadecimal digits.
        """
        _check_key(key)
        self._remember(key, features)
        if self._writes:
            try:
                self._write(key, features)
            except OSError as error:
                self._writes = False
                warnings.warn(
                    f"{self.folder} can't be written to ({error}); features of clips are kept in memory only",
                    stacklevel=2,
                )

    def __contains__(self, key: str) -> bool:
        """Whether there are features under `key`; what is on disk is not read, and may be damaged."""
        _check_key(key)
        return key in self._memory or (self.folder is not None and self._path(key).is_file())

    def __len__(self) -> int:
        """The number of clips whose features are there, in memory or on disk; looks through the folder."""
        on_disk = () if self.folder is None else self.folder.glob("??/*.safetensors")
        return len({*self._memory, *(path.stem for path in on_disk)})

    def _remember(self, key: str, features: ClipFeatures) -> None:
        before = self._memory.pop(key, None)
        if before is not None:
            self._memory_bytes -= _num_bytes(before)
        if _num_bytes(features) > self.max_memory_bytes:
            return
        self._memory[key] = _copy(features)
        self._memory_bytes += _num_bytes(features)
        while self._memory_bytes > self.max_memory_bytes:
            _, oldest = self._memory.popitem(last=False)
            self._memory_bytes -= _num_bytes(oldest)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _write(self, key: str, features: ClipFeatures) -> None:
        tensors = _tensors(_copy(features))
        metadata = {"key": key, "message": features.message, "sha256": hash_weights(sorted(tensors.items()))}
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(save(tensors, metadata))

    def _read(self, key: str) -> ClipFeatures | None:
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key or set(file.keys()) != set(_TENSORS):
                    raise SafetensorError("it is another file")
                # Copies: what is given is a window on the file.
                tensors = {name: file.get_tensor(name).clone() for name in _TENSORS}
            if metadata.get("sha256") != hash_weights(sorted(tensors.items())):
                raise SafetensorError("its content has changed")
            return ClipFeatures(**tensors, message=metadata.get("message", ""))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"{path} is damaged ({error}); the features that belong there are computed again", stacklevel=3
            )
            return None


def _check_key(key: str) -> None:
    # It becomes the name of a file.
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise ValueError(f"`key` must be 64 hexadecimal digits, as `ClipEncoder.key` gives them, but is {key!r}")


def _tensors(features: ClipFeatures) -> dict[str, torch.Tensor]:
    return {name: getattr(features, name) for name in _TENSORS}


def _num_bytes(features: ClipFeatures) -> int:
    return sum(tensor.nbytes for tensor in _tensors(features).values())


def _copy(features: ClipFeatures) -> ClipFeatures:
    """With memory of its own, and no more of it than needed: none of a batch that it was cut out of."""
    tensors = _tensors(features).items()
    return replace(
        features,
        **{name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors},
    )


__all__ = ["ClipFeatureStore", "ClipFeatures"]
