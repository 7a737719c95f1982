"""Macro F1 and top-k accuracy: against scikit-learn, against numbers worked out by hand."""

from fractions import Fraction

import numpy as np
import pytest
from paper_set import F1, LABELS, MACRO_F1, RANKED, SCORES, TOP_K
from scipy.stats import binom
from sklearn.metrics import f1_score, top_k_accuracy_score

from transformers_eilev.evaluation.label_metrics import score_labels, score_ranks


def test_twenty_queries_by_hand():
    assert sum(F1.values()) / 4 == MACRO_F1
    found = score_labels(SCORES, LABELS, top_k=(1, 2, 3, 4, 5))
    assert list(found) == ["macro_f1", "top_1", "top_2", "top_3", "top_4", "top_5"]
    assert found["macro_f1"]["value"] == pytest.approx(float(MACRO_F1), abs=1e-12)
    assert {k: Fraction(found[f"top_{k}"]["value"]).limit_denominator(20) for k in TOP_K} == TOP_K
    for metric in found.values():
        low, high = metric["interval"]
        assert 0 <= low <= metric["value"] <= high <= 1
    assert found["top_5"]["interval"] == [1.0, 1.0]
    assert found["top_1"]["interval"] == pytest.approx(np.array(binom.ppf([0.025, 0.975], 20, 0.5)) / 20, abs=0.051)
    # The same by names and ranks.
    ranks = [order.index(label) for order, label in RANKED]
    of_names = score_ranks([order[0] for order, _ in RANKED], [label for _, label in RANKED], ranks)
    assert of_names == {name: found[name] for name in ("macro_f1", "top_1", "top_5")}


@pytest.mark.parametrize("num_classes", [3, 7, 40])
def test_values_are_those_of_scikit_learn(num_classes):
    rng = np.random.default_rng([num_classes])
    scores, labels = rng.normal(size=(60, num_classes)), rng.integers(num_classes, size=60)
    scores[np.arange(60), labels] += 1
    top_k = (1, 2, num_classes)
    found = score_labels(scores, labels, top_k=top_k, num_resamples=0)
    best = scores.argmax(1)
    assert found["macro_f1"] == {"value": pytest.approx(f1_score(labels, best, average="macro")), "interval": None}
    for k in (1, 2):
        of_library = top_k_accuracy_score(labels, scores, k=k, labels=range(num_classes))
        assert found[f"top_{k}"]["value"] == pytest.approx(of_library)
    assert found[f"top_{num_classes}"]["value"] == 1


def test_the_interval_of_macro_f1_is_that_of_resampled_queries():
    rng = np.random.default_rng(3)
    predicted, labels = rng.integers(4, size=80), rng.integers(4, size=80)
    labels[:40] = predicted[:40]
    ranks = [0 if a == b else None for a, b in zip(predicted, labels)]
    found = score_ranks(predicted.tolist(), labels.tolist(), ranks, top_k=(1,), num_resamples=300)
    # Another source of chance, scikit-learn's value.
    draws = np.random.default_rng(9).integers(80, size=(300, 80))
    values = [f1_score(labels[rows], predicted[rows], average="macro") for rows in draws]
    assert found["macro_f1"]["interval"] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.03)


def test_of_equal_scores_the_first_class_comes_first():
    found = score_labels(np.zeros((3, 3)), [0, 1, 2], top_k=(1, 2, 3), num_resamples=0)
    assert [found[f"top_{k}"]["value"] for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_what_is_not_ranked_is_wrong():
    found = score_ranks(["cut", None], ["cut", "wash"], [0, None], top_k=(1, 5), num_resamples=0)
    # "cut" 1, "wash" 0, and nothing at all, which is a class of its own that was predicted, 0.
    assert {name: metric["value"] for name, metric in found.items()} == pytest.approx(
        {"macro_f1": 1 / 3, "top_1": 0.5, "top_5": 0.5}
    )


@pytest.mark.parametrize(
    "scores, labels, options, message",
    [
        ([[1, 2]], [0, 1], {}, r"\(1, 2\) and \(2,\)"),
        ([1, 2], [0, 1], {}, r"\(2,\) and \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), {}, "at least one"),
        ([[1, 2], [1, 2]], [0, -1], {}, r"Query 1 must be a class from 0 to 1: its label is -1 \(1 such"),
        ([[1, 2], [1, 2]], [2, 0], {}, "Query 0 must be a class"),
        ([[1, 2]], [0.5], {}, "`labels` must be numbers of classes, but are float64"),
        ([[1, np.nan]], [0], {}, "Query 0 has scores that are no numbers"),
        ([[1, 2]], [0], {"top_k": (1, 5)}, r"\[1, 5\] is more than the 2 classes"),
        ([[1, 2]], [0], {"top_k": (0,)}, "`top_k` must be at least 1"),
        ([[1, 2]], [0], {"top_k": (1,), "num_resamples": -1}, "`num_resamples` must be at least 1, but is -1"),
    ],
)
def test_bad_scores(scores, labels, options, message):
    with pytest.raises(ValueError, match=message):
        score_labels(scores, labels, **{"top_k": (1,), **options})


@pytest.mark.parametrize(
    "predicted, labels, ranks, message",
    [
        ([], [], [], "at least one"),
        (["a"], ["a", "b"], [0], "1, 2 and 1"),
        (["a", "a"], ["a", ""], [0, 1], "Query 1 has no label: ''"),
        (["a"], [None], [0], "Query 0 has no label: None"),
        (["a"], ["b"], [0], "Query 0: 'a' is predicted and 'b' is right, but its rank is 0"),
        (["a"], ["a"], [2], "its rank is 2"),
        (["a"], ["a"], [None], "its rank is None"),
        (["a"], ["b"], [-1], "its rank is -1"),
    ],
)
def test_bad_ranks(predicted, labels, ranks, message):
    with pytest.raises(ValueError, match=message):
        score_ranks(predicted, labels, ranks)
