"""
How well a model narrates a clip after so many narrated ones, by generation, and what it does where the clips say
nothing: whether it learns from a context, or tells the answer some other way.

Of each (number of shots, condition) the same queries are asked, with the same question and the same words for their
verbs and nouns as far as the context allows, so that numbers compare.

What contexts are of (see [`~transformers_eilev.data.BalancedContextSampler`]): with 2 and more shots half of them have
the query's verb and one other noun, half its noun and one other verb, so that no word is more frequent than the other
that it could be. Of the four answers that are made of a context's words two stand in it, with other clips; of the
other two one is right, and who knows that can be right in half of the cases without looking ("unseen_pair"). There are
clips of the fourth as well (`counterpart`). With one shot, half of the queries are shown their verb and half their
noun.
"""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from transformers_eilev import VideoBlip2ForConditionalGeneration, VideoBlip2Processor
from transformers_eilev.data import (
    BalancedContextSampler,
    DataCollatorForVideoNarration,
    InContextDataset,
    InContextSampler,
    PresampledContexts,
)
from transformers_eilev.data.narrations import PROMPTS, SUBJECT, clean_narration_text

from .predictions import PLACE, Predictions, build_narration, parse_narration, parse_reference, score


SHOTS = (0, 1, 2, 4, 8)

_COLUMNS = ("frame_path", "narration_text", "structured_verb", "structured_noun")
# Clips that were read are kept up to here, since each stands in many contexts.
_CACHE_BYTES = 1 << 28
# The last number of a seed: what the draws are for. The data set and the samplers have theirs.
_QUERIES, _TIES = 11, 12


# --------------------------------------------------------------------------------------------------------- conditions


def say_majority(narrations: Sequence[str], rng: np.random.Generator) -> str:
    """The most frequent verb and the most frequent noun of a context's narrations, each by itself, ties by chance."""
    verbs, nouns = zip(*map(parse_reference, narrations))
    return build_narration(_most_frequent(verbs, rng), _most_frequent(nouns, rng))


def say_unseen_pair(narrations: Sequence[str], rng: np.random.Generator) -> str:
    """
    The verb and noun of a context that are most frequent, counted together, among those that don't stand in it side by
    side, ties by chance: the best that can be made of a balanced context's words. Where all do, as `say_majority`.
    """
    pairs = [parse_reference(narration) for narration in narrations]
    verbs, nouns = (Counter(words) for words in zip(*pairs))
    unseen = {(v, n): verbs[v] + nouns[n] for v in sorted(verbs) for n in sorted(nouns) if (v, n) not in pairs}
    if not unseen:
        return say_majority(narrations, rng)
    return build_narration(*_most_frequent(Counter(unseen), rng))


@dataclass(frozen=True, kw_only=True)
class Condition:
    """
    What a model is shown.

    Attributes:
        is_balanced (`bool`): whether contexts are as said above; else as EILEV's training draws them.
        demonstration_clips, derange_clips (`bool`): as of [`InContextDataset`].
        rule (`Callable`, *optional*): what answers instead of the model, from the context's narrations and randomness.
        min_shots (`int`): with fewer, it would be the same as another, or nothing.
    """

    is_balanced: bool = True
    demonstration_clips: bool = True
    derange_clips: bool = False
    rule: Callable[[Sequence[str], np.random.Generator], str] | None = None
    min_shots: int = 0


CONDITIONS: Mapping[str, Condition] = {
    "clips": Condition(),
    "text_only": Condition(demonstration_clips=False, min_shots=1),
    "shuffled": Condition(derange_clips=True, min_shots=2),
    "majority": Condition(rule=say_majority, min_shots=1),
    "unseen_pair": Condition(rule=say_unseen_pair, min_shots=1),
    "any": Condition(is_balanced=False, min_shots=1),
    "any_shuffled": Condition(is_balanced=False, derange_clips=True, min_shots=2),
}


# ------------------------------------------------------------------------------------------------------ the evaluation


def evaluate_shots(
    model,
    processor,
    clips,
    context_clips=None,
    *,
    shots: Sequence[int] = SHOTS,
    conditions: Sequence[str] = tuple(CONDITIONS),
    num_queries: int | None = 200,
    rename: Callable | None = None,
    vision_features=None,
    questions: Sequence[str] = PROMPTS,
    counterpart: bool = True,
    batch_size: int = 32,
    max_new_tokens: int = 24,
    predictions_path: str | os.PathLike | None = None,
    labels: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """
    Narrates clips after some narrated ones, greedily, and compares with the annotators' narrations.

    Args:
        model ([`VideoBlip2ForConditionalGeneration`] or `str`): on the device to run on; or its folder, then it is
            loaded as float32. Anything with such a `generate` does.
        processor ([`VideoBlip2Processor`], *optional*): the model's; `None` to load the folder's.
        clips (`datasets.Dataset`): to ask about, of a clip store; with `frames`, or without and with
            `vision_features`.
        context_clips (`datasets.Dataset`, *optional*): that contexts are of, by default `clips`.
        shots (`Sequence[int]`): numbers of examples.
        conditions (`Sequence[str]`): of `CONDITIONS`. Numbers of shots that one makes no sense for are left out of it.
        num_queries (`int`, *optional*): to ask about, drawn from the clips that have a context of every number of
            shots; `None` for all of them. If there are fewer, all are, with a warning.
        rename ([`EpisodeNames`], *optional*): gives words to verbs and nouns, as of [`InContextDataset`].
        vision_features ([`VisionFeatureStore`], *optional*): of all clips, read instead of the frames.
        questions (`Sequence[str]`): of which one is drawn for each clip.
        counterpart (`bool`, defaults to `True`): as of [`BalancedContextSampler`]. It costs next to nothing: of 1,000
            clips of 18 verbs and 16 nouns, all have a context of up to 8 shots with it as without.
        batch_size (`int`, defaults to 32): queries at a time.
        max_new_tokens (`int`, defaults to 24): of a narration, which is cut there.
        predictions_path (`str`, *optional*): of a file that gets a line of JSON for each prediction as it is made,
            and before them one of the model and all settings. A run that was stopped goes on with it.
        labels (`Mapping`, *optional*): to put into each record: whose it is, and of what.
        seed (`int`, defaults to 0): of all draws: the queries, their contexts, questions and words.

    Returns:
        `list[dict]`: for each (condition, shots), with the labels: `n`, the number of queries; `exact`, the share of
        narrations that are the reference to the letter, `verb` and `noun`, those with its verb and noun (see
        `predictions.parse_narration`), each from 0 to 1 and with its 95 % bootstrap interval over the queries as
        `exact_interval`, and so on; `empty`, the number of narrations without a word, and `unparsable`, of others
        without verb and noun, all of which count as wrong.

    Raises:
        ValueError: an argument, by name; a clip whose narration has no verb and noun, by its name; a file of
            predictions of other settings, with which, or of something else.
    """
    labels = dict(labels or {})
    _check_arguments(shots, conditions, num_queries, batch_size)
    model, processor = _load(model, processor)
    episodes = _Episodes(clips, clips if context_clips is None else context_clips, shots, counterpart, seed)
    queries = episodes.choose_queries(num_queries)
    if vision_features is None:
        load_clip, clips_as = _Cache(_Frames((clips, context_clips), processor.video_processor)), "videos"
    else:
        load_clip, clips_as = _Cache(vision_features.load), "vision_hidden_states"
        if isinstance(model, torch.nn.Module):
            vision_features.check(model, processor, episodes.frame_paths())
    shared = {"load_clip": load_clip, "clips_as": clips_as, "prompts": questions, "rename": rename, "seed": seed}
    settings = {
        "labels": labels,
        "weights": _hash_weights(model),
        "clips": _hash(episodes.rows),
        "context_clips": _hash(episodes.context_rows),
        "shots": list(shots),
        "conditions": list(conditions),
        "num_queries": len(queries),
        "rename": _describe_rename(rename),
        "vision_features": None if vision_features is None else str(vision_features.dtype),
        "prompt_layout": processor.prompt_layout,
        "questions": list(questions),
        "counterpart": counterpart,
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    speaker = _Speaker(model, processor, max_new_tokens, seed)
    jobs = [(name, k) for name in conditions for k in shots if k >= CONDITIONS[name].min_shots]
    records = []
    with Predictions(predictions_path, str(getattr(model, "name_or_path", "")), settings) as predictions, speaker:
        for name, num_shots in jobs:
            samples = episodes.samples(queries, num_shots, CONDITIONS[name], shared)
            expected = _expected(samples, name, num_shots)
            for start in range(0, len(queries), batch_size):
                batch = expected[start : start + batch_size]
                predictions.complete(batch, lambda b=batch, c=CONDITIONS[name], s=samples: speaker(s, b, c))
            scores = score(predictions.last(len(queries)), seed)
            records.append({**labels, "condition": name, "shots": num_shots, **scores})
    return records


# ----------------------------------------------------------------------------------------------------------- episodes


class _Episodes:
    """Which clips are asked about, and what stands before them."""

    def __init__(self, clips, context_clips, shots: Sequence[int], counterpart: bool, seed: int):
        self.rows = _rows_of(clips, "clips")
        self.context_rows = self.rows if context_clips is clips else _rows_of(context_clips, "context_clips")
        self.shots, self.seed = shots, seed
        queries, words = (
            tuple([row[f"structured_{kind}"] for row in rows] for kind in ("verb", "noun"))
            for rows in (self.rows, self.context_rows)
        )
        self._verb_alone, self._noun_alone = (
            InContextSampler(*words, num_examples=1, verb_noun_ratio=ratio, seed=seed, queries=queries)
            for ratio in (1.0, 0.0)
        )
        self._any = {k: InContextSampler(*words, num_examples=k, seed=seed, queries=queries) for k in shots}
        self._balanced, self._places = {}, {}
        for k in shots:
            if k >= 2:
                with warnings.catch_warnings():
                    # Who is left out is said once, of all numbers of shots together.
                    warnings.simplefilter("ignore", UserWarning)
                    self._balanced[k] = BalancedContextSampler(
                        *words, num_examples=k, counterpart=counterpart, seed=seed, queries=queries
                    )
                sampler = self._balanced[k]
                self._places[k] = {sampler.query(index): index for index in range(len(sampler))}

    def frame_paths(self) -> list[str]:
        return sorted({row["frame_path"] for rows in (self.rows, self.context_rows) for row in rows})

    def choose_queries(self, number: int | None) -> list[int]:
        """Rows that there is a context of every number of shots for, by chance, in order."""
        rows = sorted(set(range(len(self.rows))).intersection(*self._places.values()))
        if number is not None and number > len(rows):
            warnings.warn(
                f"`num_queries` is {number}, but only {len(rows)} of {len(self.rows)} clips have a balanced context "
                f"of every number of shots, {list(self.shots)}: all of them are asked about",
                UserWarning,
                stacklevel=3,
            )
        order = np.random.default_rng([self.seed, _QUERIES]).permutation(rows)
        return sorted(order[:number].tolist())

    def samples(self, queries: list[int], num_shots: int, condition: Condition, shared: dict) -> InContextDataset:
        draw = self._draw_balanced if condition.is_balanced else self._draw_any
        contexts = [draw(place, row, num_shots) for place, row in enumerate(queries)]
        short = next((row for row, context in zip(queries, contexts) if len(context) < num_shots), None)
        if short is not None:
            raise ValueError(
                f"`context_clips` has too few clips for {num_shots} shots before {self.rows[short]['frame_path']!r}"
            )
        return InContextDataset(
            self.rows,
            PresampledContexts(contexts, queries),
            context_actions=self.context_rows,
            with_target=False,
            demonstration_clips=condition.demonstration_clips,
            derange_clips=condition.derange_clips,
            **shared,
        )

    def _draw_balanced(self, place: int, row: int, num_shots: int) -> list[int]:
        if num_shots == 0:
            return []
        if num_shots == 1:
            # EILEV's sampler rounds the verb's share down: a single example never has it.
            return (self._verb_alone, self._noun_alone)[place % 2].sample(row)
        return self._balanced[num_shots].sample(self._places[num_shots][row])

    def _draw_any(self, place: int, row: int, num_shots: int) -> list[int]:
        return self._any[num_shots].sample(row)


def _expected(samples: InContextDataset, condition: str, num_shots: int) -> list[dict[str, Any]]:
    """Of each sample, all that is known of its prediction before it is made."""
    expected = []
    for index in range(len(samples)):
        *_, reference = samples.narrations(index)
        query = samples.actions[samples.sampler.query(index)]["frame_path"]
        context = [samples.context_actions[row]["frame_path"] for row in samples.sampler.sample(index)]
        expected.append(dict(zip(PLACE, (condition, num_shots, index, query, context, reference))))
    return expected


def _rows_of(clips, name: str) -> list[dict[str, Any]]:
    missing = [column for column in _COLUMNS if column not in clips.column_names]
    if missing:
        raise ValueError(f"`{name}` must have the columns {_COLUMNS}, but has no {missing}")
    rows = clips.select_columns(list(_COLUMNS)).to_list()
    if not rows:
        raise ValueError(f"`{name}` has no clip")
    for row in rows:
        narration = clean_narration_text(row["narration_text"])
        if parse_narration(narration) is None:
            raise ValueError(
                f"The narration of {row['frame_path']!r} in `{name}` is {narration!r}, but must be like "
                f"'{SUBJECT} VERB the NOUN.'"
            )
    return rows


# -------------------------------------------------------------------------------------------------------------- clips


class _Frames:
    """The frames of a row's clip that the model sees, uint8, of shape (num_frames, 3, height, width)."""

    def __init__(self, sets, video_processor):
        import datasets

        self._sets, self._rows = [], {}
        for clips in sets:
            if clips is None:
                continue
            if "frames" not in clips.column_names:
                raise ValueError("The clips have no `frames`; give `vision_features`")
            self._rows.update({name: (len(self._sets), row) for row, name in enumerate(clips["frame_path"])})
            self._sets.append(clips.select_columns(["frames"]).cast_column("frames", datasets.List(datasets.Image())))
        self._processor = video_processor
        self._settings = {"do_rescale": False, "do_normalize": False}
        if video_processor.num_frames is not None:
            self._settings["num_frames"] = video_processor.num_frames

    def __call__(self, row: Mapping[str, Any]) -> torch.Tensor:
        number, place = self._rows[row["frame_path"]]
        return self._processor(self._sets[number][place]["frames"], **self._settings)["pixel_values"][0]


class _Cache:
    def __init__(self, load: Callable[[Mapping[str, Any]], torch.Tensor]):
        self._load, self._clips, self._bytes = load, {}, 0

    def __call__(self, row: Mapping[str, Any]) -> torch.Tensor:
        clip = self._clips.get(row["frame_path"])
        if clip is None:
            clip = self._load(row)
            self._bytes += clip.nbytes
            if self._bytes <= _CACHE_BYTES:
                self._clips[row["frame_path"]] = clip
        return clip


# ---------------------------------------------------------------------------------------------------------- the model


class _Speaker:
    """Says something to samples. In a `with`, the model is in evaluation mode."""

    def __init__(self, model, processor, max_new_tokens: int, seed: int):
        self.model, self.processor, self.seed = model, processor, seed
        self._collate = DataCollatorForVideoNarration(processor)
        self._generation = {"do_sample": False, "num_beams": 1, "max_new_tokens": max_new_tokens}
        self._was_training = False

    def __enter__(self):
        self._was_training = getattr(self.model, "training", False)
        if self._was_training:
            self.model.eval()
        return self

    def __exit__(self, *_):
        if self._was_training:
            self.model.train()

    def __call__(self, samples: InContextDataset, batch: Sequence[dict], condition: Condition) -> list[str]:
        indices = [prediction["index"] for prediction in batch]
        if condition.rule is not None:
            rngs = (np.random.default_rng([self.seed, index, _TIES]) for index in indices)
            return [condition.rule(samples.narrations(index)[:-1], rng) for index, rng in zip(indices, rngs)]
        inputs = self._collate([samples[index] for index in indices])
        device = getattr(self.model, "device", "cpu")
        inputs = {name: value.to(device) for name, value in inputs.items()}
        return self.processor.post_process_narrations(self.model.generate(**inputs, **self._generation), inputs)


def _load(model, processor):
    if isinstance(model, (str, os.PathLike)):
        processor = VideoBlip2Processor.from_pretrained(model) if processor is None else processor
        model = VideoBlip2ForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    elif processor is None:
        raise ValueError("`processor` is `None`, but `model` is no folder that it could be loaded from")
    return model, processor


def _hash_weights(model) -> str:
    digest = hashlib.sha256()
    for name, weight in (model.state_dict() if isinstance(model, torch.nn.Module) else {}).items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _describe_rename(rename) -> dict[str, Any] | None:
    if rename is None:
        return None
    words = [getattr(rename, f"{kind}_words", None) for kind in ("verb", "noun")]
    return {"type": type(rename).__name__, "share": getattr(rename, "share", None), "words": _hash(words)}


# ------------------------------------------------------------------------------------------------------------ details


def _check_arguments(shots, conditions, num_queries, batch_size) -> None:
    unknown = [name for name in conditions if name not in CONDITIONS]
    if unknown:
        raise ValueError(f"`conditions` must be of {list(CONDITIONS)}, but one is {unknown[0]!r}")
    if not shots or min(shots) < 0 or len(set(shots)) < len(shots):
        raise ValueError(f"`shots` must be different numbers from 0 on, but is {list(shots)}")
    if batch_size < 1 or (num_queries is not None and num_queries < 1):
        raise ValueError(f"`batch_size` and `num_queries` must be at least 1, but are {batch_size} and {num_queries}")


def _most_frequent(words: Sequence | Counter, rng: np.random.Generator):
    counts = Counter(words)
    most = max(counts.values())
    first = sorted(word for word, count in counts.items() if count == most)
    return first[int(rng.integers(len(first)))]


__all__ = [
    "CONDITIONS",
    "SHOTS",
    "Condition",
    "evaluate_shots",
    "say_majority",
    "say_unseen_pair",
]
