"""What the frozen vision model makes of each clip, stored once, so that a training reads it instead of frames.

A training that leaves the vision model as it is runs it over the same clips again and again, which is most of its
work. Run once, without augmentation, its output (what the Q-Former attends to) is all that is needed of a clip, at the
price of augmentation and of disk:

    8 frames x 257 tokens x 1,408 numbers (ViT-g/14 at 224 pixels) x 2 bytes       5.8 MB a clip
    10^5 clips, about Ego4D's number                                               579 GB
    a sample of 17 clips                                                           98 MB to read

In the folder:

    index.json                                   which clips, and what decides their features
    features-00000-of-01563.safetensors ...      the features of 64 clips each, by their `frame_path`

Which clips a file holds depends on nothing but their order, so that any number of processes, stopped and started
again, write the same files, each whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..data.files import atomic_file, check_disk_space, remove_leftovers, write_json
from ..video_processing_video_blip_2 import PIXEL_SETTINGS
from .vision_weights import has_fingerprint, load_vision_model, vision_fingerprint, vision_part


INDEX_NAME = "index.json"
VERSION = 1

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}


def extract_vision_features(
    model: nn.Module,
    processor,
    clips,
    output_dir: str | os.PathLike,
    *,
    dtype: torch.dtype = torch.bfloat16,
    num_frames: int | None = None,
    batch_size: int = 16,
    clips_per_shard: int = 64,
    shard: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    progress: bool = True,
    check_disk_space: bool = True,
) -> "VisionFeatureStore":
    """Runs the vision model over every clip and stores its output. What an earlier run has stored is not done again.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`] or [`~transformers.Blip2VisionModel`]): on the device and of the
            type to compute in; see `load_vision_model`.
        processor ([`VideoBlip2Processor`] or [`VideoBlip2VideoProcessor`]): as the training will have it.
        clips (`datasets.Dataset`): with the columns `frame_path` and `frames`, images, such as a clip store.
        output_dir (`str`): for these clips alone.
        dtype (`torch.dtype`, defaults to `torch.bfloat16`): to store; `torch.float16` (more exact, of smaller range)
            or `torch.float32` (twice the size).
        num_frames (`int`, *optional*): of each clip, uniformly out of those that are stored; by default the
            processor's, or all if it has none.
        batch_size (`int`, defaults to 16): clips to run the model over at a time.
        clips_per_shard (`int`, defaults to 64): in a file, 370 MB. Up to four files' worth of memory is needed.
        shard (`tuple[int, int]`, defaults to (0, 1)): i and n: write every n-th file alone, from the i-th on, 0 <= i <
            n, while other processes, anywhere with the same folder, write the others.
        num_workers (`int`, defaults to 0): processes that decode frames; 0 is this one.
        progress (`bool`, defaults to True): a bar of clips with the time left, on standard error.
        check_disk_space (`bool`, defaults to True): whether to refuse to begin what will not fit.

    Returns:
        [`VisionFeatureStore`]: of what is in the folder now.

    Raises:
        ValueError: an argument, by name; a folder of other clips, settings or weights; two clips of one `frame_path`;
            a clip without frames, that can't be read, or whose features `dtype` can't hold, by its `frame_path`.
        OSError: too little space on the disk, with the numbers; or a file that cannot be written.
    """
    _check_arguments(dtype, batch_size, clips_per_shard, shard)
    vision_model, video_processor = vision_part(model), getattr(processor, "video_processor", processor)
    num_frames = video_processor.num_frames if num_frames is None else num_frames
    output_dir = Path(output_dir)
    index = {
        "version": VERSION,
        "fingerprint": vision_fingerprint(vision_model),
        "computed_in": str(vision_model.dtype).removeprefix("torch."),
        "dtype": str(dtype).removeprefix("torch."),
        "hidden_size": vision_model.config.hidden_size,
        "pixels": _pixel_settings(video_processor, num_frames),
        "clips_per_shard": clips_per_shard,
        "frame_paths": _frame_paths(clips),
    }
    if not any(key.startswith("all") for key in index["fingerprint"]):
        raise ValueError("The vision model is quantized, so its output would not be what its weights give")
    _check_folder(output_dir, index)
    shards = _Shards(output_dir, index)
    own = range(shard[0], len(shards), shard[1])
    todo = [number for number in own if not shards.is_whole(number)]
    if check_disk_space and todo:
        tokens_per_frame = (vision_model.config.image_size // vision_model.config.patch_size) ** 2 + 1
        _check_disk_space(shards, todo, index, (num_frames or len(clips[0]["frames"])) * tokens_per_frame)
    _begin(shards, todo, index, alone=shard[1] == 1)
    rows = [shards.rows(number) for number in todo]
    batches = [part[start : start + batch_size] for part in rows for start in range(0, len(part), batch_size)]
    frames = _Frames(_decoded(clips), index["frame_paths"], video_processor, num_frames)
    with _progress_bar(shards, own, todo, shown=progress) as bar:
        _extract(vision_model, frames, batches, shards, dtype=dtype, num_workers=num_workers, bar=bar)
    return VisionFeatureStore(output_dir)


def _begin(shards: "_Shards", todo: Sequence[int], index: dict[str, Any], *, alone: bool) -> None:
    shards.folder.mkdir(parents=True, exist_ok=True)
    # Of several processes, another may be writing the index at this moment.
    leftovers = {shards.path(number).name for number in todo} | ({INDEX_NAME} if alone else set())
    remove_leftovers(shards.folder, leftovers)
    if not (shards.folder / INDEX_NAME).exists():
        write_json(shards.folder / INDEX_NAME, index)


def _extract(vision_model, frames: "_Frames", batches, shards: "_Shards", *, dtype, num_workers, bar) -> None:
    loader = torch.utils.data.DataLoader(
        frames,
        batch_sampler=batches,
        collate_fn=list,
        num_workers=num_workers,
        pin_memory=vision_model.device.type == "cuda",
    )
    was_training = vision_model.training
    vision_model.eval()
    try:
        # A file is written while the next one's clips are encoded.
        with ThreadPoolExecutor(max_workers=1) as executor:
            features, written = {}, None
            for rows, clips in zip(batches, loader):
                names = [frames.frame_paths[row] for row in rows]
                features.update(_encode(vision_model, frames.video_processor, names, clips, dtype))
                bar.update(len(rows))
                number = rows[0] // shards.clips_per_shard
                if len(features) == len(shards.rows(number)):
                    if written is not None:
                        written.result()
                    written = executor.submit(shards.write, number, features)
                    features = {}
            if written is not None:
                written.result()
    finally:
        vision_model.train(was_training)


@torch.no_grad()
def _encode(vision_model, video_processor, names, clips, dtype) -> dict[str, torch.Tensor]:
    """Of each clip, by name, what the vision model makes of it: (num_frames, tokens_per_frame, vision_hidden_size)."""
    # Frames go through the model one by one, so clips of unequal length need no padding.
    pixel_values = video_processor.normalize_frames(torch.cat(clips).to(vision_model.device, non_blocking=True))
    tokens = vision_model(pixel_values.to(vision_model.dtype), return_dict=True).last_hidden_state.to(dtype)
    finite = tokens.isfinite().all(-1).all(-1).cpu().split([len(clip) for clip in clips])
    for name, is_finite in zip(names, finite):
        if not is_finite.all():
            hint = "; store bfloat16" if dtype == torch.float16 else ""
            raise ValueError(f"Clip {name!r} has features that are infinite or no numbers as {dtype}{hint}")
    # Copies: a view would be stored with all of the batch.
    tokens = tokens.cpu().split([len(clip) for clip in clips])
    return {name: clip.clone() for name, clip in zip(names, tokens)}


class VisionFeatureStore:
    """
    Stored features, one clip at a time.

    As the clips of a data set: `InContextDataset(..., load_clip=store.load, clips_as="vision_hidden_states")`, its
    actions without the column `frames`, which would be decoded for nothing. It can be handed to the workers of a
    `DataLoader`, and holds no file open.

    Args:
        folder (`str`): that `extract_vision_features` wrote to.

    Raises:
        FileNotFoundError: if there are no features.
        ValueError: if the folder's index is something else's, or that of a later version of this package.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        index = _read_index(self.folder)
        if index is None:
            raise FileNotFoundError(f"{folder} has no {INDEX_NAME}, so it holds no features of a vision model")
        self._shards = _Shards(self.folder, index)
        self._rows = {frame_path: row for row, frame_path in enumerate(index.pop("frame_paths"))}
        self._index = index
        here = {path.name for path in self.folder.glob("*.safetensors")}
        self._here = {number for number in range(len(self._shards)) if self._shards.path(number).name in here}

    @property
    def dtype(self) -> torch.dtype:
        """The type of the features."""
        return _DTYPES[self._index["dtype"]]

    def __len__(self) -> int:
        """The number of clips whose features are there."""
        return sum(len(self._shards.rows(number)) for number in self._here)

    def __contains__(self, frame_path: str) -> bool:
        """Whether the features of this clip are there."""
        return frame_path in self._rows and self._shard_of(frame_path) in self._here

    def load(self, row: Mapping[str, Any]) -> torch.Tensor:
        """
        Reads the features of one clip, and nothing else.

        Args:
            row (`Mapping`): of a data set of clips, with its `frame_path`.

        Returns:
            `torch.Tensor`: of shape `(num_frames, tokens_per_frame, vision_hidden_size)`.

        Raises:
            ValueError: if the clip is not there, or its file is damaged.
        """
        frame_path = row["frame_path"]
        if frame_path not in self._rows:
            raise ValueError(f"Clip {frame_path!r} is not among the {len(self._rows)} of {self.folder}")
        path = self._shards.path(self._shard_of(frame_path))
        try:
            with safe_open(path, framework="pt") as file:
                # A copy: what is given is a window on the file.
                return file.get_tensor(frame_path).clone()
        except FileNotFoundError:
            raise ValueError(
                f"Clip {frame_path!r} belongs to {path}, which is not there: the extraction was not finished"
            ) from None
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); extract again what it holds") from error

    def check(self, model: nn.Module, processor, frame_paths: Iterable[str] | None = None) -> None:
        """
        Refuses, before a training begins, what would fail in it or be learnt from wrongly.

        Args:
            model ([`VideoBlip2ForConditionalGeneration`]): to train. If its vision model is quantized, what of it is
                not is compared.
            processor ([`VideoBlip2Processor`]): to train with.
            frame_paths (`Iterable[str]`, *optional*): of the clips to train on, by default of all that there are.

        Raises:
            ValueError: if the features are of other weights, frames of other settings or of another width; if clips
                are missing; if files are damaged (cut, or of another extraction: not every byte is read); with how
                many and which.
        """
        vision_model, video_processor = vision_part(model), getattr(processor, "video_processor", processor)
        width = vision_model.config.hidden_size
        if self._index["hidden_size"] != width:
            raise ValueError(
                f"{self.folder} holds features {self._index['hidden_size']} wide, but those of the vision model are "
                f"{width} wide"
            )
        pixels = _pixel_settings(video_processor, video_processor.num_frames)
        _refuse_differences(self.folder, self._index["pixels"], pixels)
        if not has_fingerprint(vision_model, self._index["fingerprint"]):
            raise ValueError(f"{self.folder} holds features of other vision weights than the model has")
        frame_paths = list(self._rows if frame_paths is None else frame_paths)
        unknown = [frame_path for frame_path in frame_paths if frame_path not in self._rows]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of {len(frame_paths)} clips have no features in {self.folder}, {unknown[0]!r} first"
            )
        self._check_shards(sorted({self._shard_of(frame_path) for frame_path in frame_paths}))

    def _check_shards(self, numbers: Sequence[int]) -> None:
        absent = [self._shards.path(number) for number in numbers if not self._shards.path(number).exists()]
        if absent:
            raise ValueError(
                f"{len(absent)} of {len(numbers)} files of {self.folder} are missing, {absent[0].name} first: the "
                "extraction was not finished"
            )
        damaged = [self._shards.path(number) for number in numbers if not self._shards.is_whole(number)]
        if damaged:
            raise ValueError(
                f"{len(damaged)} of {len(numbers)} files of {self.folder} are damaged or of another extraction, "
                f"{damaged[0].name} first; extract again, which makes these anew"
            )

    def _shard_of(self, frame_path: str) -> int:
        return self._rows[frame_path] // self._index["clips_per_shard"]


# -------------------------------------------------------------------------------------------------------------- clips


class _Frames(torch.utils.data.Dataset):
    """The frames of each clip, uint8, of shape (num_frames, 3, height, width), ready to be normalized."""

    def __init__(self, clips, frame_paths: list[str], video_processor, num_frames: int | None):
        self.clips = clips
        self.frame_paths = frame_paths
        self.video_processor = video_processor
        self.settings = {"do_rescale": False, "do_normalize": False}
        if num_frames is not None:
            self.settings["num_frames"] = num_frames

    def __len__(self) -> int:
        return len(self.frame_paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        try:
            return self.video_processor(self.clips[row]["frames"], **self.settings)["pixel_values"][0]
        except (OSError, ValueError) as error:
            raise ValueError(f"The frames of clip {self.frame_paths[row]!r} can't be read: {error}") from error


def open_clips(*paths: str | os.PathLike):
    """
    Opens the clips of all splits of one or more clip stores, or of the original's folders of frames.

    Args:
        paths (`str`): of folders, or names of data sets on the Hub.

    Returns:
        `datasets.Dataset`: with the columns `frame_path` and `frames`.
    """
    import datasets

    from ..data.clip_folders import CSV_NAME, read_frame_folders
    from ..data.clip_store import load_clip_store

    parts = []
    for path in paths:
        if (Path(path) / CSV_NAME).is_file():
            parts.append(read_frame_folders(path))
        else:
            parts += load_clip_store(path).values()
    return datasets.concatenate_datasets([part.select_columns(["frame_path", "frames"]) for part in parts])


def _decoded(clips):
    """The frames of `clips` alone, as images whether they are decoded now or not."""
    import datasets

    return clips.select_columns(["frames"]).cast_column("frames", datasets.List(datasets.Image()))


def _frame_paths(clips) -> list[str]:
    frame_paths = list(clips["frame_path"])
    if not frame_paths:
        raise ValueError("`clips` has no clip")
    num_twice = len(frame_paths) - len(set(frame_paths))
    if num_twice:
        seen = set()
        first = next(name for name in frame_paths if name in seen or seen.add(name))
        raise ValueError(f"{num_twice} of {len(frame_paths)} clips have the `frame_path` of another, {first!r} first")
    return frame_paths


def _pixel_settings(video_processor, num_frames: int | None) -> dict[str, Any]:
    """What decides the pixels of stored frames, as JSON has it."""
    settings = {name: getattr(video_processor, name) for name in PIXEL_SETTINGS}
    settings["size"] = {name: value for name, value in dict(settings["size"]).items() if value is not None}
    settings["resample"] = int(settings["resample"])
    return json.loads(json.dumps({"num_frames": num_frames, **settings}))


# -------------------------------------------------------------------------------------------------------------- files


class _Shards:
    """The files of a store, by their number."""

    def __init__(self, folder: Path, index: Mapping[str, Any]):
        self.folder = folder
        self.clips_per_shard = index["clips_per_shard"]
        self.num_clips = len(index["frame_paths"])
        # Stands in each file, so that none is taken for another extraction's.
        self._digest = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
        self._frame_paths = index["frame_paths"]

    def __len__(self) -> int:
        return -(-self.num_clips // self.clips_per_shard)

    def rows(self, number: int) -> range:
        start = number * self.clips_per_shard
        return range(start, min(start + self.clips_per_shard, self.num_clips))

    def path(self, number: int) -> Path:
        return self.folder / f"features-{number:05d}-of-{len(self):05d}.safetensors"

    def write(self, number: int, features: dict[str, torch.Tensor]) -> None:
        with atomic_file(self.path(number)) as file:
            file.write(save(features, {"index": self._digest}))

    def is_whole(self, number: int) -> bool:
        """Whether the file is there, as long as it says, and of this extraction; the features are not read."""
        try:
            with safe_open(self.path(number), framework="pt") as file:
                names = {self._frame_paths[row] for row in self.rows(number)}
                return (file.metadata() or {}).get("index") == self._digest and set(file.keys()) == names
        except (FileNotFoundError, SafetensorError):
            return False


def _read_index(folder: Path) -> dict[str, Any] | None:
    path = folder / INDEX_NAME
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        index = None
    if not isinstance(index, dict) or "fingerprint" not in index:
        raise ValueError(f"{path} is no index of the features of a vision model")
    if index["version"] > VERSION:
        raise ValueError(f"{path} is of version {index['version']}, but the latest that is known is {VERSION}")
    return index


def _check_folder(folder: Path, index: Mapping[str, Any]) -> None:
    before = _read_index(folder)
    if before is None:
        return
    if before["fingerprint"] != index["fingerprint"]:
        raise ValueError(f"{folder} holds features of other vision weights; give another folder for these")
    if before["frame_paths"] != index["frame_paths"]:
        raise ValueError(
            f"{folder} holds features of {len(before['frame_paths'])} other clips, or in another order; give another "
            f"folder for these {len(index['frame_paths'])}"
        )
    left_out = ("fingerprint", "frame_paths", "pixels")
    for one, other in ((before["pixels"], index["pixels"]), (before, index)):
        _refuse_differences(folder, *({k: v for k, v in part.items() if k not in left_out} for part in (one, other)))


def _refuse_differences(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    different = [f"{key}={before.get(key)!r} and not {now[key]!r}" for key in now if before.get(key) != now[key]]
    if different:
        raise ValueError(f"{folder} holds features of {', '.join(different)}")


def _check_arguments(dtype, batch_size, clips_per_shard, shard) -> None:
    if dtype not in _DTYPES.values():
        raise ValueError(f"`dtype` must be one of {list(_DTYPES)}, but is {dtype!r}")
    for name, value in (("batch_size", batch_size), ("clips_per_shard", clips_per_shard)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {value}")
    if len(shard) != 2 or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"`shard` must be (i, n) with 0 <= i < n, but is {shard!r}")


def _check_disk_space(shards: _Shards, todo: Sequence[int], index: Mapping[str, Any], tokens_per_clip: int) -> None:
    # All that is missing, not only this process's: the others write to the same disk.
    missing = {number for number in range(len(shards)) if not shards.path(number).exists()} | set(todo)
    num_clips = sum(len(shards.rows(number)) for number in missing)
    per_clip = tokens_per_clip * index["hidden_size"] * _DTYPES[index["dtype"]].itemsize
    check_disk_space(
        shards.folder, num_clips * per_clip, f"the features of {num_clips} clips, {per_clip / 2**20:.1f} MiB each,"
    )


def _progress_bar(shards: _Shards, own: Sequence[int], todo: Sequence[int], *, shown: bool):
    from tqdm import tqdm

    total, left = (sum(len(shards.rows(number)) for number in numbers) for numbers in (own, todo))
    return tqdm(total=total, initial=total - left, unit="clip", desc="Extracting features", disable=not shown)


__all__ = ["VisionFeatureStore", "extract_vision_features", "load_vision_model", "open_clips", "vision_fingerprint"]
