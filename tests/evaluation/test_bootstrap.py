"""Intervals: against scipy's bootstrap and the distributions that they approach."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from transformers_eilev.evaluation.bootstrap import (
    bootstrap_interval,
    bootstrap_statistic,
    percentile_interval,
    resamples,
)


def test_known_intervals():
    assert bootstrap_interval([True] * 9, seed=0) == (1.0, 1.0)
    assert bootstrap_interval([0.25], seed=0) == (0.25, 0.25)
    # Of four, one right: between none and three right, each of 1000 times.
    assert bootstrap_interval([1, 0, 0, 0], seed=0) == (0.0, 0.75)
    # The middle half of 0, 1, ..., 8.
    assert percentile_interval(range(9), level=0.5) == (2.0, 6.0)


@pytest.mark.parametrize("ones, n, level", [(10, 40, 0.95), (90, 100, 0.95), (150, 300, 0.8)])
def test_the_interval_of_a_share_is_that_of_the_binomial_distribution(ones, n, level):
    found = bootstrap_interval([1] * ones + [0] * (n - ones), seed=5, level=level, num_resamples=4000)
    expected = binom.ppf([(1 - level) / 2, (1 + level) / 2], n, ones / n) / n
    assert found == pytest.approx(expected, abs=1.01 / n)


def test_intervals_are_scipys_but_for_chance():
    values = np.random.default_rng(0).exponential(size=50)
    expected = bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1))
    found = bootstrap_interval(values, seed=2, num_resamples=5000)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.02)
    # Of what is no mean.
    expected = bootstrap((values,), np.median, n_resamples=5000, method="percentile", rng=np.random.default_rng(1))
    found = bootstrap_statistic(lambda rows: np.median(values[rows]), 50, seed=2, num_resamples=5000)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.05)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    np.random.seed(0)
    before = bootstrap_interval(values, seed=1)
    np.random.seed(1)
    assert bootstrap_interval(values, seed=1) == before
    # Of the same seed, the same rows: intervals of two metrics can be compared.
    assert bootstrap_statistic(lambda rows: values[rows].mean(), 30, seed=1) == bootstrap_interval(values, seed=1)


def test_memory_does_not_grow_with_the_resamples():
    values = np.ones(100_000)
    tracemalloc.start()
    bootstrap_interval(values, seed=0, num_resamples=20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A few arrays of 0.8 MB at a time, instead of 20.
    assert peak < 5e6


@pytest.mark.parametrize(
    "values, options, message",
    [
        ([], {}, "nothing to resample"),
        ([1], {"seed": -1}, "`seed` must not be negative, but is -1"),
        ([1], {"num_resamples": 0}, "`num_resamples` must be at least 1, but is 0"),
        ([1], {"level": 1.0}, "`level` must be between 0 and 1, but is 1.0"),
        ([1], {"level": 95}, "but is 95"),
    ],
)
def test_bad_options(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **{"seed": 0, **options})


def test_resamples_fail_before_they_are_drawn():
    with pytest.raises(ValueError, match="nothing to resample"):
        resamples(0, seed=0)
