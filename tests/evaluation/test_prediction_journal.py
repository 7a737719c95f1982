"""Predictions that many processes write, that are killed at it and go on: each is there once, at the end."""

import json

import pytest

from transformers_eilev.evaluation.prediction_journal import PredictionJournal, read_predictions


EXPECTED = [{"index": index, "query": f"clip|{index}", "reference": f"The ☕ {index}."} for index in range(23)]
SETTINGS = {"model": "some", "shots": 4, "fingerprints": {"model": "a" * 64}}


def journal_in(folder, expected=EXPECTED, **settings):
    given = {"batch_size": 4, **settings}
    changed = {name: given.pop(name) for name in list(given) if name not in ("batch_size", "overwrite")}
    return PredictionJournal(folder, expected, {**SETTINGS, **changed}, **given)


class Predictor:
    """Says what depends on the whole batch, as a padded model does; may fail at its n-th batch."""

    def __init__(self, fails_at=None):
        self.batches, self.fails_at = [], fails_at

    def __call__(self, indices):
        if len(self.batches) == self.fails_at:
            raise KeyboardInterrupt
        self.batches.append(list(indices))
        return [{"narration": f"{index} of {list(indices)}"} for index in indices]


def run(folder, num_processes=1, **settings):
    journals = [journal_in(folder, **settings) for _ in range(num_processes)]
    missing = journals[0].prepare()
    for rank, journal in enumerate(journals):
        journal.complete(missing[rank::num_processes], Predictor(), rank=rank)
    return journals[0].finish()


def test_all_predictions_in_order(tmp_path):
    predictions = run(tmp_path / "run")
    assert [line["index"] for line in predictions] == list(range(23))
    assert predictions[9]["narration"] == "9 of [8, 9, 10, 11]" and predictions[9]["query"] == "clip|9"
    assert predictions == read_predictions(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["predictions.jsonl", "settings.json"]


@pytest.mark.parametrize("num_processes", [2, 3, 8])
def test_processes_make_what_one_makes(tmp_path, num_processes):
    run(tmp_path / "one")
    run(tmp_path / "many", num_processes)
    files = [tmp_path / name / "predictions.jsonl" for name in ("one", "many")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_a_run_that_was_killed_goes_on(tmp_path, num_processes):
    run(tmp_path / "whole")
    folder = tmp_path / "killed"
    journal = journal_in(folder)
    missing = journal.prepare()
    for rank, fails_at in ((0, 2), (1, 1)):
        with pytest.raises(KeyboardInterrupt):
            journal.complete(missing[rank::2], Predictor(fails_at), rank=rank)
    with open(folder / "predictions.part-1.jsonl", "ab") as file:
        file.write(json.dumps({**EXPECTED[12], "narration": "12 of [12, 13, 14, 15]"}).encode() + b"\n")
        file.write(b'{"index": 13, "que')
    predictor, again = Predictor(), journal_in(folder)
    # Batches 0 and 2 were of process 0, 1 of process 1; of the fourth one line is there.
    missing = again.prepare()
    assert missing == [range(12, 16), range(16, 20), range(20, 23)]
    for rank in range(num_processes):
        again.complete(missing[rank::num_processes], predictor, rank=rank)
    assert sorted(predictor.batches) == [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22]]
    again.finish()
    files = [tmp_path / name / "predictions.jsonl" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_done_is_not_done_again(tmp_path):
    run(tmp_path)
    journal = journal_in(tmp_path)
    assert journal.prepare() == [] and len(journal.finish()) == 23


def test_other_settings_are_told_apart(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"other settings: shots \(shots was 4, is 8\)"):
        journal_in(tmp_path, shots=8).prepare()
    with pytest.raises(ValueError, match=r"other settings: batch_size"):
        journal_in(tmp_path, batch_size=5).prepare()
    fingerprints = {"model": "b" * 64}
    with pytest.raises(ValueError, match=r"other settings: fingerprints.model \(fingerprints.model was aaa"):
        journal_in(tmp_path, fingerprints=fingerprints).prepare()
    assert len(journal_in(tmp_path, shots=8, overwrite=True).prepare()) == 6
    (tmp_path / "settings.json").unlink()
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(ValueError, match="no settings.json that says of what"):
        journal_in(tmp_path).prepare()


def test_predictions_of_other_samples_are_refused(tmp_path):
    run(tmp_path)
    others = [{**line, "query": f"other|{line['index']}"} for line in EXPECTED]
    journal = journal_in(tmp_path, others)
    journal.prepare()
    with pytest.raises(ValueError, match=r"prediction 0 is of another sample: `query` is 'clip\|0', not 'other\|0'"):
        journal.finish()
    fewer = journal_in(tmp_path, EXPECTED[:20])
    with pytest.raises(ValueError, match="has 23 predictions, but there are 20 samples"):
        fewer.finish()


def test_what_is_missing_is_said(tmp_path):
    journal = journal_in(tmp_path)
    missing = journal.prepare()
    journal.complete(missing[0::2], Predictor())
    with pytest.raises(ValueError, match="11 of 23 predictions are missing, the first is 4"):
        journal.finish()
    with pytest.raises(ValueError, match="4 predictions are wanted, but 1 were made"):
        journal.complete(missing[1::2], lambda indices: [{"narration": ""}], rank=1)


def test_what_is_no_prediction_is_named(tmp_path):
    journal = journal_in(tmp_path)
    journal.prepare()
    part = tmp_path / "predictions.part-0.jsonl"
    part.write_text("nonsense\n")
    with pytest.raises(ValueError, match=r"part-0.jsonl, line 1: no JSON object: b'nonsense'"):
        journal.prepare()
    part.write_text('{"index": 99}\n')
    with pytest.raises(ValueError, match="index is 99, of 23 samples"):
        journal.prepare()
