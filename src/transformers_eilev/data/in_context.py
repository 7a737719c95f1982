"""
Samples of narrated actions: those that stand in a prompt before the one that is asked about, and that one.

Every draw comes from (seed, epoch, index), so a sample is the same in any order, process and number of workers, and a
run that is resumed goes on as it would have.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .context_samplers import BalancedContextSampler, ContextSampler, InContextSampler, upsample
from .narrations import PROMPTS, clean_narration_text
from .presampled_contexts import PresampledContexts, write_contexts


# The last number of a seed: what the draws are for. The context's own have none, and 4 is for repeated queries.
_QUESTIONS, _DERANGEMENT, _TRANSFORM, _RENAMING = 1, 2, 3, 5

_CLIPS = ("videos", "pixel_values", "vision_hidden_states")


def derangement(length: int, rng: np.random.Generator) -> list[int]:
    """
    A random permutation that leaves nothing in its place, each with the same probability.

    Raises:
        ValueError: for a length of 1, which has none.
    """
    if length == 1:
        raise ValueError("A single clip can't be exchanged with another: a derangement needs none, or two and more")
    places = np.arange(length)
    while True:
        # One in e is one, whatever the length.
        permutation = rng.permutation(length)
        if not (permutation == places).any():
            return permutation.tolist()


class InContextDataset:
    r"""
    Actions, a sampler and questions, joined into samples for [`DataCollatorForVideoNarration`]. Map-style: for
    PyTorch's `DataLoader`, with any number of workers, and for the `Trainer`.

    A sample has `text`, the blocks of its prompt (a clip, a question and, but for the last, the narration);
    `text_target`, the query's narration; `videos` (or what `clips_as` names), the clips in the order of the text; and,
    to tell it by, `frame_path`, `video_uid` and `clip_index` of the query and `in_context_frame_paths`.

    Args:
        actions (`Sequence[dict]`): rows to ask about, such as a `datasets.Dataset` of a clip store.
        sampler (`ContextSampler`): chooses the context.
        context_actions (`Sequence[dict]`, *optional*): rows that the sampler's contexts are of, by default `actions`.
        load_clip (`Callable[[dict], Any]`, *optional*): a row's clip, in any form that the collator takes. By default
            the row's `frames`.
        clips_as (`str`, *optional*, defaults to "videos"): what `load_clip` gives, as the collator calls it: "videos",
            "pixel_values" or "vision_hidden_states".
        transform (`Callable[[Any, np.random.Generator], Any]`, *optional*): called on each clip, with its own
            randomness, such as an augmentation.
        prompts (`Sequence[str]`, *optional*): questions, of which one is drawn for each clip. By default EILEV's.
        clean (`Callable[[str], str]`, *optional*): makes a sentence of a row's `narration_text`.
        with_target (`bool`, *optional*, defaults to `True`): `False` leaves out `text_target`, to generate.
        derange_clips (`bool`, *optional*, defaults to `False`): gives each example of a context the clip of another,
            to see what the texts alone do.
        demonstration_clips (`bool`, *optional*, defaults to `True`): `False` leaves out the clips of the context and
            keeps its questions and narrations, to see what the texts alone do. They are not loaded.
        query_clip (`bool`, *optional*, defaults to `True`): `False` leaves out the clip that is asked about, to see
            what can be told without it. It is not loaded. Without any clip a sample is a text alone: for evaluation,
            since training on several devices needs a clip in every batch (see [`DataCollatorForVideoNarration`]).
        rename (`Callable[[list[str], list[dict], np.random.Generator], list[str]]`, *optional*): called for each
            sample with the cleaned narrations of the context, in order, and of the query, with their rows and with
            randomness of its own; what it returns stands for them in text and target. Such as [`EpisodeNames`]. Rows
            whose clips are left out have no `frames`.
        seed (`int`, *optional*, defaults to 0): of the questions, the derangement, the transform and `rename`.

    Raises:
        ValueError: with `derange_clips`, for a context of a single example and without `demonstration_clips`; for an
            unknown `clips_as`; on access, if `rename` does not return a text for each narration.
    """

    def __init__(
        self,
        actions: Sequence[dict],
        sampler: ContextSampler,
        *,
        context_actions: Sequence[dict] | None = None,
        load_clip: Callable[[dict], Any] | None = None,
        clips_as: str = "videos",
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        prompts: Sequence[str] = PROMPTS,
        clean: Callable[[str], str] = clean_narration_text,
        with_target: bool = True,
        derange_clips: bool = False,
        demonstration_clips: bool = True,
        query_clip: bool = True,
        rename: Callable[[list[str], list[dict], np.random.Generator], list[str]] | None = None,
        seed: int = 0,
    ):
        import torch

        if not prompts or isinstance(prompts, str):
            raise ValueError(f"`prompts` must be a list of at least one question, but is {prompts!r}")
        if clips_as not in _CLIPS:
            raise ValueError(f"`clips_as` must be one of {_CLIPS}, but is {clips_as!r}")
        if derange_clips and not demonstration_clips:
            raise ValueError("`derange_clips` needs the clips that `demonstration_clips=False` leaves out")
        self.actions = actions
        self.context_actions = actions if context_actions is None else context_actions
        self._silent_query_rows, self._silent_context_rows = map(_without_frames, (actions, self.context_actions))
        self._query_rows = self.actions if query_clip else self._silent_query_rows
        self._context_rows = self.context_actions if demonstration_clips else self._silent_context_rows
        self.sampler = sampler
        self.load_clip = load_clip or _frames_of
        self.clips_as = clips_as
        self.transform = transform
        self.prompts = list(prompts)
        self.clean = clean
        self.with_target = with_target
        self.derange_clips = derange_clips
        self.demonstration_clips = demonstration_clips
        self.query_clip = query_clip
        self.rename = rename
        self.seed = seed
        # Shared memory, since workers that persist keep the copy of the data set that they began with.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        if derange_clips:
            _check_contexts_can_be_deranged(sampler)

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def epoch(self) -> int:
        """The epoch that samples are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int):
        """Draws other contexts and questions from now on, in workers too."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch = self.epoch
        rows = self._rows(index, epoch, self._query_rows, self._context_rows)
        *context, query = rows
        drawn = self._rng(epoch, index, _QUESTIONS).integers(len(self.prompts), size=len(rows))
        questions = [self.prompts[i] for i in drawn]
        narrations = self._narrations(rows, epoch, index)
        marks = {"demonstration_clips": self.demonstration_clips, "query_clip": self.query_clip}
        sample = {
            "text": build_blocks(questions, narrations[:-1], **marks),
            self.clips_as: self._clips(rows, epoch, index),
            "in_context_frame_paths": [row["frame_path"] for row in context],
            **{name: query[name] for name in ("frame_path", "video_uid", "clip_index") if name in query},
        }
        return {**sample, "text_target": narrations[-1]} if self.with_target else sample

    def narrations(self, index: int) -> list[str]:
        """
        What is said in a sample of this epoch: the narrations of its context, in order, and last the query's, as they
        stand in `text` and `text_target`. No clip is loaded.

        Raises:
            IndexError: if there is no such sample.
        """
        rows = self._rows(index, self.epoch, self._silent_query_rows, self._silent_context_rows)
        return self._narrations(rows, self.epoch, index)

    def _rows(self, index: int, epoch: int, query_rows: Sequence[dict], context_rows: Sequence[dict]) -> list[dict]:
        query = query_rows[self.sampler.query(index)]
        return [*(context_rows[row] for row in self.sampler.sample(index, epoch)), query]

    def _narrations(self, rows: list[dict], epoch: int, index: int) -> list[str]:
        narrations = [self.clean(row["narration_text"]) for row in rows]
        if self.rename is None:
            return narrations
        renamed = self.rename(narrations, rows, self._rng(epoch, index, _RENAMING))
        is_list = isinstance(renamed, (list, tuple)) and all(isinstance(narration, str) for narration in renamed)
        if not is_list or len(renamed) != len(rows):
            raise ValueError(
                f"`rename` must return a text for each of {len(rows)} narrations, but for the sample of "
                f"{rows[-1]['frame_path']!r} returned {renamed!r}"
            )
        return list(renamed)

    def _clips(self, rows: list[dict], epoch: int, index: int) -> list:
        # By their places in the prompt, so that a clip is the same whichever others are left out.
        places = [*range(len(rows) - 1 if self.demonstration_clips else 0), *[len(rows) - 1] * self.query_clip]
        clips = [self.load_clip(rows[place]) for place in places]
        if self.transform is not None:
            # Not one for all: what a transform draws for one clip would change what it draws for the next.
            clips = [
                self.transform(clip, self._rng(epoch, index, _TRANSFORM, place)) for place, clip in zip(places, clips)
            ]
        if self.derange_clips:
            order = derangement(len(rows) - 1, self._rng(epoch, index, _DERANGEMENT))
            clips[: len(order)] = [clips[i] for i in order]
        return clips

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])


def build_blocks(
    prompts: Sequence[str],
    narrations: Sequence[str],
    *,
    demonstration_clips: bool = True,
    query_clip: bool = True,
) -> list[str]:
    """
    The blocks of a prompt: for each clip its question and, but for the last clip's, the narration.

    Args:
        prompts (`Sequence[str]`): a question for each clip.
        narrations (`Sequence[str]`): one fewer.
        demonstration_clips, query_clip (`bool`, *optional*, defaults to `True`): whether the blocks of the narrations,
            and the last one, begin with `<video>`.

    Raises:
        ValueError: if their numbers don't fit.
    """
    if len(prompts) != len(narrations) + 1:
        raise ValueError(f"There are {len(prompts)} prompts for {len(narrations)} narrations and a query")
    mark, last_mark = "<video>" * demonstration_clips, "<video>" * query_clip
    blocks = [f"{mark}{prompt} {narration}" for prompt, narration in zip(prompts, narrations)]
    return [*blocks, f"{last_mark}{prompts[-1]}"]


# ------------------------------------------------------------------------------------------------------------ details


def _check_contexts_can_be_deranged(sampler: ContextSampler):
    """As far as it can be seen beforehand."""
    if isinstance(sampler, PresampledContexts):
        lengths = Counter(map(len, sampler.contexts))
        alone = lengths[1]
        if alone:
            first = next(i for i, context in enumerate(sampler.contexts) if len(context) == 1)
            raise ValueError(
                f"`derange_clips` exchanges clips within a context, but {alone} of {len(sampler)} contexts have a "
                f"single example, sample {first} first"
            )
    elif getattr(sampler, "num_examples", None) == 1:
        raise ValueError("`derange_clips` exchanges clips within a context, but `num_examples` is 1")


def _without_frames(actions: Sequence[dict]) -> Sequence[dict]:
    """Rows that are read without decoding frames, where a `datasets.Dataset` would."""
    return actions.remove_columns("frames") if "frames" in getattr(actions, "column_names", ()) else actions


def _frames_of(row: dict):
    frames = row.get("frames")
    if frames is None:
        raise ValueError(f"The action {row.get('frame_path')!r} has no `frames`; give `load_clip`")
    return frames


__all__ = [
    "BalancedContextSampler",
    "ContextSampler",
    "InContextDataset",
    "InContextSampler",
    "PresampledContexts",
    "build_blocks",
    "derangement",
    "upsample",
    "write_contexts",
]
