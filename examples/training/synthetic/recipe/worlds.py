"""The rendered worlds that are learned from and tested on, their words, and which clips are for what."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transformers_eilev.data import SyntheticConfig
from transformers_eilev.data.narrations import PROMPTS, VIDEO_BLIP_PROMPT
from transformers_eilev.data.synthetic.world import NOUNS, World


# Two words for each action are all there is to say, and one look for each noun all there is to know: a small model
# learns that in minutes. Actions last longer than the 8 seconds of a clip, and the camera is near: nearly each
# frame shows what is done.
TRAIN_WORLD = SyntheticConfig.for_small_models(
    hours=22.0,
    seed=0,
    image_size=80,
    fps=2,
    video_sec=300.0,
    action_sec=11.0,
    made_up_verbs=4,
    made_up_nouns=120,
    looks_per_noun=1,
    verb_skew=0.3,
    noun_skew=0.5,
)
# Nothing that is made up here was ever rendered there. Few nouns, so that each pair has clips enough for a context.
NOVEL_WORLD = dataclasses.replace(
    TRAIN_WORLD, hours=6.0, seed=1, made_up_verbs=4, made_up_nouns=16, verb_skew=0.0, noun_skew=0.0
)
# Where the words come from that name nothing.
_SPARE_WORLD = dataclasses.replace(TRAIN_WORLD, seed=2, made_up_verbs=80, made_up_nouns=80)

QUESTIONS = (*PROMPTS, VIDEO_BLIP_PROMPT)


@dataclass(frozen=True)
class Words:
    """The words of the worlds, each in one list alone.

    Attributes:
        verb_words, noun_words (`tuple[str, ...]`): by which anything is called in either world, or could be: "picks
            up", "cup".
        spare_verb_words, spare_noun_words (`tuple[str, ...]`): which nothing is called by, to give to actions for the
            length of one prompt.
    """

    verb_words: tuple[str, ...]
    noun_words: tuple[str, ...]
    spare_verb_words: tuple[str, ...]
    spare_noun_words: tuple[str, ...]


def make_words() -> Words:
    """All words of the worlds."""
    everything = dataclasses.replace(TRAIN_WORLD, verbs=None)
    worlds = [World(everything), World(NOVEL_WORLD)]
    taken = {}
    verbs = [third for world in worlds for verb in world.verbs for third, _ in verb.words]
    nouns = [word for world in worlds for noun in world.nouns for word in noun.words]
    spare = World(_SPARE_WORLD)
    lists = [
        verbs,
        nouns,
        [third for verb in spare.verbs for third, _ in verb.words],
        [word for noun in spare.nouns for word in noun.words],
    ]
    own = [[taken.setdefault(word, word) for word in words if word not in taken] for words in lists]
    return Words(*map(tuple, own))


def is_held_out(verbs: Sequence[str], nouns: Sequence[str], *, one_pair_in: int = 8) -> np.ndarray:
    """
    Of each action of `TRAIN_WORLD` whether its pair of a verb and a noun is not trained on.

    Args:
        verbs, nouns (`Sequence[str]`): `structured_verb` and `structured_noun`.
        one_pair_in (`int`): of so many pairs, one isn't.

    Returns:
        `np.ndarray`: bool, of shape (actions,).
    """
    world = World(TRAIN_WORLD)
    codes = []
    for labels, items in ((verbs, world.verbs), (nouns, world.nouns)):
        places = {name: place for place, name in enumerate(sorted({item.structured for item in items}))}
        codes.append(np.array([places[label] for label in labels]))
    return (7 * codes[0] + 13 * codes[1]) % one_pair_in == 0


def split_clips(clips, *, one_pair_in: int = 8, one_video_in: int = 10) -> dict[str, list[int]]:
    """
    Rows of the clips of `TRAIN_WORLD`, by what they are for.

    Args:
        clips (`datasets.Dataset`): a clip store's.
        one_pair_in, one_video_in (`int`): of so many pairs of a verb and a noun, and of so many videos, one is not
            trained on.

    Returns:
        `dict`: "train"; "val", of other videos; "pairs", whose verbs and nouns are trained on, but never together.
    """
    videos = sorted(set(clips["video_uid"]))
    video = np.array([videos.index(uid) for uid in clips["video_uid"]])
    is_pair = is_held_out(clips["structured_verb"], clips["structured_noun"], one_pair_in=one_pair_in)
    is_val = (video % one_video_in == one_video_in - 1) & ~is_pair
    masks = {"train": ~is_pair & ~is_val, "val": is_val, "pairs": is_pair}
    return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}


def novel_rows(clips) -> list[int]:
    """Rows of the clips of `NOVEL_WORLD` whose noun is in no other."""
    known = {noun.structured for noun in NOUNS}
    return [row for row, noun in enumerate(clips["structured_noun"]) if noun not in known]


def appearance(config: SyntheticConfig) -> dict[str, tuple[str, str, str]]:
    """Of each `structured_noun` of a world with one look for each, its two colours and its pattern."""
    world = World(config)
    return {
        noun.structured: (looks[0].colour, looks[0].second, looks[0].pattern)
        for noun, looks in zip(world.nouns, world.looks)
    }
