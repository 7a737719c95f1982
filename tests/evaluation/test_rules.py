"""What is said without looking, on contexts whose answers are plain."""

from collections import Counter

import numpy as np
import pytest

from transformers_eilev.evaluation.rules import say_frequent_action, say_unseen_pair


CONTEXT = ["The camera wearer cuts the cup.", "The camera wearer cuts the door.", "The camera wearer opens the cup."]


def answers(rule, context):
    rows = [{"structured_verb": "", "structured_noun": ""}] * len(context)
    return Counter(rule(context, rows, np.random.default_rng(seed)) for seed in range(40))


def test_the_most_frequent_words_and_those_that_do_not_stand_together():
    assert answers(say_frequent_action, CONTEXT) == {"The camera wearer cuts the cup.": 40}
    assert answers(say_unseen_pair, CONTEXT) == {"The camera wearer opens the door.": 40}


def test_ties_are_drawn():
    """Of the verbs and of the nouns, each by itself; but a pair that stands there is not to be said again."""
    said = answers(say_frequent_action, CONTEXT[1:])
    pairs = {f"The camera wearer {verb} the {noun}." for verb in ("cuts", "opens") for noun in ("cup", "door")}
    assert set(said) == pairs and min(said.values()) > 3
    said = answers(say_unseen_pair, CONTEXT[1:])
    assert set(said) == {"The camera wearer cuts the cup.", "The camera wearer opens the door."}
    assert min(said.values()) > 9


def test_where_all_pairs_stand_together_the_most_frequent_words_are_said():
    assert answers(say_unseen_pair, CONTEXT[:1]) == {CONTEXT[0]: 40}


def test_no_pair_is_made_of_other_sentences():
    with pytest.raises(ValueError, match="`unseen_pair` needs plain narrations, but one is 'cuts a cup'"):
        answers(say_unseen_pair, [CONTEXT[0], "cuts a cup"])
