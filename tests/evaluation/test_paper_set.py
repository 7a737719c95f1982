"""The twenty clips of `paper_set`, narrated by somebody who says what is written there: every number is known."""

import json

import datasets
import pytest
from paper_set import EXACT, NOUN, NUM_EMPTY, NUM_UNPARSABLE, PREDICTIONS, REFERENCES, ROUGE_L_MEAN, VERB

from transformers_eilev.evaluation import EvaluationQueries, NarrationMetrics, RunSettings, evaluate_generation
from transformers_eilev.evaluation.prediction_journal import read_predictions


# In an order of their own, so that only a clip's name tells whose narration is whose.
ORDER = [index * 7 % 20 for index in range(20)]

pytestmark = pytest.mark.filterwarnings("ignore:.*narrations are empty")


class Reader:
    """Says of each clip what stands in the set."""

    name = "reader"

    def __init__(self):
        self.asked = []

    def load_clip(self, row):
        return row["frame_path"]

    def __call__(self, samples):
        self.asked += [sample["frame_path"] for sample in samples]
        return [PREDICTIONS[int(sample["frame_path"].split("|")[1])].strip() for sample in samples]

    def fingerprint(self):
        return "0" * 64


@pytest.fixture
def queries():
    rows = [
        {
            "frame_path": f"clip|{index}",
            "narration_text": REFERENCES[index].replace("The camera wearer", "#C C").removesuffix("."),
            "structured_verb": REFERENCES[index].split()[3].removesuffix("s"),
            "structured_noun": REFERENCES[index].split()[-1].removesuffix("."),
        }
        for index in ORDER
    ]
    return EvaluationQueries(datasets.Dataset.from_list(rows), shots=(0, 2))


def run(queries, folder, metrics=("exact",), reader=None, **more):
    settings = RunSettings(output_dir=folder, dataset="paper", batch_size=6, progress=False, **more)
    return evaluate_generation(reader or Reader(), queries, settings, metrics=NarrationMetrics(metrics))


def test_every_number_is_that_on_paper(queries, tmp_path):
    records = run(queries, tmp_path, ("exact", "verb", "noun", "rouge_l"))
    assert [(record["condition"], record["shots"]) for record in records] == [("in_context", 0), ("in_context", 2)]
    for record in records:
        assert {name: metric["value"] for name, metric in record["metrics"].items()} == {
            "exact": pytest.approx(float(EXACT)),
            "verb": pytest.approx(float(VERB)),
            "noun": pytest.approx(float(NOUN)),
            "rouge_l": pytest.approx(float(ROUGE_L_MEAN)),
        }
        counts = record["num_queries"], record["num_empty"], record["num_unparsable"]
        assert counts == (20, NUM_EMPTY, NUM_UNPARSABLE)
        # Of 7 in 20: 0.35 and 1.96 times the root of 0.35 * 0.65 / 20, about.
        assert record["metrics"]["exact"]["interval"] == pytest.approx([0.35 - 0.21, 0.35 + 0.21], abs=0.06)
    for line in read_predictions(tmp_path / "in_context-2"):
        number = int(line["query"].split("|")[1])
        assert line["narration"] == PREDICTIONS[number].strip() and line["reference"] == REFERENCES[number]
        assert line["structured_noun"] == REFERENCES[number].split()[-1].removesuffix(".")


def test_empty_narrations_are_told(queries, tmp_path):
    with pytest.warns(UserWarning, match="2 of 20 narrations are empty; they count as wrong"):
        run(queries, tmp_path)


def test_other_metrics_are_of_the_same_narrations(queries, tmp_path):
    run(queries, tmp_path)
    reader = Reader()
    more = run(queries, tmp_path, ("exact", "verb"), reader)
    assert reader.asked == [] and more[0]["metrics"]["verb"]["value"] == float(VERB)


def test_a_metric_that_could_not_be_had_is_tried_again(queries, tmp_path):
    (record, _) = run(queries, tmp_path, ("exact", "sts_bi_encoder"))
    assert "all-mpnet-base-v2" in record["unavailable"]["sts_bi_encoder"]
    assert record["metrics"]["exact"]["value"] == 0.35
    path = tmp_path / "in_context-0" / "results.json"
    stamp = path.stat().st_mtime_ns
    run(queries, tmp_path, ("exact", "sts_bi_encoder"))
    assert path.stat().st_mtime_ns > stamp and json.loads(path.read_text())["unavailable"]


def test_what_is_asked_otherwise_is_another_run(queries, tmp_path):
    run(queries, tmp_path)
    with pytest.raises(ValueError, match="in_context-0 has predictions of other settings: fingerprints.prompts"):
        run(queries, tmp_path, prompts=("What is this?",))
    with pytest.raises(ValueError, match=r"`conditions` \['majority'\] need more examples than \[0\]"):
        run(EvaluationQueries(queries.clips, shots=(0,)), tmp_path, conditions=("majority",))
