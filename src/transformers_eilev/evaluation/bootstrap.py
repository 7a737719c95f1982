"""
How sure a number is: percentile bootstrap intervals over queries.

They are those of `scipy.stats.bootstrap(method="percentile")`, without scipy, which only some metrics need, and for
one query too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np


def resamples(num_rows: int, *, seed: int, num_resamples: int = 1000) -> Iterator[np.ndarray]:
    """
    Rows drawn with replacement, as many as there are; one draw at a time is in memory.

    Raises:
        ValueError: if there is no row, or for numbers out of range.
    """
    if num_rows < 1:
        raise ValueError("There is nothing to resample")
    if num_resamples < 1:
        raise ValueError(f"`num_resamples` must be at least 1, but is {num_resamples}")
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, but is {seed}")
    rng = np.random.default_rng([seed])
    return (rng.integers(num_rows, size=num_rows) for _ in range(num_resamples))


def percentile_interval(statistics: Iterable[float], *, level: float = 0.95) -> tuple[float, float]:
    """
    Between which numbers the middle `level` of the statistics of resamples lie.

    Raises:
        ValueError: for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, but is {level}")
    low, high = np.quantile(np.fromiter(statistics, float), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float],
    num_rows: int,
    *,
    seed: int,
    level: float = 0.95,
    num_resamples: int = 1000,
) -> tuple[float, float]:
    """
    The interval of any number that is computed from rows. The same seed draws the same rows for every statistic.

    Args:
        statistic (`Callable`): takes row numbers of shape `(num_rows,)`, some of them more than once.
        num_rows (`int`): that there are.
        seed (`int`): decides all that is drawn.
        level (`float`, defaults to 0.95): share of the resamples within the interval.
        num_resamples (`int`, defaults to 1000): how often rows are drawn.

    Raises:
        ValueError: if there is no row, or for numbers out of range.
    """
    drawn = resamples(num_rows, seed=seed, num_resamples=num_resamples)
    return percentile_interval(map(statistic, drawn), level=level)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, *, seed: int, level: float = 0.95, num_resamples: int = 1000
) -> tuple[float, float]:
    """
    The interval of a mean.

    Args:
        values (`Sequence[float]` or `np.ndarray` of shape `(num_rows,)`): a number for each row.
        seed (`int`), level (`float`), num_resamples (`int`): as of [`bootstrap_statistic`].

    Returns:
        `tuple[float, float]`: between which numbers the means of the middle `level` of the resamples lie.

    Raises:
        ValueError: if there is no value, or for numbers out of range.
    """
    values = np.asarray(values, float)
    return bootstrap_statistic(
        lambda rows: values[rows].mean(), len(values), seed=seed, level=level, num_resamples=num_resamples
    )


__all__ = ["bootstrap_interval", "bootstrap_statistic", "percentile_interval", "resamples"]
