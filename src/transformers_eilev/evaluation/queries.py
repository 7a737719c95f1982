"""
Which clips are asked about, and which narrated ones stand before each: the same for every model.

For each number of shots and each condition the same clips are asked about, so that numbers compare. No clip stands in
its own context, also where contexts are of another set that has it too. All draws come from the seed.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.context_samplers import BalancedContextSampler, InContextSampler
from ..data.in_context import InContextDataset
from ..data.narrated_clips import hash_frames
from ..data.narrations import PROMPTS, clean_narration_text
from ..data.presampled_contexts import PresampledContexts, write_contexts
from ..data.splits import hold_out_rare_pairs
from ..data.standard_sentences import action_to_sentence
from ..video_reading import sample_indices
from .conditions import CONDITIONS, Condition
from .results import fingerprint_of


# EILEV's paper and the original's evaluation.
SHOTS = (0, 1, 2, 4, 8, 12, 16)
KINDS = ("eilev", "balanced")

COLUMNS = ("frame_path", "narration_text", "structured_verb", "structured_noun")
# The last number of a seed: what the draws are for. The data set and the samplers have theirs.
_QUERIES, _RULES = 11, 12
# Clips of a set that tell whether it is the same.
_LOOKED_AT = 64


class EvaluationQueries:
    """
    Clips to ask about, with a context of narrated clips for each number of shots and each condition.

    Args:
        clips (`datasets.Dataset`): to ask about, with the columns of a clip store.
        context_clips (`datasets.Dataset`, *optional*): that contexts are of, by default `clips` themselves.
        shots (`Sequence[int]`): numbers of examples.
        kind (`str`, defaults to "eilev"): how contexts are drawn: as EILEV's training draws them, by
            [`~transformers_eilev.data.InContextSampler`]; or "balanced", so that words alone don't tell the answer, by
            [`~transformers_eilev.data.BalancedContextSampler`], where with one shot half of the queries are shown
            their verb and half their noun.
        presampled (`str`, *optional*): a folder that `write` wrote, which has the contexts.
        num_queries (`int`, *optional*): to ask about, drawn from the clips that have a context of every number of
            shots; by default all of them.
        verb_noun_ratio (`float`, defaults to 0.5): as of [`~transformers_eilev.data.InContextSampler`].
        counterpart (`bool`, defaults to `True`): as of [`~transformers_eilev.data.BalancedContextSampler`].
        seed (`int`, defaults to 0): of the queries, their contexts and questions.

    Raises:
        ValueError: an argument, by name; a column that is missing; too few clips for a context; presampled contexts
            that don't fit, by file and place.

    Warns:
        UserWarning: if fewer than `num_queries` clips have such contexts.
    """

    def __init__(
        self,
        clips,
        context_clips=None,
        *,
        shots: Sequence[int] = SHOTS,
        kind: str = "eilev",
        presampled: str | os.PathLike | None = None,
        num_queries: int | None = None,
        verb_noun_ratio: float = 0.5,
        counterpart: bool = True,
        seed: int = 0,
    ):
        _check(shots, kind, num_queries)
        self.clips, self.context_clips = clips, clips if context_clips is None else context_clips
        self.shots, self.kind, self.seed = tuple(shots), kind, seed
        self._is_one_set = context_clips is None or context_clips is clips
        self._ratio, self._counterpart = verb_noun_ratio, counterpart
        self.rows = rows_of(clips, "clips")
        self.context_rows = self.rows if self._is_one_set else rows_of(context_clips, "context_clips")
        self._words = [_words_of(rows) for rows in (self.context_rows, self.rows)]
        self._samplers: dict[tuple, Any] = {}
        self._frames_hash: str | None = None
        self._places: dict[str, list[int]] = {}
        for place, row in enumerate(self.context_rows):
            self._places.setdefault(row["frame_path"], []).append(place)
        self._presampled = None if presampled is None else self._read(Path(presampled))
        if self._presampled is None:
            self._queries = self._choose(num_queries)
        elif num_queries is not None:
            self._presampled = {k: _first(contexts, num_queries) for k, contexts in self._presampled.items()}

    def queries(self, num_shots: int) -> list[int]:
        """The rows of `clips` that are asked about, in order."""
        return self._queries if self._presampled is None else self._presampled[num_shots].queries

    def contexts(self, num_shots: int, condition: Condition) -> PresampledContexts:
        """
        The rows of `context_clips` that stand before each.

        Raises:
            ValueError: if there are too few clips; if a balanced context has the query itself, under other labels.
        """
        queries = self.queries(num_shots)
        draws_itself = condition.random or condition.num_common_pairs is not None
        if self._presampled is not None and not draws_itself:
            return self._presampled[num_shots]
        contexts = [self._draw_others(place, row, num_shots, condition) for place, row in enumerate(queries)]
        short = next((row for row, context in zip(queries, contexts) if len(context) < num_shots), None)
        if short is not None:
            raise ValueError(
                f"`context_clips` has too few clips for {num_shots} shots before {self.rows[short]['frame_path']!r}"
            )
        return PresampledContexts(contexts, queries)

    def samples(
        self,
        num_shots: int,
        condition: Condition,
        *,
        load_clip: Callable[[dict], Any],
        prompts: Sequence[str] = PROMPTS,
        rename: Callable | None = None,
        sentences: Mapping[str, str] | None = None,
    ) -> InContextDataset:
        """
        The prompts, with their clips.

        Args:
            num_shots (`int`): examples in each.
            condition ([`Condition`]): what is shown.
            load_clip (`Callable[[dict], Any]`): gives a row's clip, in the form that who narrates takes.
            prompts (`Sequence[str]`): questions, of which one is drawn for each clip.
            rename (`Callable`, *optional*): as of [`~transformers_eilev.data.InContextDataset`].
            sentences (`Mapping[str, str]`, *optional*): of each `frame_path` the standardised sentence, for the
                condition "canonical"; by default they are made of the labels by rules.

        Raises:
            ValueError: if `sentences` lacks a clip of a context; as `contexts`.

        Warns:
            UserWarning: if labels make no sentence, so that narrations stay as they are, with their number.
        """
        contexts = self.contexts(num_shots, condition)
        if condition.canonical:
            shown = sorted({row for context in contexts.contexts for row in context})
            rename = _Canonical(self._standardise([self.context_rows[row] for row in shown], sentences), rename)
        return InContextDataset(
            self.clips,
            contexts,
            context_actions=self.context_clips,
            load_clip=load_clip,
            prompts=prompts,
            rename=rename,
            with_target=False,
            demonstration_clips=condition.demonstration_clips,
            query_clip=condition.query_clip,
            derange_clips=condition.derange_clips,
            seed=self.seed,
        )

    def expected(self, samples: InContextDataset, narrations: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """
        What is known of each prediction before it is made: its place, clips, labels and reference.

        Args:
            samples ([`InContextDataset`]): as of `samples`.
            narrations (`Sequence[Sequence[str]]`): of each sample, as its `narrations` gives them.
        """
        expected = []
        for index, said in enumerate(narrations):
            row = self.rows[samples.sampler.query(index)]
            context = [self.context_rows[place]["frame_path"] for place in samples.sampler.sample(index)]
            labels = {name: row[name] or "" for name in ("structured_verb", "structured_noun")}
            names = {"index": index, "query": row["frame_path"], "context": context}
            expected.append({**names, **labels, "reference": said[-1]})
        return expected

    def fingerprint_of_frames(self) -> str | None:
        """
        A hash of the frames of up to 64 clips of each set, evenly over it: of clips that were extracted anew, another.
        `None` if the sets have no frames.
        """
        if self._frames_hash is None and "frames" in self.clips.column_names:
            sets = [self.clips] if self._is_one_set else [self.clips, self.context_clips]
            looked_at = [
                clips[row] for clips in sets for row in sample_indices(len(clips), min(len(clips), _LOOKED_AT))
            ]
            self._frames_hash = fingerprint_of([hash_frames(row).hex() for row in looked_at])
        return self._frames_hash

    def answer_by_rule(self, samples: InContextDataset, index: int, rule: Callable):
        """What a rule of `rules`, or one of its kind, makes of a sample's context."""
        rows = [self.context_rows[row] for row in samples.sampler.sample(index)]
        return rule(samples.narrations(index)[:-1], rows, np.random.default_rng([self.seed, index, _RULES]))

    def write(self, folder: str | os.PathLike) -> list[Path]:
        """
        Writes contexts of clips and narrations, one file for each number of shots, to be read as `presampled`.

        Args:
            folder (`str`): which is made.

        Returns:
            `list[Path]`: of the files.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths, names = self._files_in(Path(folder)), self._frame_paths()
        for num_shots, path in paths.items():
            write_contexts(path, self.contexts(num_shots, CONDITIONS["in_context"]), *names)
        return list(paths.values())

    # ------------------------------------------------------------------------------------------------------- details

    def _files_in(self, folder: Path) -> dict[int, Path]:
        return {num_shots: folder / f"contexts-{num_shots}.jsonl" for num_shots in self.shots}

    def _frame_paths(self) -> list[list[str]]:
        """Of the contexts' clips, and of the queries'."""
        return [[row["frame_path"] for row in rows] for rows in (self.context_rows, self.rows)]

    def _read(self, folder: Path) -> dict[int, PresampledContexts]:
        paths, names = self._files_in(folder), self._frame_paths()
        missing = [num_shots for num_shots, path in paths.items() if not path.is_file()]
        if missing:
            raise ValueError(f"{folder} has no contexts of {missing} shots, no file {paths[missing[0]].name!r}")
        read = {num_shots: PresampledContexts.from_jsonl(path, *names) for num_shots, path in paths.items()}
        first = self.shots[0]
        for num_shots, contexts in read.items():
            self._check_presampled(paths[num_shots], num_shots, contexts)
            if contexts.queries != read[first].queries:
                raise ValueError(f"{paths[num_shots]} asks about other clips than {paths[first]}")
        return read

    def _check_presampled(self, path: Path, num_shots: int, contexts: PresampledContexts) -> None:
        if not len(contexts):
            raise ValueError(f"{path} has no query")
        for place, (context, row) in enumerate(zip(contexts.contexts, contexts.queries), start=1):
            name = self.rows[row]["frame_path"]
            if len(context) != num_shots:
                raise ValueError(f"{path}: query {place}, {name!r}, has a context of {len(context)} clips")
            if not {*context}.isdisjoint(self._places.get(name, ())):
                raise ValueError(f"{path}: query {place}, {name!r}, stands in its own context")

    def _standardise(self, rows: Sequence[Mapping], sentences: Mapping[str, str] | None) -> dict[str, str]:
        if sentences is not None:
            missing = [row["frame_path"] for row in rows if not (sentences.get(row["frame_path"]) or "").strip()]
            if missing:
                raise ValueError(
                    f"`sentences` lacks {len(missing)} of the {len(rows)} clips of the contexts, {missing[0]!r} first"
                )
            return {row["frame_path"]: clean_narration_text(sentences[row["frame_path"]]) for row in rows}
        made = {row["frame_path"]: action_to_sentence(row["structured_verb"], row["structured_noun"]) for row in rows}
        without = [name for name, sentence in made.items() if sentence is None]
        if without:
            warnings.warn(
                f"The labels of {len(without)} of {len(rows)} clips of the contexts make no sentence ({without[0]!r} "
                "first): their narrations are not standardised",
                UserWarning,
                stacklevel=3,
            )
        return {name: sentence for name, sentence in made.items() if sentence is not None}

    def _choose(self, number: int | None) -> list[int]:
        places = [self._balanced(k)[1] for k in self.shots if k >= 2] if self.kind == "balanced" else []
        rows = sorted(set(range(len(self.rows))).intersection(*places))
        if number is not None and number > len(rows):
            warnings.warn(
                f"`num_queries` is {number}, but only {len(rows)} of {len(self.rows)} clips have a context of every "
                f"number of shots, {list(self.shots)}: all of them are asked about",
                UserWarning,
                stacklevel=4,
            )
        order = np.random.default_rng([self.seed, _QUERIES]).permutation(rows)
        return sorted(order[:number].tolist())

    def _draw_others(self, place: int, row: int, num_shots: int, condition: Condition) -> list[int]:
        """A context without the query's own clip, which another set, or another row, may have."""
        own = {*self._places.get(self.rows[row]["frame_path"], ())}
        context = self._draw(place, row, num_shots, condition)
        if own.isdisjoint(context):
            return context
        if self.kind == "balanced" and not (condition.random or condition.num_common_pairs):
            name = self.rows[row]["frame_path"]
            raise ValueError(
                f"A balanced context of {name!r} has this clip itself, with other labels: both need the same"
            )
        more = self._draw(place, row, num_shots + len(own), condition)
        return [drawn for drawn in more if drawn not in own][:num_shots]

    def _draw(self, place: int, row: int, num_shots: int, condition: Condition) -> list[int]:
        if num_shots == 0:
            return []
        if condition.num_common_pairs is not None:
            sampler, rows = self._common(num_shots, condition.num_common_pairs)
            return [rows[drawn] for drawn in sampler.sample(row)]
        if condition.random or self.kind == "eilev":
            return self._sampler(num_shots, self._ratio, condition.random).sample(row)
        if num_shots == 1:
            # The verb's share is rounded down: a single example never had it.
            return self._sampler(1, (1.0, 0.0)[place % 2], False).sample(row)
        sampler, places = self._balanced(num_shots)
        return sampler.sample(places[row])

    def _sampler(self, num_shots: int, ratio: float, random: bool) -> InContextSampler:
        key = (num_shots, ratio, random)
        if key not in self._samplers:
            self._samplers[key] = InContextSampler(
                *self._words[0],
                num_examples=num_shots,
                verb_noun_ratio=ratio,
                random=random,
                seed=self.seed,
                queries=None if self._is_one_set else self._words[1],
            )
        return self._samplers[key]

    def _common(self, num_shots: int, num_pairs: int) -> tuple[InContextSampler, list[int]]:
        key = (num_shots, "top", num_pairs)
        if key not in self._samplers:
            # An action of the query's own pair is never drawn, and so the query itself is not.
            pairs = {*hold_out_rare_pairs(self.context_rows, num_common_pairs=num_pairs).common_pairs}
            rows = [row for row, pair in enumerate(zip(*self._words[0])) if pair in pairs]
            words = [[words[row] for row in rows] for words in self._words[0]]
            settings = {"num_examples": num_shots, "verb_noun_ratio": self._ratio, "seed": self.seed}
            self._samplers[key] = InContextSampler(*words, queries=self._words[1], **settings), rows
        return self._samplers[key]

    def _balanced(self, num_shots: int) -> tuple[BalancedContextSampler, dict[int, int]]:
        """The sampler, and the place in it of each row that it has a context for."""
        key = (num_shots, "balanced")
        if key not in self._samplers:
            with warnings.catch_warnings():
                # Who is left out is said once, of all numbers of shots together.
                warnings.simplefilter("ignore", UserWarning)
                sampler = BalancedContextSampler(
                    *self._words[0],
                    num_examples=num_shots,
                    counterpart=self._counterpart,
                    seed=self.seed,
                    queries=self._words[1],
                )
            self._samplers[key] = sampler, {sampler.query(index): index for index in range(len(sampler))}
        return self._samplers[key]


class _Canonical:
    """Standardises the narrations of a context, by their clips. One without a sentence stays as it is."""

    def __init__(self, sentences: Mapping[str, str], rename: Callable | None):
        self.sentences, self.rename = sentences, rename

    def __call__(self, narrations: list[str], rows: list[dict], rng: np.random.Generator) -> list[str]:
        said = [self.sentences.get(row["frame_path"], own) for own, row in zip(narrations[:-1], rows)]
        said.append(narrations[-1])
        return said if self.rename is None else self.rename(said, rows, rng)


def rows_of(clips, name: str) -> list[dict[str, Any]]:
    """
    What is known of clips, without their frames.

    Raises:
        ValueError: if `name` lacks a column, has no clip, or a narration that says nothing.
    """
    missing = [column for column in COLUMNS if column not in clips.column_names]
    if missing:
        raise ValueError(f"`{name}` must have the columns {COLUMNS}, but has no {missing}")
    rows = clips.select_columns(list(COLUMNS)).to_list()
    if not rows:
        raise ValueError(f"`{name}` has no clip")
    silent = next((row["frame_path"] for row in rows if not (row["narration_text"] or "").strip()), None)
    if silent is not None:
        raise ValueError(f"The clip {silent!r} of `{name}` has no narration to compare with")
    return rows


def _words_of(rows: Sequence[Mapping]) -> tuple[list[str], list[str]]:
    return [row["structured_verb"] or "" for row in rows], [row["structured_noun"] or "" for row in rows]


def _first(contexts: PresampledContexts, number: int) -> PresampledContexts:
    return PresampledContexts(contexts.contexts[:number], contexts.queries[:number])


def _check(shots, kind, num_queries) -> None:
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        raise ValueError(f"`shots` must be different numbers from 0 on, but is {list(shots)}")
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}, but is {kind!r}")
    if num_queries is not None and num_queries < 1:
        raise ValueError(f"`num_queries` must be at least 1, but is {num_queries}")


__all__ = ["KINDS", "SHOTS", "EvaluationQueries", "rows_of"]
