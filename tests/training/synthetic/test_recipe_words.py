"""Worlds, words and tokens of the recipe of the embedded checkpoints."""

import numpy as np
import pytest
from recipe.tokenizer import NUM_QUERY_TOKENS, build_processor, build_tokenizer
from recipe.worlds import NOVEL_WORLD, QUESTIONS, TRAIN_WORLD, make_words, novel_rows, split_clips

from transformers_eilev.data.synthetic.world import NOUNS, VERBS, World


WORDS = make_words()
SAYS = "The camera wearer picks up the cup."


def test_nothing_that_is_made_up_in_one_world_is_in_the_other():
    known = {noun.name for noun in NOUNS}, {verb.name for verb in VERBS}
    train, novel = World(TRAIN_WORLD), World(NOVEL_WORLD)
    shapes = [{noun.shape for noun in world.nouns} - {-1} for world in (train, novel)]
    assert not shapes[0] & shapes[1] and len(shapes[0]) == 120 and len(shapes[1]) == 16
    for kind, own in zip(("nouns", "verbs"), known):
        made_up = [{thing.name for thing in getattr(world, kind)} - own for world in (train, novel)]
        assert not made_up[0] & made_up[1]


def test_each_word_is_in_one_list_and_names_what_it_should():
    lists = [WORDS.verb_words, WORDS.noun_words, WORDS.spare_verb_words, WORDS.spare_noun_words]
    together = [word for words in lists for word in words]
    assert len(set(together)) == len(together)
    for world in (World(TRAIN_WORLD), World(NOVEL_WORLD)):
        said = {third for verb in world.verbs for third, _ in verb.words}
        assert said <= set(WORDS.verb_words) and not said & set(WORDS.spare_verb_words)
        assert not {word for noun in world.nouns for word in noun.words} & set(WORDS.spare_noun_words)


@pytest.mark.parametrize("family", ["opt", "t5"])
def test_words_and_questions_are_one_token_each_and_the_rest_is_not_lost(family):
    tokenizer = build_tokenizer(family, WORDS)
    for text in (*QUESTIONS, *(f" {word}" for word in (*WORDS.verb_words, *WORDS.spare_noun_words)), " the", "\n"):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1, text
    odd = " The camera wearer Éats the cupboard, 3 × …\n"
    assert tokenizer.decode(tokenizer(odd, add_special_tokens=False)["input_ids"]) == odd


def test_a_demonstration_of_opt_is_a_dozen_tokens_as_the_language_model_is_taught():
    processor = build_processor("opt", WORDS)
    encoded = processor.encode([f"<video>{QUESTIONS[0]} {SAYS}", f"<video>{QUESTIONS[1]}"], SAYS)
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    clip = ["<video>"] * NUM_QUERY_TOKENS + ["\n"]
    said = [" The camera wearer", " picks up", " the", " cup", ".", "\n"]
    assert tokens == ["<s>", *clip, QUESTIONS[0], *said, *clip, QUESTIONS[1], *said, "</s>"]


def test_the_target_of_t5_begins_without_a_space():
    processor = build_processor("t5", WORDS)
    encoded = processor.encode([f"<video>{QUESTIONS[0]}"], SAYS)
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded["labels"])
    assert tokens == ["The camera wearer", " picks up", " the", " cup", ".", "</s>"]
    assert processor.tokenizer.decode(encoded["labels"], skip_special_tokens=True) == SAYS


def test_unknown_families_are_refused():
    with pytest.raises(ValueError, match="family must be opt or t5, got 'bert'"):
        build_tokenizer("bert", WORDS)


class _Clips(dict):
    """Columns of clips."""


def _clips(number=4000):
    rng, world = np.random.default_rng(0), World(TRAIN_WORLD)
    return _Clips(
        structured_verb=[world.verbs[v].structured for v in rng.integers(18, size=number)],
        structured_noun=[world.nouns[n].structured for n in rng.integers(40, size=number)],
        video_uid=[f"video{v}" for v in rng.integers(100, size=number)],
    )


def test_held_out_pairs_are_never_trained_on_but_their_verbs_and_nouns_are():
    clips = _clips()
    rows = split_clips(clips)
    assert sorted(row for part in rows.values() for row in part) == list(range(4000))
    pairs = {
        name: {(clips["structured_verb"][row], clips["structured_noun"][row]) for row in part}
        for name, part in rows.items()
    }
    assert pairs["pairs"] and not pairs["pairs"] & (pairs["train"] | pairs["val"])
    for place in (0, 1):
        assert {pair[place] for pair in pairs["pairs"]} <= {pair[place] for pair in pairs["train"]}
    videos = {name: {clips["video_uid"][row] for row in part} for name, part in rows.items()}
    assert not videos["train"] & videos["val"]


def test_novel_clips_are_of_things_that_have_no_name_elsewhere():
    clips = {"structured_noun": ["cup_(cup,_mug,_tumbler)", "zib", "apple", "mop"]}
    assert novel_rows(clips) == [1, 3]
