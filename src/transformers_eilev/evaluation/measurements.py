"""What the metrics of narrations have in common."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np


class MetricUnavailable(Exception):  # noqa: N818
    """A metric can't be computed here, for the reason given in one line: a library, a model or a tool is missing."""


@dataclass(frozen=True)
class Measurement:
    """
    What a metric found in the narrations of all queries.

    Attributes:
        statistic (`Callable`): the metric's value for each of some samples of rows, in their order.
        per_query (`np.ndarray`, *optional*): of shape `(num_queries,)`, for a metric that each narration has.
    """

    statistic: Callable[[Iterable[np.ndarray]], Iterable[float]]
    per_query: np.ndarray | None = None


def measure_each(
    metric: Callable[[list[str], list[str]], Iterable[float]], predictions: Sequence[str], references: Sequence[str]
) -> Measurement:
    """
    The mean of a metric that each narration has. It is asked once for each distinct pair, since narrations repeat a
    lot, and not for empty predictions, which count as 0.

    Args:
        metric (`Callable`): takes predictions and their references, and gives a number for each pair.
    """
    pairs = list(dict.fromkeys(pair for pair in zip(predictions, references) if pair[0].strip()))
    values = dict(zip(pairs, metric(*map(list, zip(*pairs))), strict=True)) if pairs else {}
    per_query = np.array([values.get(pair, 0.0) for pair in zip(predictions, references)], float)
    return Measurement(lambda samples: (per_query[rows].mean() for rows in samples), per_query)


def sums_of(counts: np.ndarray, samples: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The sums over some samples of rows, of counts of shape `(num_queries, num_counts)`."""
    return (np.bincount(rows, minlength=len(counts)) @ counts for rows in samples)


@contextmanager
def needed(library: str, what: str | None = None):
    """
    Where a library is imported and what it needs is loaded: a failure is a [`MetricUnavailable`] that says why.

    Args:
        library (`str`): as pip calls it.
        what (`str`, *optional*): the model that is loaded.
    """
    try:
        yield
    except ImportError as error:
        raise MetricUnavailable(
            f'{library} can\'t be imported ({_first_line(error)}): pip install "transformers-eilev[evaluation]"'
        ) from error
    except OSError as error:
        raise MetricUnavailable(f"{what or library} can't be loaded: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


__all__ = ["Measurement", "MetricUnavailable", "measure_each", "needed", "sums_of"]
