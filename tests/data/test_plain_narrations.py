"""Sentences of a verb and a noun, and all others."""

import pytest

from transformers_eilev.data.plain_narrations import build_narration, parse_narration


@pytest.mark.parametrize(
    ("narration", "words"),
    [
        ("The camera wearer picks up the left glove.", ("picks up", "left glove")),
        ("The camera wearer cuts the carrot", ("cuts", "carrot")),
        ("The camera wearer puts the lid on the pot.", ("puts", "lid on the pot")),
        ("The camera wearer cuts a carrot.", None),
        ("The camera wearer cuts the", None),
        ("The camera wearer cuts the .", None),
        ("The camera wearer  cuts the carrot.", None),
        ("the camera wearer cuts the carrot.", None),
        ("Answer: The camera wearer cuts the carrot.", None),
        ("The camera wearer cuts the carrot.\nQuestion:", None),
        ("", None),
    ],
)
def test_a_narration_is_parsed_or_refused(narration, words):
    assert parse_narration(narration) == words


@pytest.mark.parametrize("words", [("washes", "cup"), ("picks up", "left glove"), ("puts", "lid on the pot")])
def test_what_is_built_is_parsed(words):
    assert parse_narration(build_narration(*words)) == words
