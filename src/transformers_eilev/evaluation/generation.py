"""Narrations of all queries, for each number of shots and each condition, and how well they fit the annotators'."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .conditions import Condition, find_condition
from .narration_metrics import NarrationMetrics
from .narrators import Narrator
from .queries import EvaluationQueries
from .results import make_record, read_record, write_record
from .runs import Predict, RunSettings, iter_runs


def evaluate_generation(
    narrator: Narrator, queries: EvaluationQueries, settings: RunSettings, *, metrics: NarrationMetrics
) -> list[dict[str, Any]]:
    """
    Narrates and scores. In each of several processes (`torchrun`, `accelerate launch`) it makes a part; a run that was
    stopped goes on, and what is done is not done again.

    Args:
        narrator ([`Narrator`]): who narrates.
        queries ([`EvaluationQueries`]): what is asked.
        settings ([`RunSettings`]): how.
        metrics ([`NarrationMetrics`]): what is computed, in the first process.

    Returns:
        `list[dict]`: the record of each run; see `results.make_record`. In other processes than the first none.

    Raises:
        ValueError: a condition, by name; predictions of other settings.

    Warns:
        UserWarning: if narrations are empty, with their number.
    """
    runs = iter_runs(
        settings,
        queries,
        task="generation",
        model=narrator.name,
        fingerprint=narrator.fingerprint(),
        load_clip=narrator.load_clip,
        find=find_condition,
        predictor=lambda samples, expected, condition: _predictor(narrator, queries, samples, condition),
    )
    return [_score(folder, of_run, predictions, metrics, settings.arguments) for folder, of_run, predictions in runs]


def _predictor(narrator: Narrator, queries: EvaluationQueries, samples, condition: Condition) -> Predict:
    def predict(indices: Sequence[int]) -> list[dict[str, str]]:
        if condition.rule is not None:
            said = [queries.answer_by_rule(samples, index, condition.rule) for index in indices]
        else:
            said = narrator([samples[index] for index in indices])
        return [{"narration": narration} for narration in said]

    return predict


def _score(
    folder: Path,
    of_run: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    metrics: NarrationMetrics,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a run: the one that is there, if it has the same metrics, and lacks none."""
    there = read_record(folder)
    if there is not None and there["settings"]["metrics"] == metrics.settings and not there["unavailable"]:
        return there
    narrations, references = ([line[name] for line in predictions] for name in ("narration", "reference"))
    scores = metrics(narrations, references)
    if scores.num_empty:
        warnings.warn(
            f"{folder}: {scores.num_empty} of {len(predictions)} narrations are empty; they count as wrong",
            UserWarning,
            stacklevel=2,
        )
    counts = {"num_empty": scores.num_empty, "arguments": arguments}
    if scores.num_unparsable is not None:
        counts["num_unparsable"] = scores.num_unparsable
    settings = {**of_run, "metrics": metrics.settings}
    record = make_record(predictions, settings, scores.metrics, scores.unavailable, **counts)
    write_record(folder, record)
    return record


__all__ = ["evaluate_generation"]
