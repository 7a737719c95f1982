"""How often the right class comes first, and among the first few: macro F1 and top-k accuracy, with intervals."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .bootstrap import bootstrap_interval, bootstrap_statistic


def score_labels(
    scores: np.ndarray,
    labels: Sequence[int],
    *,
    top_k: Sequence[int] = (1, 5),
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """
    Metrics of class scores.

    Args:
        scores (`np.ndarray` of shape `(num_queries, num_classes)`): higher is likelier. Of equal ones the first class
            counts as the likelier.
        labels (`Sequence[int]` of length `num_queries`): the right classes.
        top_k, seed, num_resamples: as of [`score_ranks`].

    Returns:
        `dict`: as [`score_ranks`].

    Raises:
        ValueError: for unequal numbers, scores that are no numbers, labels that are no class, by the row of the query;
            a `top_k` above the number of classes; as [`score_ranks`].
    """
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"`scores` must be of shape (num_queries, num_classes) and `labels` (num_queries,), but they are of "
            f"{scores.shape} and {labels.shape}"
        )
    num_classes = scores.shape[1]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"`labels` must be numbers of classes, but are {labels.dtype}")
    for fault, rows in (
        (f"must be a class from 0 to {num_classes - 1}", (labels < 0) | (labels >= num_classes)),
        ("has scores that are no numbers", np.isnan(scores).any(1)),
    ):
        if rows.any():
            row = int(np.flatnonzero(rows)[0])
            raise ValueError(f"Query {row} {fault}: its label is {labels[row]} ({rows.sum()} such queries)")
    if any(k > num_classes for k in top_k):
        raise ValueError(f"`top_k` {list(top_k)} is more than the {num_classes} classes")
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = (order == labels[:, None]).argmax(1)
    return score_ranks(
        order[:, 0].tolist(), labels.tolist(), ranks.tolist(), top_k=top_k, seed=seed, num_resamples=num_resamples
    )


def score_ranks(
    predicted: Sequence[Hashable],
    labels: Sequence[Hashable],
    ranks: Sequence[int | None],
    *,
    top_k: Sequence[int] = (1, 5),
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """
    Metrics of ranked classes.

    Args:
        predicted (`Sequence`): the class that comes first, of each query: a name, a number, or `None`.
        labels (`Sequence`): the right ones.
        ranks (`Sequence[int | None]`): how many classes come before the right one; `None` if it was not ranked.
        top_k (`Sequence[int]`, defaults to `(1, 5)`): how many of the first the right one shall be among.
        seed (`int`, defaults to 0): of the intervals.
        num_resamples (`int`, defaults to 1000): of the bootstrap; 0 for no intervals.

    Returns:
        `dict`: `macro_f1`, `top_1`, `top_5` and so on, each with its `value` and its 95 % bootstrap `interval`. Macro
        F1 is the mean over the classes that are predicted or right for at least one query: that of scikit-learn, and
        of torchmetrics, which the original used.

    Raises:
        ValueError: without queries, for unequal numbers or numbers out of range; for a query without label, or a rank
            that contradicts what is predicted, by its row.
    """
    if not len(predicted) == len(labels) == len(ranks) > 0:
        raise ValueError(
            f"There must be as many predicted classes as labels and ranks, at least one, but there are "
            f"{len(predicted)}, {len(labels)} and {len(ranks)}"
        )
    for row, (first, label, rank) in enumerate(zip(predicted, labels, ranks)):
        if label is None or label == "":
            raise ValueError(f"Query {row} has no label: {label!r}")
        if rank is not None and (rank < 0 or (rank == 0) != (first == label)) or (rank is None and first == label):
            raise ValueError(f"Query {row}: {first!r} is predicted and {label!r} is right, but its rank is {rank}")
    if any(k < 1 for k in top_k):
        raise ValueError(f"`top_k` must be at least 1, but is {list(top_k)}")
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*predicted, *labels]))}
    predicted, labels = (np.array([numbers[name] for name in names]) for names in (predicted, labels))

    def macro_f1(rows: np.ndarray) -> float:
        # scikit-learn's `f1_score` takes a hundred times as long, which a thousand resamples make felt.
        right = labels[rows][labels[rows] == predicted[rows]]
        hits, actual, guessed = (
            np.bincount(own, minlength=len(numbers)) for own in (right, labels[rows], predicted[rows])
        )
        occurs = actual + guessed > 0
        return float(np.mean(2 * hits[occurs] / (actual + guessed)[occurs]))

    options = {"seed": seed, "num_resamples": num_resamples}
    everything = np.arange(len(labels))
    interval = list(bootstrap_statistic(macro_f1, len(labels), **options)) if num_resamples else None
    scores = {"macro_f1": {"value": macro_f1(everything), "interval": interval}}
    for k in top_k:
        hits = np.array([rank is not None and rank < k for rank in ranks], float)
        interval = list(bootstrap_interval(hits, **options)) if num_resamples else None
        scores[f"top_{k}"] = {"value": float(hits.mean()), "interval": interval}
    return scores


__all__ = ["score_labels", "score_ranks"]
