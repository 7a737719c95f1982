"""The samples of a training, checked before it begins."""

import warnings

import numpy as np

from ..data.in_context import InContextDataset, InContextSampler
from ..data.narrated_clips import FrameLoader, load_narrated_clips
from ..data.narrations import PROMPTS, VIDEO_BLIP_PROMPT
from .arguments import DataArguments, EilevDataArguments


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
        ValueError: as `load_narrated_clips`; if there are fewer clips than examples wanted in a sample.
    """
    is_eilev = isinstance(arguments, EilevDataArguments)
    num_val_examples = arguments.val_num_in_context_examples_per_sample if is_eilev else 0
    train = val = train_clips = None
    load_clip, clips_as = FrameLoader(num_frames), "videos"
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
    return load_narrated_clips(
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


__all__ = ["make_datasets"]
