"""Verbs are motions, nouns are appearances, and words are what a narrator makes of them."""

import dataclasses
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from transformers_eilev.data.synthetic import SyntheticConfig
from transformers_eilev.data.synthetic.actions import stage
from transformers_eilev.data.synthetic.narration import choose_words, narrate
from transformers_eilev.data.synthetic.objects import draw_object
from transformers_eilev.data.synthetic.rendering import Renderer
from transformers_eilev.data.synthetic.script import write_script
from transformers_eilev.data.synthetic.world import NOUNS, VERBS, World


TINY = SyntheticConfig(hours=36 / 3600, video_sec=12, action_sec=3, image_size=64, fps=5, seed=7)


# --------------------------------------------------------------------------------------------- motions and appearances


def action_frames(world, verb, noun, phases, side=1):
    """Frames of one action at given phases, seen by a camera that does not move."""
    renderer = Renderer(world, write_script(world, 0))
    action = renderer.script.actions[0]
    staging = dataclasses.replace(action.staging, side=side)
    action = dataclasses.replace(action, verb=verb, noun=noun, staging=staging)
    return [
        renderer.compose([(action, layer) for layer in renderer.layers(action, phase)], renderer.still_camera(action))
        for phase in phases
    ]


PHASES = [number / 16 for number in range(17)]
INDEX = {verb.name: number for number, verb in enumerate(VERBS)}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.backwards], ids=lambda verb: verb.name)
def test_one_frame_does_not_tell_a_verb_from_its_reversal(verb):
    world = World(TINY)
    noun = next(number for number, noun in enumerate(NOUNS) if not verb.needs or verb.needs in noun.traits)
    forwards = action_frames(world, INDEX[verb.name], noun, PHASES)
    backwards = action_frames(world, INDEX[verb.backwards], noun, PHASES)
    np.testing.assert_array_equal(np.stack(forwards), np.stack(backwards[::-1]))
    # Their order does.
    assert np.abs(np.stack(forwards).astype(int) - np.stack(backwards)).mean() > 1
    assert next(other for other in VERBS if other.name == verb.backwards).backwards == verb.name


def test_motions_are_told_apart_by_their_frames():
    """With one object, in one place, on one table: no two verbs show the same film."""
    world = World(dataclasses.replace(TINY, made_up_verbs=3))
    films = [np.stack(action_frames(world, verb, 0, PHASES)).astype(int) for verb in range(len(world.verbs))]
    for one in range(len(films)):
        for other in range(one):
            assert np.abs(films[one] - films[other]).mean() > 0.5, (world.verbs[one].name, world.verbs[other].name)


def test_the_left_hand_does_it_mirrored():
    staging = write_script(World(TINY), 0).actions[0].staging
    motion = VERBS[INDEX["cut"]].motion
    right, left = (stage(motion, 0.5, dataclasses.replace(staging, side=side)) for side in (1, -1))
    assert [(layer.x, layer.y, layer.angle) for layer in left] == [
        (-layer.x, layer.y, -layer.angle) for layer in right
    ]
    hands = [[layer.sprite for layer in layers if layer.sprite.startswith("hand")] for layers in (right, left)]
    assert hands == [["hand:left:flat", "hand:right:fist"], ["hand:right:flat", "hand:left:fist"]]


def test_nouns_look_different_and_so_do_their_looks():
    world = World(dataclasses.replace(TINY, made_up_nouns=3))
    seen = set()
    for noun, looks in zip(world.nouns, world.looks):
        assert len(looks) == TINY.looks_per_noun
        sprites = [draw_object(noun, look, 48) for look in looks]
        assert all(np.asarray(sprite)[..., 3].mean() > 15 for sprite in sprites)
        # A shape of its own, whatever its colours.
        assert len({sprite.getchannel("A").tobytes() for sprite in sprites}) == 1
        seen.add(sprites[0].getchannel("A").tobytes())
        assert len({sprite.tobytes() for sprite in sprites}) >= min(3, len(noun.colours or looks))
    assert len(seen) == len(world.nouns)


def test_a_noun_comes_in_several_looks_and_places():
    world = World(SyntheticConfig(hours=4, seed=1))
    looks, places = defaultdict(set), defaultdict(set)
    for number in range(20):
        script = write_script(world, number)
        for action in script.actions:
            looks[action.noun].add(action.look)
            places[action.noun].add(script.places[action.station])
    assert min(map(len, looks.values())) > 1 and min(map(len, places.values())) > 3


# ---------------------------------------------------------------------------------------------- how often, what word


@pytest.mark.parametrize("skew", [0.0, 1.2])
def test_verbs_and_nouns_follow_zipf(skew):
    config = SyntheticConfig(hours=16, verb_skew=skew, noun_skew=0.7, plausible=False, rare_pairs=0)
    world = World(config)
    verbs, nouns = Counter(), Counter()
    for number in range(100):
        for action in write_script(world, number).actions:
            verbs[action.verb] += 1
            nouns[action.noun] += 1
    for counts, exponent, kinds in ((verbs, skew, len(VERBS)), (nouns, 0.7, len(NOUNS))):
        ordered = np.array(sorted(counts.values(), reverse=True))
        assert len(ordered) == kinds
        slope = -np.polyfit(np.log(np.arange(1, kinds + 1)), np.log(ordered), 1)[0]
        assert slope == pytest.approx(exponent, abs=0.15)


def test_rare_pairs_are_rare():
    plain = World(SyntheticConfig(rare_pairs=0)).pair_weights
    world = World(SyntheticConfig(rare_pairs=10, rare_pair_weight=0.01))
    assert len(world.rare_pairs) == 10
    ratio = world.pair_weights[plain > 0] / plain[plain > 0]
    assert (ratio < 0.02).sum() == 10 and world.pair_weights.sum() == pytest.approx(1)


def test_nobody_pours_bread():
    world = World(SyntheticConfig())
    noun = [noun.name for noun in NOUNS].index("bread")
    assert world.pair_weights[INDEX["pour"], noun] == 0 < world.pair_weights[INDEX["cut"], noun]
    assert World(SyntheticConfig(plausible=False)).pair_weights.min() > 0


def words_of(config, videos=30):
    """For each verb the words it was called by, and for each word the verbs it was used for."""
    world = World(config)
    words, meanings = defaultdict(set), defaultdict(set)
    for number in range(videos):
        script = write_script(world, number)
        vocabulary = choose_words(world, script)
        for action in script.actions:
            said = narrate(world, script, vocabulary, action)
            words[action.verb].add(said.verb_word)
            meanings[said.verb_word].add(action.verb)
            if "#Unsure" not in said.text:
                assert said.verb_word in said.text and said.noun_word in said.text
    return words, meanings


def test_synonyms_and_homonyms():
    plain_words, plain_meanings = words_of(SyntheticConfig(synonyms=0))
    assert {len(words) for words in plain_words.values()} == {1}
    assert {len(verbs) for verbs in plain_meanings.values()} == {1}

    words, meanings = words_of(SyntheticConfig(synonyms=0.5))
    assert min(map(len, words.values())) > 1 and {len(verbs) for verbs in meanings.values()} == {1}

    _, meanings = words_of(SyntheticConfig(synonyms=0, homonyms=0.5))
    assert np.mean([len(verbs) > 1 for verbs in meanings.values()]) > 0.8


def test_a_video_sticks_to_its_words_and_labels_follow_what_is_seen():
    world = World(SyntheticConfig(homonyms=1.0, quirk_share=0.0))
    script = write_script(world, 0)
    vocabulary = choose_words(world, script)
    assert len(vocabulary.swapped_verbs) > 1
    said = [(action, narrate(world, script, vocabulary, action)) for action in script.actions]
    assert len({(action.verb, words.verb_word) for action, words in said}) == len({a.verb for a in script.actions})
    for action, words in said:
        assert words.structured_verb in (None, "[other]", world.verbs[action.verb].structured)
    renamed = {a.verb for a, w in said if w.verb_word not in {third for third, _ in world.verbs[a.verb].words}}
    assert renamed == set(vocabulary.swapped_verbs)


def test_made_up_words():
    worlds = [World(SyntheticConfig(seed=seed, made_up_verbs=4, made_up_nouns=4)) for seed in (0, 1)]
    names = [{thing.name for thing in (*world.verbs[-4:], *world.nouns[-4:])} for world in worlds]
    assert len(names[0]) == len(names[1]) == 8 and len(names[0] & names[1]) < 2
    known = {word for verb in VERBS for pair in verb.words for word in pair}
    assert not known & names[0] and all(re.fullmatch("[a-z]{3,6}", name) for name in names[0])
    assert {verb.motion for verb in worlds[0].verbs[-4:]} != {verb.motion for verb in worlds[1].verbs[-4:]}
    assert worlds[0].pair_weights[-4:].sum() > 0.02
