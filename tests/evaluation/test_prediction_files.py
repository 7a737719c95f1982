"""Predictions of others: what is wrong with them is said, and nothing is dropped."""

import json

import pytest
from made_clips import make_rows

from transformers_eilev.evaluation.prediction_files import load_predictions


ROWS = make_rows(4)


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_references_are_the_clips_narrations(tmp_path):
    lines = [{"query": row["frame_path"], "narration": ""} for row in ROWS[:3]]
    predictions, counts = load_predictions(write(tmp_path / "theirs.jsonl", lines), ROWS)
    assert [line["reference"] for line in predictions[:2]] == [
        "The camera wearer washes the cup.",
        "The camera wearer cuts the door.",
    ]
    assert [line["narration"] for line in predictions] == ["", "", ""]
    assert counts == {"num_clips_without_prediction": 1}


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], "theirs.jsonl has no prediction"),
        ([{"query": "video_0|0"}], r"line 1: `narration` must be a text, but is None"),
        (
            [{"query": "video_0|0", "narration": "a"}, {"query": "train|9", "narration": "b"}],
            r"predictions of another split: 1 of 2 are of clips that are not among the 4, the first in line 2: "
            r"`query` 'train\|9'",
        ),
        ([{"query": "video_0|1", "narration": "a"}] * 2, r"has 2 predictions of the clip 'video_0\|1'"),
    ],
)
def test_what_cannot_be_joined(tmp_path, lines, error):
    with pytest.raises(ValueError, match=error):
        load_predictions(write(tmp_path / "theirs.jsonl", lines), ROWS)


def test_without_clips_each_needs_its_reference(tmp_path):
    lines = [{"narration": "a", "reference": "b"}, {"narration": "a", "reference": " "}]
    with pytest.raises(ValueError, match=r"line 2: `reference` must be a narration, but is ' '"):
        load_predictions(write(tmp_path / "theirs.jsonl", lines))
    assert load_predictions(write(tmp_path / "theirs.jsonl", lines[:1])) == (lines[:1], {})
