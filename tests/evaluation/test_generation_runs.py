"""Evaluation by one who learns from contexts and nothing else, so that it is known where it is right."""

import datasets
import pytest

from transformers_eilev.data import EpisodeNames, parse_narration
from transformers_eilev.evaluation.generation import evaluate_generation
from transformers_eilev.evaluation.narration_metrics import NarrationMetrics
from transformers_eilev.evaluation.prediction_journal import read_predictions
from transformers_eilev.evaluation.queries import EvaluationQueries
from transformers_eilev.evaluation.records import read_records
from transformers_eilev.evaluation.runs import RunSettings


pytestmark = pytest.mark.filterwarnings("ignore:.* narrations are empty")

VERBS, NOUNS = ["wipe", "cut", "open", "take"], ["cup", "carrot", "door", "spoon"]
SHOTS = (0, 1, 2, 4, 8)
NUM_QUERIES = 20
CONDITIONS = ("in_context", "text_only", "shuffled", "majority", "unseen_pair")
RENAME = EpisodeNames(["daxes", "wugs", "blicks", "gorps"], ["toma", "fep", "zup", "modi"], share=1.0)


class ContextReader:
    """
    A clip shows it the labels of its verb and its noun. It learns from the context what each is called, and says what
    those of the last clip are called; nothing where it lacks a clip or a name.
    """

    name = "reader"

    def __init__(self):
        self.num_calls = 0

    def load_clip(self, row):
        return row["structured_verb"], row["structured_noun"]

    def fingerprint(self):
        return "reader"

    def __call__(self, samples):
        self.num_calls += 1
        return [self._answer(sample["text"], list(sample["videos"])) for sample in samples]

    def _answer(self, blocks, clips):
        names = [{}, {}]
        for block in blocks:
            labels = clips.pop(0) if block.startswith("<video>") else (None, None)
            words = parse_narration(block.partition("Q?")[2].strip())
            for name, label, word in zip(names, labels, words or (None, None)):
                if word is not None:
                    name[label] = word
        words = [name.get(label) for name, label in zip(names, labels)]
        return "" if None in words else "The camera wearer {} the {}.".format(*words)


@pytest.fixture(scope="module")
def clips():
    """Of each verb with each noun four clips."""
    pairs = [(verb, noun) for verb in VERBS for noun in NOUNS for _ in range(4)]
    rows = [
        {
            "frame_path": f"video|{index}",
            "narration_text": f"#C C {verb}s the {noun}",
            "structured_verb": verb,
            "structured_noun": noun,
        }
        for index, (verb, noun) in enumerate(pairs)
    ]
    return datasets.Dataset.from_list(rows)


def evaluate(clips, output_dir, *, narrator=None, kind="balanced", shots=SHOTS, seed=3, **settings):
    """The records by condition and number of shots."""
    queries = EvaluationQueries(clips, shots=shots, kind=kind, num_queries=NUM_QUERIES, seed=seed)
    settings = {"conditions": CONDITIONS, "batch_size": 8, "prompts": ["Q?"], "dataset": "made", **settings}
    records = evaluate_generation(
        narrator or ContextReader(),
        queries,
        RunSettings(output_dir=output_dir, progress=False, **settings),
        metrics=NarrationMetrics(("exact", "verb", "noun")),
    )
    return {(record["condition"], record["shots"]): record for record in records}


@pytest.mark.parametrize("rename", [None, RENAME])
def test_who_reads_the_context_is_right_where_it_tells(clips, tmp_path, rename):
    records = evaluate(clips, tmp_path, rename=rename)
    assert [k for name, k in records if name == "in_context"] == [0, 1, 2, 4, 8]
    assert [k for name, k in records if name == "text_only"] == [1, 2, 4, 8]
    assert [k for name, k in records if name == "shuffled"] == [2, 4, 8]

    def numbers(*key):
        record = records[key]
        assert record["num_queries"] == NUM_QUERIES and record["num_unparsable"] == 0
        return (*(record["metrics"][name]["value"] for name in ("exact", "verb", "noun")), record["num_empty"])

    # Nothing to learn from; one of two words; both.
    assert numbers("in_context", 0) == numbers("in_context", 1) == (0, 0, 0, NUM_QUERIES)
    for k in (2, 4, 8):
        assert numbers("in_context", k) == (1, 1, 1, 0)
        assert records["in_context", k]["metrics"]["exact"]["interval"] == [1, 1]
        assert numbers("text_only", k) == (0, 0, 0, NUM_QUERIES)
        # The verb's word is right in half of the cases, the noun's too; who takes what does not stand there has both
        # or none.
        exact, verb, noun, _ = numbers("unseen_pair", k)
        assert exact == verb == noun and 0.2 < exact < 0.8
    # Either clip with the other's narration: what is right is never said.
    assert numbers("shuffled", 2) == (0, 0, 0, 0)
    # Half of the queries are shown their verb, half their noun.
    assert numbers("majority", 1) == (0, 0.5, 0.5, 0)
    assert numbers("majority", 8)[0] < 0.6


def test_words_alone_tell_the_answer_in_eilevs_contexts(clips, tmp_path):
    """Half of the examples have the query's verb, half its noun, and the other words are many."""
    records = evaluate(clips, tmp_path, kind="eilev", shots=(8,))
    assert records["in_context", 8]["metrics"]["exact"]["value"] == 1
    assert records["majority", 8]["metrics"]["exact"]["value"] > 0.6


def test_what_is_done_is_not_done_again(clips, tmp_path):
    narrator = ContextReader()
    records = evaluate(clips, tmp_path, narrator=narrator, shots=(2,))
    # Batches of 8, 8 and 4, without those of the rules.
    assert narrator.num_calls == 9
    assert evaluate(clips, tmp_path, narrator=narrator, shots=(2,)) == records
    assert narrator.num_calls == 9


def test_other_words_are_other_settings(clips, tmp_path):
    evaluate(clips, tmp_path, shots=(2,), rename=RENAME)
    other = EpisodeNames(RENAME.verb_words, ["blip", "blop", "zup", "modi"], share=1.0)
    with pytest.raises(ValueError, match="in_context-2 has predictions of other settings: fingerprints.prompts "):
        evaluate(clips, tmp_path, shots=(2,), rename=other)


def test_several_trainings_are_asked_the_same_and_a_rule_once(clips, tmp_path):
    settings = {"shots": (2,), "conditions": ("in_context", "majority")}
    for training_seed in (5, 7):
        evaluate(clips, tmp_path / str(training_seed), training_seed=training_seed, **settings)
    records = read_records([tmp_path])
    assert [(record["model"], record["seed"]) for record in records] == [("reader", 5), ("none", 3), ("reader", 7)]
    assert [record["settings"].get("queries_seed") for record in records] == [3, None, 3]
    first, second = (read_predictions(tmp_path / name / "in_context-2") for name in "57")
    assert first == second
    # Of another seed's queries it is another rule's answer.
    evaluate(clips, tmp_path / "other", training_seed=8, seed=4, **settings)
    assert ("none", 4) in [(record["model"], record["seed"]) for record in read_records([tmp_path])]
