"""
Verbs and nouns of clips, told apart by how likely the model holds each: the original's evaluation of classification.

Of each query the verbs are scored as what comes next after "The camera wearer", and then the nouns as what comes after
the best verb. Prompts are read once for both. Labels are those of the clip itself, joined by its `frame_path`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data.narrations import SUBJECT
from .conditions import Condition, find_condition
from .label_metrics import score_ranks
from .narrators import VideoBlipNarrator
from .queries import EvaluationQueries
from .results import fingerprint_of, make_record, write_record
from .rules import frequent_label
from .runs import Predict, RunSettings, iter_runs
from .taxonomies import Candidates, Taxonomy


# Kept of each query, best first.
NUM_BEST = 5


def evaluate_classification(
    narrator: VideoBlipNarrator,
    queries: EvaluationQueries,
    settings: RunSettings,
    *,
    taxonomy: Taxonomy,
    class_batch_size: int | None = 256,
    num_resamples: int = 1000,
) -> list[dict[str, Any]]:
    """
    Classifies, and counts what is right. In several processes each makes a part; a run that was stopped goes on.

    Args:
        narrator ([`VideoBlipNarrator`]): whose model is asked.
        queries ([`EvaluationQueries`]): what is asked.
        settings ([`RunSettings`]): how. Of the conditions that answer by a rule, "majority" alone classifies.
        taxonomy ([`Taxonomy`]): the classes.
        class_batch_size (`int`, *optional*, defaults to 256): words at a time, which bounds the memory.
        num_resamples (`int`, defaults to 1000): of the bootstrap.

    Returns:
        `list[dict]`: the record of each run, with `verb_macro_f1`, `verb_top_1`, `verb_top_5` and the same of the
        nouns, over the queries that have a label of the taxonomy; `num_unlabelled_verbs` and `num_unlabelled_nouns`
        count the others. In other processes than the first none.

    Raises:
        ValueError: a condition, by name; if no query has a label of the taxonomy, with an example.
    """
    candidates = {"verb": Candidates.of(taxonomy.verbs), "noun": Candidates.of(taxonomy.nouns)}
    _check_labels(queries, candidates)

    def predictor(samples, expected, condition: Condition) -> Predict:
        if condition.rule is not None:
            return _Majority(queries, samples, expected)
        return _Classifier(narrator, samples, expected, candidates, class_batch_size)

    runs = iter_runs(
        settings,
        queries,
        task="classification",
        model=narrator.name,
        fingerprint=fingerprint_of([narrator.fingerprint(), _describe(taxonomy)]),
        load_clip=narrator.load_clip,
        find=_find,
        predictor=predictor,
    )
    records = []
    for folder, of_run, predictions in runs:
        num_classes = {kind: len(own.labels) for kind, own in candidates.items()}
        of_run = {**of_run, "num_classes": num_classes}
        record = _score(predictions, candidates, of_run, num_resamples, settings.arguments)
        write_record(folder, record)
        records.append(record)
    return records


class _Classifier:
    """Predictions of some samples, by their places."""

    def __init__(self, narrator, samples, expected, candidates: Mapping[str, Candidates], class_batch_size):
        self.narrator, self.samples, self.expected = narrator, samples, expected
        self.candidates, self.class_batch_size = candidates, class_batch_size
        encode = narrator.processor.encode_classes
        device = narrator.model.device
        self._tokens = {
            kind: {name: ids.to(device) for name, ids in encode(own.words).items()} for kind, own in candidates.items()
        }
        self._subject = _tokens_of(encode([SUBJECT]), 0)
        self._verbs = encode(candidates["verb"].words)

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        read = self.narrator.read([self.samples[index] for index in indices])
        said = [self._subject] * len(indices)
        predictions: list[dict[str, Any]] = [{} for _ in indices]
        for kind, own in self.candidates.items():
            scores = read.score(**self._tokens[kind], given=said, class_batch_size=self.class_batch_size)
            scores = scores.double().cpu().numpy()
            by_class = own.class_scores(scores)
            for row, index, of_class in zip(predictions, indices, by_class):
                row |= _ranked(kind, own.labels, of_class, self.expected[index][f"structured_{kind}"])
            if kind == "verb":
                said = [(*self._subject, *_tokens_of(self._verbs, word)) for word in scores.argmax(1).tolist()]
        return predictions


class _Majority:
    """The most frequent labels of the context; one that is not there counts as last."""

    def __init__(self, queries: EvaluationQueries, samples, expected):
        self.queries, self.samples, self.expected = queries, samples, expected

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        predictions = []
        for index in indices:
            prediction = {}
            for kind in ("verb", "noun"):

                def rule(narrations, rows, rng, kind=kind):
                    return frequent_label(rows, kind, rng)

                label = self.queries.answer_by_rule(self.samples, index, rule)
                true = self.expected[index][f"structured_{kind}"]
                prediction |= {f"{kind}": label, f"{kind}_rank": 0 if label and label == true else None}
            predictions.append(prediction)
        return predictions


def _ranked(kind: str, labels: Sequence[str], scores: np.ndarray, true: str) -> dict[str, Any]:
    """The best classes with their scores, and how many are held likelier than the right one."""
    order = np.argsort(-scores, kind="stable")
    best = [[labels[number], round(float(scores[number]), 4)] for number in order[:NUM_BEST].tolist()]
    rank = int(np.flatnonzero(order == labels.index(true))[0]) if true in labels else None
    return {kind: best[0][0], f"{kind}_rank": rank, f"best_{kind}s": best}


def _score(
    predictions: Sequence[Mapping[str, Any]],
    candidates: Mapping[str, Candidates],
    settings: Mapping[str, Any],
    num_resamples: int,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    metrics, unavailable, counts = {}, {}, {"arguments": arguments}
    top_k = (1, NUM_BEST) if settings["model"] != "none" else (1,)
    for kind, own in candidates.items():
        labelled = [line for line in predictions if line[f"structured_{kind}"] in own.labels]
        counts[f"num_unlabelled_{kind}s"] = len(predictions) - len(labelled)
        if not labelled:
            names = ("macro_f1", *(f"top_{k}" for k in top_k))
            unavailable |= dict.fromkeys(
                (f"{kind}_{name}" for name in names), f"no query has a {kind} of the taxonomy"
            )
            continue
        scores = score_ranks(
            [line[kind] for line in labelled],
            [line[f"structured_{kind}"] for line in labelled],
            [line[f"{kind}_rank"] for line in labelled],
            top_k=top_k,
            seed=settings["seed"],
            num_resamples=num_resamples,
        )
        metrics |= {f"{kind}_{name}": value for name, value in scores.items()}
    return make_record(predictions, settings, metrics, unavailable, **counts)


def _check_labels(queries: EvaluationQueries, candidates: Mapping[str, Candidates]) -> None:
    asked = sorted({row for num_shots in queries.shots for row in queries.queries(num_shots)})
    for kind, own in candidates.items():
        labels = [queries.rows[row][f"structured_{kind}"] for row in asked]
        if not {*labels} & {*own.labels}:
            raise ValueError(
                f"No query has a {kind} of the taxonomy: {labels[0]!r} is none of its {len(own.labels)} classes, such "
                f"as {own.labels[0]!r}. Give the taxonomy of this data set"
            )


def _find(name: str) -> Condition:
    condition = find_condition(name)
    if condition.rule is not None and name != "majority":
        raise ValueError(f"The condition {name!r} answers by sentences, and classifies nothing")
    return condition


def _describe(taxonomy: Taxonomy) -> list:
    return [{label: list(words) for label, words in own.items()} for own in (taxonomy.verbs, taxonomy.nouns)]


def _tokens_of(encoded: Mapping[str, Any], row: int) -> tuple[int, ...]:
    length = int(encoded["class_attention_mask"][row].sum())
    return tuple(encoded["class_input_ids"][row, :length].tolist())


__all__ = ["NUM_BEST", "evaluate_classification"]
