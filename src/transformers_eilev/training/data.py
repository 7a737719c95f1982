"""The samples of a training, checked before it begins."""

import csv
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..data.clip_folders import CSV_NAME, read_frame_folders
from ..data.clip_store import load_clip_store
from ..data.in_context import InContextDataset, InContextSampler
from ..data.narrations import PROMPTS, VIDEO_BLIP_PROMPT, clean_narration_text
from ..data.splits import read_split_file
from ..video_reading import sample_indices
from .arguments import DataArguments, EilevDataArguments


# What is replaced by the columns of an annotation file; the clip itself stays.
_ANNOTATED = ("narration_text", "structured_verb", "structured_noun")


def load_training_clips(
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
        raise ValueError(f"{path} has no clip to train on")
    return clips


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
    with open(annotation_file, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "frame_path" not in (reader.fieldnames or ()):
            raise ValueError(f"{annotation_file} has no column frame_path, its first line is {reader.fieldnames}")
        rows = list(reader)
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


# ------------------------------------------------------------------------------------------------------------ samples


def make_datasets(
    arguments: DataArguments, *, processor, num_frames: int, seed: int, with_train: bool = True, with_val: bool = True
) -> tuple[InContextDataset | None, InContextDataset | None]:
    """
    The samples to train on and those to evaluate on.

    Args:
        arguments ([`EilevDataArguments`] or [`DataArguments`]): the latter for VideoBLIP: its one question, and no
            examples.
        processor ([`VideoBlip2Processor`]): whose size of frames the augmentation gives.
        num_frames (`int`): of each clip, uniformly out of those that are stored.
        seed (`int`): of every draw.
        with_train, with_val (`bool`): Whether they are wanted. Examples for evaluation are of the training clips.

    Returns:
        `tuple`: of two [`InContextDataset`], `None` where not wanted.

    Raises:
        ValueError: as `load_training_clips`; if there are fewer clips than examples wanted in a sample.
    """
    is_eilev = isinstance(arguments, EilevDataArguments)
    num_val_examples = arguments.val_num_in_context_examples_per_sample if is_eilev else 0
    train = val = train_clips = None
    load_clip, clips_as = _ClipLoader(num_frames), "videos"
    if arguments.vision_features_dir is not None:
        from .vision_features import VisionFeatureStore

        load_clip, clips_as = VisionFeatureStore(arguments.vision_features_dir).load, "vision_hidden_states"
    shared = {
        "load_clip": load_clip,
        "clips_as": clips_as,
        "prompts": PROMPTS if is_eilev else (VIDEO_BLIP_PROMPT,),
        "seed": seed,
    }
    if with_train or num_val_examples:
        train_clips = _open_clips(arguments, "train")
    if with_train:
        num_examples = arguments.train_num_in_context_examples_per_sample if is_eilev else 0
        sampler = _sampler(
            arguments,
            train_clips,
            num_examples,
            seed,
            target_length=arguments.train_target_dataset_len if is_eilev else None,
        )
        train = InContextDataset(train_clips, sampler, transform=_augmentation(arguments, processor), **shared)
    if train_clips is not None and clips_as == "videos":
        _warn_of_few_frames(train_clips, num_frames, arguments.train_frames_dir)
    if with_val and arguments.val_frames_dir is not None:
        val_clips = _open_clips(arguments, "val")
        if arguments.max_val_samples is not None and arguments.max_val_samples < len(val_clips):
            rows = np.random.default_rng([seed, len(val_clips)]).permutation(len(val_clips))
            val_clips = val_clips.select(sorted(rows[: arguments.max_val_samples].tolist()))
        _warn_of_common_videos(train_clips, val_clips, arguments)
        sampler = _sampler(arguments, train_clips or val_clips, num_val_examples, seed, queries=val_clips)
        val = InContextDataset(val_clips, sampler, context_actions=train_clips or val_clips, **shared)
    return train, val


def _open_clips(arguments: DataArguments, which: str):
    """The clips to train on ("train") or to evaluate on ("val")."""
    return load_training_clips(
        getattr(arguments, f"{which}_frames_dir"),
        split=getattr(arguments, f"{which}_split"),
        annotation_file=getattr(arguments, f"{which}_annotation_file"),
        split_file=getattr(arguments, f"{which}_split_file"),
        skip_missing=arguments.skip_missing_clips,
        with_frames=arguments.vision_features_dir is None,
    )


def _sampler(arguments, clips, num_examples: int, seed: int, *, queries=None, target_length=None) -> InContextSampler:
    available = len(clips) - (queries is None)
    if num_examples > available:
        raise ValueError(
            f"{num_examples} examples are wanted in each sample, but {arguments.train_frames_dir} has {len(clips)} "
            f"clips, so that {available} can stand before another"
        )
    return InContextSampler(
        clips["structured_verb"],
        clips["structured_noun"],
        num_examples=num_examples,
        verb_noun_ratio=arguments.verb_noun_ratio if num_examples else 0.5,
        random=arguments.random_in_context_examples if num_examples else False,
        seed=seed,
        queries=None if queries is None else (queries["structured_verb"], queries["structured_noun"]),
        target_length=target_length,
    )


def _augmentation(arguments: DataArguments, processor):
    if not arguments.augment:
        return None
    from .augmentation import ClipAugmentation

    size = processor.video_processor.size
    return ClipAugmentation((size["height"], size["width"]))


def _warn_of_common_videos(train_clips, val_clips, arguments: DataArguments):
    if train_clips is None:
        return
    common = set(train_clips["video_uid"][:]) & set(val_clips["video_uid"][:])
    if common:
        warnings.warn(
            f"{len(common)} videos are both in {arguments.train_frames_dir} and in {arguments.val_frames_dir}, such "
            f"as {min(common)!r}: the evaluation is on what was trained on",
            UserWarning,
            stacklevel=3,
        )


def _warn_of_few_frames(clips, num_frames: int, path):
    stored = len(clips[0]["frames"])
    if stored < num_frames:
        warnings.warn(
            f"{num_frames} frames of each clip are wanted, but the clips of {path} have {stored} (the first one has): "
            "some are taken twice",
            UserWarning,
            stacklevel=3,
        )


class _ClipLoader:
    """Decodes the frames of a row that are wanted, and no others."""

    def __init__(self, num_frames: int):
        self.num_frames = num_frames

    def __call__(self, row: dict):
        from PIL import Image

        frames = row["frames"]
        if not frames:
            raise ValueError(f"The clip {row['frame_path']!r} has no frames")
        images = []
        for index in sample_indices(len(frames), self.num_frames):
            frame = frames[index]
            try:
                source = frame["path"] if frame["bytes"] is None else _bytes_file(frame["bytes"])
                with Image.open(source) as image:
                    images.append(image.convert("RGB"))
            except OSError as error:
                raise ValueError(f"Frame {index} of the clip {row['frame_path']!r} can't be read: {error}") from error
        return images


def _bytes_file(content: bytes):
    import io

    return io.BytesIO(content)


__all__ = ["load_training_clips", "make_datasets"]
