"""
Which narrated actions stand in a prompt before the one that is asked about, and samples made of them.

Every draw comes from (seed, epoch, index), so a sample is the same in any order, process and number of workers, and a
run that is resumed goes on as it would have.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .action_groups import ActionGroups, draw_around, draw_outside, encode_words, repeat_evenly, shares, span_length
from .files import atomic_file
from .narrations import PROMPTS, clean_narration_text


# "[other]" is Ego4D's verb for whatever its taxonomy lacks: two actions that have it share no verb.
_SHARED_BY_NOBODY = {"verb": ("", "[other]"), "noun": ("",)}

# The last number of a seed: what the draws are for. The context's own have none.
_QUESTIONS, _DERANGEMENT, _TRANSFORM, _UPSAMPLING = 1, 2, 3, 4

_CLIPS = ("videos", "pixel_values", "vision_hidden_states")


@runtime_checkable
class ContextSampler(Protocol):
    """Chooses the context of a query, by chance, from a list or by likeness."""

    def __len__(self) -> int:
        """Number of samples in an epoch."""

    def query(self, index: int) -> int:
        """The row of the queries' actions that sample `index` asks about."""

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """The rows of the context's actions that stand before it, in the order of the prompt."""


class InContextSampler:
    r"""
    Draws contexts as EILEV was trained with: `verb_noun_ratio` of the examples share the query's verb and not its
    noun, the others its noun and not its verb; where either lack, the other tops up, then any other action. An action
    of the query's own (verb, noun) is never drawn. Where there are fewer actions than `num_examples`, all are given.

    The verbs "" and "[other]" and the noun "" are shared by no two actions.

    A draw takes the same time whatever the number of actions: they are indexed by verb, noun and pair, and nothing is
    walked through.

    Args:
        verbs (`Sequence[str]`): the actions that examples are drawn from: their `structured_verb`, or class numbers.
        nouns (`Sequence[str]`): their `structured_noun`.
        num_examples (`int`): in a context.
        verb_noun_ratio (`float`, *optional*, defaults to 0.5): from 0 to 1. The share of the verb is rounded down.
        random (`bool`, *optional*, defaults to `False`): draw from all actions but the query itself instead, whatever
            their verbs and nouns.
        seed (`int`, *optional*, defaults to 0): of all draws, not negative.
        queries (`tuple[Sequence[str], Sequence[str]]`, *optional*): verbs and nouns of the actions to ask about, where
            they are of another data set. By default, the actions themselves.
        target_length (`int`, *optional*): repeat queries so that there are so many, evenly over (verb, noun) pairs;
            see [`upsample`]. Contexts are drawn from the actions as they are.

    Raises:
        ValueError: for verbs and nouns of unequal number, and values out of range.
    """

    def __init__(
        self,
        verbs: Sequence,
        nouns: Sequence,
        *,
        num_examples: int,
        verb_noun_ratio: float = 0.5,
        random: bool = False,
        seed: int = 0,
        queries: tuple[Sequence, Sequence] | None = None,
        target_length: int | None = None,
    ):
        if num_examples < 0:
            raise ValueError(f"`num_examples` must not be negative, but is {num_examples}")
        if not 0 <= verb_noun_ratio <= 1:
            raise ValueError(f"`verb_noun_ratio` must be from 0 to 1, but is {verb_noun_ratio}")
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, but is {seed}")
        self.num_examples = num_examples
        self.verb_noun_ratio = verb_noun_ratio
        self.random = random
        self.seed = seed

        verb_codes, noun_codes = {}, {}
        verbs, nouns = encode_words(verbs, verb_codes), encode_words(nouns, noun_codes)
        _check_lengths(verbs, nouns, "verbs", "nouns")
        self.num_actions = len(verbs)
        # Before codes are added for the queries' own words, which no action has.
        self._by_verb = ActionGroups(verbs, nouns, len(verb_codes), len(noun_codes))
        self._by_noun = ActionGroups(nouns, verbs, len(noun_codes), len(verb_codes))
        self._place_by_verb = np.empty_like(self._by_verb.rows)
        self._place_by_verb[self._by_verb.rows] = np.arange(len(verbs), dtype=np.int32)
        self._excludes_query = queries is None
        if queries is not None:
            verbs, nouns = encode_words(queries[0], verb_codes), encode_words(queries[1], noun_codes)
            _check_lengths(verbs, nouns, "queries[0]", "queries[1]")
        self._query_verbs, self._query_nouns = verbs, nouns
        self._unshared_verbs = {verb_codes.get(verb) for verb in _SHARED_BY_NOBODY["verb"]}
        self._unshared_nouns = {noun_codes.get(noun) for noun in _SHARED_BY_NOBODY["noun"]}
        self._queries = None
        if target_length is not None:
            rng = np.random.default_rng([seed, 0, 0, _UPSAMPLING])
            self._queries = repeat_evenly(verbs, nouns, target_length, rng)
        available = self.num_actions - self._excludes_query
        if random and num_examples > available:
            raise ValueError(f"`num_examples` is {num_examples}, but there are {available} actions to draw from")

    def __len__(self) -> int:
        return len(self._query_verbs) if self._queries is None else len(self._queries)

    def query(self, index: int) -> int:
        """
        The row of the query of sample `index`.

        Raises:
            IndexError: if there is no such sample.
        """
        _check_index(index, len(self))
        return int(index if self._queries is None else self._queries[index])

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """
        Draws a context.

        Args:
            index (`int`): of the sample.
            epoch (`int`, *optional*, defaults to 0): another epoch, another draw.

        Returns:
            `list[int]`: different rows of the actions, in random order.

        Raises:
            IndexError: if there is no such sample.
        """
        query = self.query(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        rows = self._draw_any(query, rng) if self.random else self._draw_composed(query, rng)
        return rng.permutation(rows).tolist()

    def _draw_any(self, query: int, rng) -> np.ndarray:
        rows = rng.choice(self.num_actions - self._excludes_query, self.num_examples, replace=False, shuffle=False)
        return rows + (rows >= query) if self._excludes_query else rows

    def _draw_composed(self, query: int, rng) -> np.ndarray:
        verb, noun = int(self._query_verbs[query]), int(self._query_nouns[query])
        verb_pair, noun_pair = self._by_verb.pair(verb, noun), self._by_noun.pair(noun, verb)
        # A pair's rows stand together within their verb's and within their noun's: the rest of a group is the group
        # with one gap. The query itself is in the gap.
        verb_group = verb_pair if verb in self._unshared_verbs else self._by_verb.group(verb)
        noun_group = noun_pair if noun in self._unshared_nouns else self._by_noun.group(noun)
        num_verb, num_noun = shares(
            self.num_examples,
            self.verb_noun_ratio,
            span_length(verb_group) - span_length(verb_pair),
            span_length(noun_group) - span_length(noun_pair),
        )
        of_verb = self._by_verb.rows[draw_around(verb_group, verb_pair, num_verb, rng)]
        of_noun = self._by_noun.rows[draw_around(noun_group, noun_pair, num_noun, rng)]
        missing = self.num_examples - num_verb - num_noun
        if not missing:
            return np.concatenate([of_verb, of_noun])
        # Both groups are used up: what is left is everything but the verb's group (or the pair) and `of_noun`.
        taken = np.sort(self._place_by_verb[of_noun]).astype(np.int64)
        places = draw_outside(self.num_actions, verb_group, taken, missing, rng)
        return np.concatenate([of_verb, of_noun, self._by_verb.rows[places]])


class PresampledContexts:
    """
    Contexts from a list, such as EILEV's evaluation reads: a [`ContextSampler`] without chance.

    Args:
        contexts (`Sequence[Sequence[int]]`): rows of the context's actions, for each sample.
        queries (`Sequence[int]`): the row of the queries' actions, for each sample.

    Raises:
        ValueError: if they are of unequal number.
    """

    def __init__(self, contexts: Sequence[Sequence[int]], queries: Sequence[int]):
        _check_lengths(contexts, queries, "contexts", "queries")
        self.contexts = [list(context) for context in contexts]
        self.queries = list(queries)

    @classmethod
    def from_jsonl(cls, path, context_frame_paths: Iterable[str], query_frame_paths: Iterable[str] | None = None):
        """
        Reads lines of `{"context": [frame_path, ...], "query": frame_path}`.

        Args:
            path (`str` or `os.PathLike`): of the file.
            context_frame_paths (`Iterable[str]`): the column `frame_path` of the actions that contexts are of.
            query_frame_paths (`Iterable[str]`, *optional*): that of the queries' actions, by default the same.

        Raises:
            ValueError: if a line is no such object or names a clip that the actions lack, with file, line and field.
        """
        context_rows = {frame_path: row for row, frame_path in enumerate(context_frame_paths)}
        query_rows = context_rows
        if query_frame_paths is not None:
            query_rows = {frame_path: row for row, frame_path in enumerate(query_frame_paths)}
        contexts, queries = [], []
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    context, query = _parse_query(line, f"{path}, line {number}")
                    where = f"{path}, line {number}: "
                    contexts.append([_row_of(name, context_rows, where + "`context`") for name in context])
                    queries.append(_row_of(query, query_rows, where + "`query`"))
        return cls(contexts, queries)

    def __len__(self) -> int:
        return len(self.queries)

    def query(self, index: int) -> int:
        """As [`InContextSampler.query`]."""
        _check_index(index, len(self))
        return self.queries[index]

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """As [`InContextSampler.sample`], but the same in every epoch."""
        _check_index(index, len(self))
        return list(self.contexts[index])


def write_contexts(
    path,
    sampler: ContextSampler,
    context_frame_paths: Sequence[str],
    query_frame_paths: Sequence[str] | None = None,
    *,
    epoch: int = 0,
):
    """
    Draws every context of an epoch once and writes what [`PresampledContexts.from_jsonl`] reads.

    Args:
        path (`str` or `os.PathLike`): of the file, which is replaced only when all of it is written.
        sampler (`ContextSampler`): draws them.
        context_frame_paths (`Sequence[str]`): the column `frame_path` of the actions that contexts are of.
        query_frame_paths (`Sequence[str]`, *optional*): that of the queries' actions, by default the same.
        epoch (`int`, *optional*, defaults to 0): to draw from.
    """
    context_frame_paths = list(context_frame_paths)
    query_frame_paths = context_frame_paths if query_frame_paths is None else list(query_frame_paths)
    with atomic_file(Path(path)) as file:
        for index in range(len(sampler)):
            context = [context_frame_paths[row] for row in sampler.sample(index, epoch)]
            line = {"context": context, "query": query_frame_paths[sampler.query(index)]}
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


def upsample(verbs: Sequence, nouns: Sequence, target_length: int, *, seed: int = 0) -> np.ndarray:
    """
    Repeats actions until there are `target_length`, so that each (verb, noun) pair gets as many more as any other, or
    one more where that does not come out even. Within a pair no action is repeated twice before all are once.

    Args:
        verbs, nouns (`Sequence[str]`): of the actions.
        target_length (`int`): how many there shall be. No action is left out if it is smaller than their number.
        seed (`int`, *optional*, defaults to 0): decides which ones are repeated.

    Returns:
        `np.ndarray`: rows of the actions: each once, in order, then the repeated ones.

    Raises:
        ValueError: if there is no action, or there are not as many nouns as verbs.
    """
    verbs, nouns = encode_words(verbs, {}), encode_words(nouns, {})
    _check_lengths(verbs, nouns, "verbs", "nouns")
    return repeat_evenly(verbs, nouns, target_length, np.random.default_rng([seed, 0, 0, _UPSAMPLING]))


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
        seed (`int`, *optional*, defaults to 0): of the questions, the derangement and the transform.

    Raises:
        ValueError: with `derange_clips`, for a context of a single example; for an unknown `clips_as`.
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
        seed: int = 0,
    ):
        import torch

        if not prompts or isinstance(prompts, str):
            raise ValueError(f"`prompts` must be a list of at least one question, but is {prompts!r}")
        if clips_as not in _CLIPS:
            raise ValueError(f"`clips_as` must be one of {_CLIPS}, but is {clips_as!r}")
        self.actions = actions
        self.context_actions = actions if context_actions is None else context_actions
        self.sampler = sampler
        self.load_clip = load_clip or _frames_of
        self.clips_as = clips_as
        self.transform = transform
        self.prompts = list(prompts)
        self.clean = clean
        self.with_target = with_target
        self.derange_clips = derange_clips
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
        query = self.actions[self.sampler.query(index)]
        context = [self.context_actions[row] for row in self.sampler.sample(index, epoch)]
        rows = [*context, query]
        drawn = self._rng(epoch, index, _QUESTIONS).integers(len(self.prompts), size=len(rows))
        questions = [self.prompts[i] for i in drawn]
        narrations = [self.clean(row["narration_text"]) for row in rows]
        sample = {
            "text": build_blocks(questions, narrations[:-1]),
            self.clips_as: self._clips(rows, epoch, index),
            "in_context_frame_paths": [row["frame_path"] for row in context],
            **{name: query[name] for name in ("frame_path", "video_uid", "clip_index") if name in query},
        }
        return {**sample, "text_target": narrations[-1]} if self.with_target else sample

    def _clips(self, rows: list[dict], epoch: int, index: int) -> list:
        clips = [self.load_clip(row) for row in rows]
        if self.transform is not None:
            # Not one for all: what a transform draws for one clip would change what it draws for the next.
            clips = [
                self.transform(clip, self._rng(epoch, index, _TRANSFORM, number)) for number, clip in enumerate(clips)
            ]
        if self.derange_clips:
            order = derangement(len(rows) - 1, self._rng(epoch, index, _DERANGEMENT))
            clips[:-1] = [clips[i] for i in order]
        return clips

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *numbers])


def build_blocks(prompts: Sequence[str], narrations: Sequence[str]) -> list[str]:
    """
    The blocks of a prompt: for each clip its question and, but for the last clip's, the narration.

    Args:
        prompts (`Sequence[str]`): a question for each clip.
        narrations (`Sequence[str]`): one fewer.

    Raises:
        ValueError: if their numbers don't fit.
    """
    if len(prompts) != len(narrations) + 1:
        raise ValueError(f"There are {len(prompts)} prompts for {len(narrations)} narrations and a query")
    blocks = [f"<video>{prompt} {narration}" for prompt, narration in zip(prompts, narrations)]
    return [*blocks, f"<video>{prompts[-1]}"]


# ------------------------------------------------------------------------------------------------------------ details


def _check_lengths(first, second, first_name: str, second_name: str):
    if len(first) != len(second):
        raise ValueError(f"`{first_name}` has {len(first)} values, but `{second_name}` has {len(second)}")


def _check_index(index: int, length: int):
    if not 0 <= index < length:
        raise IndexError(f"There are {length} samples, but no sample {index}")


def _parse_query(line: str, where: str) -> tuple[list[str], str]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error}): {line[:80]!r}") from None
    context, query = (content.get(key) for key in ("context", "query")) if isinstance(content, dict) else (None, None)
    if not isinstance(query, str):
        raise ValueError(f"{where}: `query` must be a frame path, but is {query!r}")
    if not isinstance(context, list) or not all(isinstance(name, str) for name in context):
        raise ValueError(f"{where}: `context` must be a list of frame paths, but is {context!r}")
    return context, query


def _row_of(frame_path: str, rows: dict[str, int], where: str) -> int:
    if frame_path not in rows:
        raise ValueError(f"{where} names {frame_path!r}, which is not among the {len(rows)} actions")
    return rows[frame_path]


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


def _frames_of(row: dict):
    frames = row.get("frames")
    if frames is None:
        raise ValueError(f"The action {row.get('frame_path')!r} has no `frames`; give `load_clip`")
    return frames


__all__ = [
    "ContextSampler",
    "InContextDataset",
    "InContextSampler",
    "PresampledContexts",
    "build_blocks",
    "derangement",
    "upsample",
    "write_contexts",
]
