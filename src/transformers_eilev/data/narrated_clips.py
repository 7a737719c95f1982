"""Clips with narrations to train on or to evaluate on, whichever way they are stored, checked before they are used."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..video_reading import sample_indices
from .action_files import read_csv
from .clip_folders import CSV_NAME, read_frame_folders
from .clip_store import load_clip_store
from .narrations import clean_narration_text
from .splits import read_split_file


# What is replaced by the columns of an annotation file; the clip itself stays.
_ANNOTATED = ("narration_text", "structured_verb", "structured_noun")


def load_narrated_clips(
    path: str | os.PathLike,
    *,
    split: str = "train",
    annotation_file: str | os.PathLike | None = None,
    split_file: str | os.PathLike | None = None,
    skip_missing: bool = False,
    with_frames: bool = True,
):
    """
    Opens narrated clips, whichever way they are stored, and refuses what would fail later.

    Args:
        path (`str`): a clip store (folder, or data set on the Hub), or the original's folders of frames.
        split (`str`, defaults to "train"): of a clip store.
        annotation_file (`str`, *optional*): a CSV of narrated actions with a `frame_path` each; they take the place of
            those beside the frames, and clips that it does not name are left out.
        split_file (`str`, *optional*): such as `fho_main_train.json`; clips of other videos are left out.
        skip_missing (`bool`, defaults to `False`): leave out, with a warning, what an annotation names and has no
            frames, or has no narration.
        with_frames (`bool`, defaults to `True`): Whether the frames are wanted, which a row is read with.

    Returns:
        `datasets.Dataset`: with the columns of a clip store; the `frames` still encoded.

    Raises:
        FileNotFoundError: no clips there.
        ValueError: clips that an annotation names and that are not there, narrations without a word, a split file of
            other videos; with how many of how many and the first of them.

    Warns:
        UserWarning: with `skip_missing`, of what is left out, likewise.
    """
    import datasets
    import pyarrow.compute as pc

    complain = _warn if skip_missing else _refuse
    if (Path(path) / CSV_NAME).is_file() or (Path(path).is_dir() and annotation_file and not _is_clip_store(path)):
        clips = _read_folders(path, annotation_file, complain)
    else:
        clips = load_clip_store(path, split=split)
        lengths = pc.list_value_length(clips.data.column("frames")).to_pylist()
        empty = {row for row, length in enumerate(lengths) if not length}
        clips = _leave_out(clips, empty, f"clips of {path} have no frames", complain)
        if annotation_file is not None:
            clips = _annotate(clips, annotation_file, path, complain)
    clips = clips.cast_column("frames", datasets.List(datasets.Image(decode=False)))
    if not with_frames:
        clips = clips.remove_columns("frames")
    if split_file is not None:
        clips = _of_split(clips, split_file, path)
    texts = clips["narration_text"][:]
    silent = {row for row, text in enumerate(texts) if not clean_narration_text(text or "")}
    clips = _leave_out(clips, silent, f"clips of {path} have no narration", complain)
    if not len(clips):
        raise ValueError(f"{path} has no clip that is narrated")
    return clips


class FrameLoader:
    """
    Gives a row's clip, and decodes the frames that are wanted alone. For `load_clip` of [`InContextDataset`].

    Args:
        num_frames (`int`, *optional*): of each clip, uniformly out of those that are stored; by default all of them.

    Raises:
        ValueError: on a call, if there is no frame or one can't be read, with the clip's name.
    """

    def __init__(self, num_frames: int | None = None):
        self.num_frames = num_frames

    def __call__(self, row: dict):
        from PIL import Image

        frames = row["frames"]
        if not frames:
            raise ValueError(f"The clip {row['frame_path']!r} has no frames")
        images = []
        for index in sample_indices(len(frames), self.num_frames or len(frames)):
            frame = frames[index]
            try:
                source = frame["path"] if frame["bytes"] is None else io.BytesIO(frame["bytes"])
                with Image.open(source) as image:
                    images.append(image.convert("RGB"))
            except OSError as error:
                raise ValueError(f"Frame {index} of the clip {row['frame_path']!r} can't be read: {error}") from error
        return images


def hash_frames(row: Mapping[str, Any]) -> bytes:
    """
    A hash of a row's frames as they are stored, without decoding them.

    Args:
        row (`Mapping`): of `load_narrated_clips`.

    Returns:
        `bytes`: 16 of them.
    """
    digest = hashlib.blake2b(digest_size=16)
    for frame in row["frames"]:
        content = frame["bytes"] if frame["bytes"] is not None else Path(frame["path"]).read_bytes()
        digest.update(len(content).to_bytes(8))
        digest.update(content)
    return digest.digest()


# ------------------------------------------------------------------------------------------------------------ details


def _leave_out(clips, rows: set[int], problem: str, complain: Callable):
    if not rows:
        return clips
    names = clips["frame_path"][:]
    complain(f"{len(rows)} of the {len(clips)} {problem}", [names[row] for row in sorted(rows)])
    return clips.select([row for row in range(len(clips)) if row not in rows])


def _is_clip_store(path) -> bool:
    return (Path(path) / "data").is_dir()


def _read_folders(path, annotation_file, complain: Callable):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clips = read_frame_folders(path, annotation_file=annotation_file)
    for warning in caught:
        summary, *examples = str(warning.message).split("\n")
        complain(summary.rstrip(":"), examples)
    return clips


def _annotate(clips, annotation_file, path, complain: Callable):
    """The clips that a CSV names, in its order and with its columns."""
    rows = read_csv(Path(annotation_file))
    twice = [name for name, count in Counter(row["frame_path"] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{annotation_file} names {len(twice)} clips more than once, {twice[0]!r} first")
    places = {name: place for place, name in enumerate(clips["frame_path"][:])}
    missing = [row["frame_path"] for row in rows if row["frame_path"] not in places]
    if missing:
        complain(f"{len(missing)} of the {len(rows)} clips that {annotation_file} names are not in {path}", missing)
    rows = [row for row in rows if row["frame_path"] in places]
    clips = clips.select([places[row["frame_path"]] for row in rows])
    for name in _ANNOTATED:
        if rows and name in rows[0]:
            clips = clips.remove_columns(name).add_column(name, [row[name] or "" for row in rows])
    return clips


def _of_split(clips, split_file, path):
    name, videos = read_split_file(split_file)
    rows = [row for row, video_uid in enumerate(clips["video_uid"][:]) if video_uid in videos]
    if not rows:
        raise ValueError(
            f"{split_file} is of other videos: of its {len(videos)} videos (split {name!r}) none is among those of "
            f"the {len(clips)} clips of {path}"
        )
    return clips.select(rows)


def _refuse(problem: str, examples: Sequence[str]):
    raise ValueError(_message(problem, examples) + "\nSet `skip_missing_clips` to go on without them.")


def _warn(problem: str, examples: Sequence[str]):
    warnings.warn(_message(problem, examples), UserWarning, stacklevel=3)


def _message(problem: str, examples: Sequence[str]) -> str:
    shown = [str(example) for example in examples[:10]]
    more = [f"... and {len(examples) - 10} more"] if len(examples) > 10 else []
    return "\n".join([problem + ":", *shown, *more])


__all__ = ["FrameLoader", "hash_frames", "load_narrated_clips"]
