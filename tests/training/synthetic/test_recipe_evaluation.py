"""What the trained models are asked, and what is made of their answers: with models whose answers are known."""

import datasets
import pytest
from recipe.card import make_card
from recipe.evaluation import ASKED, ask, name_of_model

from transformers_eilev.data import EpisodeNames
from transformers_eilev.evaluation.prediction_journal import read_predictions
from transformers_eilev.evaluation.records import read_records, summarize


VERBS, NOUNS = ["wipe", "cut", "open", "take"], ["cup", "carrot", "door", "spoon"]
SHOTS, NUM_QUERIES = (0, 2), 10
RENAME = EpisodeNames(["daxes", "wugs", "blicks", "gorps"], ["toma", "fep", "zup", "modi"], share=1.0)
SETS = ("new pairs", "new nouns")
WORDS = ("own words", "words of one prompt")


def clips_of(prefix):
    """Of each verb with each noun three clips."""
    pairs = [(verb, noun) for verb in VERBS for noun in NOUNS for _ in range(3)]
    return datasets.Dataset.from_list(
        [
            {
                "frame_path": f"{prefix}|{index}",
                "narration_text": f"#C C {verb}s the {noun}",
                "structured_verb": verb,
                "structured_noun": noun,
            }
            for index, (verb, noun) in enumerate(pairs)
        ]
    )


class Parrot:
    """Says of every clip the same."""

    def __init__(self, name, says):
        self.name, self.says = name, says

    def load_clip(self, row):
        return row["frame_path"]

    def fingerprint(self):
        return f"{self.name}, {self.says}"

    def __call__(self, samples):
        return [self.says] * len(samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two trainings of EILEV, who say one thing each, and one of the control."""
    folder = tmp_path_factory.mktemp("recipe")
    sets = {"pairs": (clips_of("pairs"), clips_of("train")), "novel": (clips_of("novel"), clips_of("novel"))}
    for method, seed in (("eilev", 0), ("eilev", 1), ("control", 0)):
        verb = {0: "cuts", 1: "swims"}[seed]
        ask(
            Parrot(name_of_model(method, "opt"), f"The camera wearer {verb} the carrot."),
            sets,
            folder / f"{method}-{seed}",
            asked=ASKED[method],
            rename=RENAME,
            questions=["Q?"],
            shots=SHOTS,
            num_queries=NUM_QUERIES,
            training_seed=seed,
        )
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return read_records([folder])


def test_each_is_asked_of_both_sets_in_both_words(records):
    asked = {}
    for record in records:
        name = record["model"], record["seed"]
        asked.setdefault(name, set()).add((record["dataset"], record["condition"], record["shots"]))
        assert record["num_queries"] == NUM_QUERIES and set(record["metrics"]) == {"exact", "verb", "noun"}
    balanced = {("in_context", 0), ("in_context", 2), ("text_only", 2)}
    for_all = {(f"{name}, {words}", *run) for name in SETS for words in WORDS for run in balanced}
    more = {(f"{name}, {words}", "shuffled", 2) for name in SETS for words in WORDS}
    as_trained = {("in_context", 2), ("shuffled", 2)}
    more |= {(f"{name}, {words}, EILEV's contexts", *run) for name in SETS for words in WORDS for run in as_trained}
    assert asked["VideoBLIP (OPT)", 0] == for_all
    assert asked["EILEV (OPT)", 0] == asked["EILEV (OPT)", 1] == for_all | more
    # What words alone tell, once.
    assert {name for name in asked if name[0] == "none"} == {("none", 0)}
    assert {run[1] for run in asked["none", 0]} == {"unseen_pair", "majority"}
    assert len(asked["none", 0]) == 2 * len(SETS) * len(WORDS)


def test_everyone_is_asked_about_the_same_clips(folder):
    for name in ("pairs", "novel"):
        runs = [path for path in folder.glob(f"*/{name}-*/*") if path.is_dir()]
        assert len({tuple(line["query"] for line in read_predictions(run)) for run in runs}) == 1
    # Words of one prompt are others, contexts are the same.
    own, new = (read_predictions(folder / f"eilev-0/pairs-{words}-balanced/in_context-2") for words in ("own", "new"))
    assert [line["context"] for line in own] == [line["context"] for line in new]
    assert all(line["context"][0].startswith("train|") and line["query"].startswith("pairs|") for line in own)
    assert all("toma" not in line["reference"] for line in own)
    assert {line["reference"].split()[3] for line in new} <= set(RENAME.verb_words)


def test_no_query_stands_in_its_own_context(folder):
    """Though both are of one set."""
    for run in folder.glob("eilev-0/novel-own-*/*-2"):
        for line in read_predictions(run):
            assert line["query"] not in line["context"] and len({*line["context"]}) == 2


def test_means_are_over_trainings(records):
    cells = [cell for cell in summarize(records, "verb") if cell.dataset == "new nouns, own words"]
    cells = {(cell.model, cell.condition, cell.shots): cell for cell in cells}
    first = next(
        record["metrics"]["verb"]["value"]
        for record in records
        if (record["dataset"], record["condition"], record["shots"]) == ("new nouns, own words", "in_context", 2)
        and (record["model"], record["seed"]) == ("EILEV (OPT)", 0)
    )
    eilev = cells["EILEV (OPT)", "in_context", 2]
    # Nobody swims.
    assert eilev.num_seeds == 2 and eilev.min == 0 and eilev.max == first > 0 and eilev.mean == first / 2
    assert cells["VideoBLIP (OPT)", "in_context", 2].mean == first
    rule = cells["none", "unseen_pair", 2]
    assert rule.num_seeds == 1 and rule.interval is not None


def test_a_card_has_its_own_models_numbers(records):
    cells = [cell for metric in ("exact", "verb") for cell in summarize(records, metric)]
    card = make_card("control", "opt", 0, cells)
    assert card.startswith("---\nlicense: mit\n") and "# VideoBLIP on rendered video, with a small OPT\n" in card
    assert card.count("| VideoBLIP (OPT) | clips and narrations |") == len(SETS) * len(WORDS)
    assert card.count("| no model | ") == 2 * len(SETS) * len(WORDS)
    assert "EILEV (OPT)" not in card and "**Exact narrations (share)**" in card and "Right verbs" not in card
    card = make_card("eilev", "opt", 0, cells)
    assert card.count("| EILEV (OPT) | clips and narrations |") == 2 * len(SETS) * len(WORDS)
    assert "**, generation of new nouns, words of one prompt, EILEV's contexts, by number of shots" in card
    assert "VideoBLIP" not in card
