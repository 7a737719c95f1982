"""The clips of `make narrate` are those of the world that no training shows."""

import re
from pathlib import Path

import numpy as np
from make_example_clips import find_examples, find_known, make_worlds, narration_of, render_clip
from recipe.worlds import NOVEL_WORLD, TRAIN_WORLD, make_words

from transformers_eilev import ClipWindow, read_clip
from transformers_eilev.data.synthetic.world import World


ROOT = Path(__file__).parents[3]
CLIPS = re.findall(r"^(?:KNOWN|FIRST|SECOND|NEW) := (\S+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def the_example():
    """The one whose names the clips have, of those that there are."""
    known_world, world = make_worlds(NOVEL_WORLD.image_size, 10)
    names = [Path(clip).stem.replace("_", " ") for clip in CLIPS]
    found = [example for example in find_examples(world) if names[1:] == [narration_of(world, a) for _, a in example]]
    known = [action for action in find_known(known_world) if names[0] == narration_of(known_world, action[1])]
    assert found and known, f"{CLIPS} are no examples of this world: run make_example_clips.py again"
    return (known_world, known[0]), (world, found[0])


def test_the_clips_are_what_the_world_renders():
    (known_world, known), (world, example) = the_example()
    assert len(CLIPS) == 4
    rendered_from = [(known_world, known), *((world, found) for found in example)]
    for clip, (world, (script, action)) in zip(CLIPS, rendered_from):
        read = read_clip(ROOT / clip, ClipWindow())
        assert len(read.frames) == 80 and read.frame_sec[-1] == 7.9
        for index, rendered in enumerate(render_clip(world, script, action)):
            if index % 20 == 0:
                error = read.frames[index].permute(1, 2, 0).numpy().astype(int) - rendered
                assert np.abs(error).mean() < 6, (clip, index)  # H.264's


def test_no_training_shows_what_is_made_up():
    _, (world, (_, _, (_, query))) = the_example()
    verb, noun = world.verbs[query.verb], world.nouns[query.noun]
    training = World(TRAIN_WORLD)
    assert verb.motion not in [other.motion for other in training.verbs]
    assert noun.shape >= 0 and noun.shape not in [other.shape for other in training.nouns]
    words = make_words()
    assert verb.words[0][0] in words.verb_words and noun.words[0] in words.noun_words
