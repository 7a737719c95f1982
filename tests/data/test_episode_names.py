"""New words for an episode's verbs and nouns: one for each, wherever it is said, and nothing else changed."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from transformers_eilev.data import (
    EpisodeNames,
    InContextDataset,
    InContextSampler,
    KnownWords,
    SyntheticConfig,
    clean_narration_text,
    words_by_label,
)
from transformers_eilev.data.synthetic.narration import choose_words, narrate
from transformers_eilev.data.synthetic.script import write_script
from transformers_eilev.data.synthetic.world import World


@cache
def synthetic_rows(**options):
    """Valid actions of the synthetic set as rows, and of each the words that its narrator used."""
    world = World(SyntheticConfig(seed=5, made_up_verbs=3, made_up_nouns=3, **options))
    rows = []
    for number in range(12):
        script = write_script(world, number)
        words = choose_words(world, script)
        for action in script.actions:
            said = narrate(world, script, words, action)
            if not said.quirk:
                rows.append(
                    {
                        "frame_path": f"{number}|{action.index}",
                        "narration_text": said.text,
                        "structured_verb": said.structured_verb,
                        "structured_noun": said.structured_noun,
                        "said": (said.verb_word, said.noun_word),
                    }
                )
    return world.config, rows


@pytest.mark.parametrize("homonyms", [0.0, 1.0])
def test_known_words_are_those_that_synthetic_narrators_used(homonyms):
    config, rows = synthetic_rows(homonyms=homonyms)
    find = KnownWords.of_synthetic(config)
    left_open = 0
    for row in rows:
        narration = clean_narration_text(row["narration_text"])
        verb, noun = row["said"]
        left_open += " something" in narration
        assert find(row, narration) == (verb, "" if " something" in narration else noun), narration
    assert len(rows) > 200 and 0 < left_open < 20


VERB_WORDS, NOUN_WORDS = [f"daxes{i}" for i in range(17)], [f"fep{i}" for i in range(17)]


@pytest.mark.parametrize("homonyms", [0.0, 1.0])
def test_each_verb_and_noun_has_one_word_in_an_episode(homonyms):
    config, rows = synthetic_rows(homonyms=homonyms)
    names = EpisodeNames(VERB_WORDS, NOUN_WORDS, share=1.0, find=KnownWords.of_synthetic(config))
    words = [[row[name] for row in rows] for name in ("structured_verb", "structured_noun")]
    sampler = InContextSampler(*words, num_examples=16)
    dataset = InContextDataset(rows, sampler, rename=names)
    plain = InContextDataset(rows, sampler)
    changed, vocabularies = 0, set()
    for index in range(0, len(rows), 3):
        episode = [*(rows[row] for row in sampler.sample(index)), rows[index]]
        words = {}
        for row, before, after in zip(episode, plain.narrations(index), dataset.narrations(index), strict=True):
            changed += after != before
            verb_text, noun_text = row["said"]
            new_verb, new_noun = re.search(r"daxes\d+", after), re.search(r"fep\d+", after)
            # All but the two words is as it was, but for the article before them.
            rest = before if new_verb is None else before.replace(verb_text, new_verb.group(), 1)
            rest = rest if new_noun is None else re.sub(rf"\ban? {noun_text}\b", f"a {noun_text}", rest)
            assert after == (rest if new_noun is None else rest.replace(noun_text, new_noun.group(), 1))
            is_query = row is episode[-1]
            for kind, label, new in (
                ("v", row["structured_verb"], new_verb),
                ("n", row["structured_noun"], new_noun),
            ):
                if label in (None, "[other]") or (kind == "n" and " something" in before):
                    continue
                assert new or is_query, after
                key = kind, label
                if is_query:
                    assert (new is None) == (key not in words), "what the context lacks can't be guessed"
                if new:
                    assert words.setdefault(key, new.group()) == new.group()
        assert len(set(words.values())) == len(words) > 3
        vocabularies.add(tuple(sorted(words.items(), key=str)))
    assert changed > 1000 and len(vocabularies) == len(range(0, len(rows), 3))


def episode_of(*rows):
    rows = [
        {"frame_path": f"v|{i}", "structured_verb": verb, "structured_noun": noun, "narration_text": text}
        for i, (verb, noun, text) in enumerate(rows)
    ]
    return [row["narration_text"] for row in rows], rows


def test_new_words_stand_wherever_the_old_ones_did():
    episode = episode_of(
        ("take_(pick,_grab,_get)", "apple", "The camera wearer picks up an apple."),
        ("take_(pick,_grab,_get)", "knife", "The camera wearer takes a Knife from the apple."),
        ("cut", "apple", "The camera wearer cuts an old apple with an apple knife."),
        ("[other]", "", "The camera wearer cuts apples."),
        ("take_(pick,_grab,_get)", "cup_(cup,_mug)", "The camera wearer picks up a unicorn mug."),
    )
    for seed in range(10):
        renamed = EpisodeNames(["daxes", "oofs"], ["fep", "ulm"], share=1)(*episode, np.random.default_rng(seed))
        take, cut = re.findall("daxes|oofs", " ".join(renamed[::2]))[:2]
        apple, knife = re.search(r"(fep|ulm)\.", renamed[0])[1], re.search(r"(fep|ulm) from", renamed[1])[1]
        assert {take, cut} == {"daxes", "oofs"} and {apple, knife} == {"fep", "ulm"}
        article = {"fep": "a", "ulm": "an"}
        assert renamed == [
            f"The camera wearer {take} {article[apple]} {apple}.",
            f"The camera wearer {take} {article[knife]} {knife} from the {apple}.",
            f"The camera wearer {cut} an old {apple} with {article[apple]} {apple} {knife}.",
            f"The camera wearer {cut} apples.",
            f"The camera wearer {take} a unicorn mug.",
        ]


def test_words_that_are_unclear_are_left_to_their_own_actions():
    def rename(names, *rows, seed=0):
        return names(*episode_of(*rows), np.random.default_rng(seed))

    # A query's word that the context lacks means nothing else there.
    kept = ("open", "cup", "Opens a cup."), ("cut", "cup", "Cuts a cup.")
    names = EpisodeNames(["daxes", "cuts"], ["fep"], share=1)
    assert all(rename(names, *kept, seed=seed) == ["daxes a fep.", "Cuts a fep."] for seed in range(10))
    # Without a label, by what it is called.
    unlabelled = ("[other]", "cup", "Cuts a cup."), ("cut", "cup", "Cuts the cup.")
    known = EpisodeNames(["daxes"], ["fep"], share=1, find=KnownWords(["cuts"], ["cup"]))
    assert rename(known, *unlabelled) == ["daxes a fep.", "daxes the fep."]
    # One word for two things: which is meant elsewhere can't be known.
    homonyms = [
        ("cut", "cup", "Cuts a mug."),
        ("cut", "bowl", "Cuts a mug."),
        ("cut", "pan", "Cuts a pan with a mug."),
    ]
    names = EpisodeNames(["daxes"], ["fep", "lup", "mib"], share=1, find=KnownWords(["cuts"], ["mug", "pan"]))
    first, second, third = rename(names, *homonyms, homonyms[0])[:3]
    assert first != second and re.fullmatch("daxes a (fep|lup|mib) with a mug.", third)


def test_a_share_of_the_episodes_gets_new_words():
    episode = episode_of(("cut", "cup", "Cuts a cup."), ("cut", "cup", "Cuts the cup."))
    names = EpisodeNames(["daxes"], ["fep"], share=0.7)
    results = Counter(tuple(names(*episode, np.random.default_rng(seed))) for seed in range(1000))
    assert set(results) == {("Cuts a cup.", "Cuts the cup."), ("daxes a fep.", "daxes the fep.")}
    assert 640 < results["daxes a fep.", "daxes the fep."] < 760
    assert EpisodeNames(["daxes"], ["fep"], share=0)(*episode, np.random.default_rng(0)) == episode[0]
    alone = episode_of(("cut", "cup", "Cuts a cup."))
    assert EpisodeNames(["daxes"], ["fep"], share=1)(*alone, np.random.default_rng(0)) == alone[0]


def test_a_narration_without_its_words_is_named_or_left():
    rows = ("cut", "cup", "Cuts a cup."), ("cut", "pan", "Slices the pan."), ("cut", "cup", "Cuts the cup.")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'v\|1', 'Slices the pan.', does not say its verb, 'cut'.*skip_missing"):
        EpisodeNames(["daxes"], ["fep", "mub"], share=1)(*episode_of(*rows), rng)
    renamed = EpisodeNames(["daxes"], ["fep", "mub"], share=1, skip_missing=True)(*episode_of(*rows), rng)
    assert renamed in (
        ["daxes a fep.", "Slices the mub.", "daxes the fep."],
        ["daxes a mub.", "Slices the fep.", "daxes the mub."],
    )
    with pytest.raises(ValueError, match="does not say its noun, 'cup'"):
        EpisodeNames(["daxes"], ["fep"], share=1, find=lambda *_: ("Cuts", "mug"))(*episode_of(rows[0]), rng)
    with pytest.raises(ValueError, match="2 nouns, but `noun_words` has 1 words"):
        EpisodeNames(["daxes"], ["fep"], share=1, skip_missing=True)(*episode_of(*rows), rng)


@pytest.mark.parametrize(
    "verb, noun, narration, expected",
    [
        ("turn_off_(turn_off,_switch_off)", "tap", "She turns off the taps.", ("turns off", "taps")),
        ("put-down", "board:chopping", "She puts down the chopping board.", ("puts down", "chopping board")),
        ("cut", "onion_(leek,_onion,_spring_onion)", "She cuts a spring onion", ("cuts", "spring onion")),
        ("take", "hand", "With a hand she takes it.", ("takes", "hand")),
        ("take", "hand", "She takes something.", ("takes", "")),
        (None, "cup", "She cups the cup.", ("", "cups")),
        ("[other]", "cup", "She drinks a mug.", ("", None)),
        ("hammer", "hammer", "She hammers the hammer.", ("hammers", "hammer")),
        ("hammer", "hammer", "She hammers.", ("hammers", None)),
    ],
)
def test_words_are_found_by_label(verb, noun, narration, expected):
    assert words_by_label({"structured_verb": verb, "structured_noun": noun}, narration) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"share": 1.1}, "share"),
        ({"verb_words": "daxes"}, "`verb_words`"),
        ({"noun_words": [""]}, "`noun_words`"),
        ({"noun_words": ["fep", "daxes"]}, "'daxes' twice"),
    ],
)
def test_names_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        EpisodeNames(**{"verb_words": ["daxes"], "noun_words": ["fep"], **arguments})
