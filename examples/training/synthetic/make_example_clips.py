"""
Renders the clips of examples/narration, which `make narrate` narrates: something of the world that is trained on, in
another video; something made up that is done to a made-up object, and before it one clip for each of the two words. No
training shows any of these clips, nor what is made up in them.

    python examples/training/synthetic/make_example_clips.py examples/narration --number 1

A clip's name is its narration: pegs_the_wug.mp4 is "The camera wearer pegs the wug."
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from recipe.tokenizer import CLIP_SEC
from recipe.worlds import NOVEL_WORLD, TRAIN_WORLD

from transformers_eilev.data.synthetic.encoding import encode_video
from transformers_eilev.data.synthetic.rendering import Renderer
from transformers_eilev.data.synthetic.script import ActionScript, VideoScript, write_script
from transformers_eilev.data.synthetic.world import NOUNS, VERBS, World


Found = tuple[VideoScript, ActionScript]


def find_examples(world: World) -> Iterator[list[Found]]:
    """Two demonstrations and a query, of three videos: a made-up verb with a known noun, a known verb with a made-up
    noun, and that verb with that noun. One example for each query."""
    known_verbs, known_nouns = {verb.name for verb in VERBS}, {noun.name for noun in NOUNS}
    with_known_noun, with_known_verb = {}, {}
    for script, action in _all_actions(world, range(world.config.num_videos)):
        is_known_verb = world.verbs[action.verb].name in known_verbs
        is_known_noun = world.nouns[action.noun].name in known_nouns
        if is_known_noun and not is_known_verb:
            with_known_noun.setdefault(action.verb, (script, action))
        elif is_known_verb and not is_known_noun:
            with_known_verb.setdefault(action.noun, (script, action))
        elif not is_known_verb and action.verb in with_known_noun and action.noun in with_known_verb:
            found = [with_known_noun[action.verb], with_known_verb[action.noun], (script, action)]
            if len({video.number for video, _ in found}) == 3:
                yield found


def find_known(world: World) -> Iterator[Found]:
    """Actions of verbs and nouns that have names, in the first video behind those of the world's data set."""
    known = {verb.name for verb in VERBS}, {noun.name for noun in NOUNS}
    for script, action in _all_actions(world, [world.config.num_videos]):
        if world.verbs[action.verb].name in known[0] and world.nouns[action.noun].name in known[1]:
            yield script, action


def _all_actions(world: World, videos: Iterable[int]) -> Iterator[Found]:
    for number in videos:
        script = write_script(world, number)
        for action in script.actions:
            if CLIP_SEC / 2 <= action.narration_sec <= world.config.duration_sec - CLIP_SEC / 2:
                yield script, action


def narration_of(world: World, action: ActionScript) -> str:
    """Such as "pegs the wug"."""
    return f"{world.verbs[action.verb].words[0][0]} the {world.nouns[action.noun].words[0]}"


def render_clip(world: World, script: VideoScript, action: ActionScript) -> Iterator[np.ndarray]:
    """The frames of the 8 s around a narration, uint8, of shape (image_size, image_size, 3)."""
    fps = world.config.fps
    renderer = Renderer(world, script)
    first = round((action.narration_sec - CLIP_SEC / 2) * fps)
    return (renderer.frame(number) for number in range(first, first + round(CLIP_SEC * fps)))


def make_worlds(image_size: int, fps: int) -> tuple[World, World]:
    """The world that is trained on, and the one that isn't; what happens in them depends on neither size nor rate."""
    configs = [dataclasses.replace(config, image_size=image_size, fps=fps) for config in (TRAIN_WORLD, NOVEL_WORLD)]
    return World(configs[0]), World(configs[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--image_size", type=int, default=NOVEL_WORLD.image_size, help="width and height in pixels")
    parser.add_argument("--fps", type=int, default=10, help="frames a second")
    parser.add_argument("--known", type=int, default=0, help="which of the known actions that there are")
    parser.add_argument("--number", type=int, default=0, help="which of the examples of new ones that there are")
    args = parser.parse_args()
    if min(args.number, args.known) < 0:
        parser.error(f"--number and --known must not be negative, got {args.number} and {args.known}")
    known_world, world = make_worlds(args.image_size, args.fps)
    example = next(itertools.islice(find_examples(world), args.number, None), None)
    if example is None:
        parser.error(f"--number is {args.number}, but there are not so many examples")
    known = next(itertools.islice(find_known(known_world), args.known, None), None)
    if known is None:
        parser.error(f"--known is {args.known}, but there are not so many known actions")
    for world, (script, action) in [(known_world, known), *((world, found) for found in example)]:
        path = args.output_dir / f"{narration_of(world, action).replace(' ', '_')}.mp4"
        frames = render_clip(world, script, action)
        encode_video(path, frames, codec="h264", fps=args.fps, image_size=args.image_size)
        print(path)


if __name__ == "__main__":
    main()
