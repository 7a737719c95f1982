"""Clips in memory, and the numbers of their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm


if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class LabelledClips:
    """Clips in memory.

    Attributes:
        frames (`np.ndarray`): uint8, of shape (clips, frames, height, width, 3).
        verbs, nouns (`list[str]`): of each clip.
    """

    frames: np.ndarray
    verbs: list[str]
    nouns: list[str]

    def __len__(self) -> int:
        return len(self.frames)


def decode_clips(clips: "datasets.Dataset", progress: bool = True) -> LabelledClips:
    """
    Reads clips into memory, 38 KB each for 8 frames of 40 pixels.

    Args:
        clips (`datasets.Dataset`): rows of a clip store, with `frames`, `structured_verb` and `structured_noun`.
        progress (`bool`): show a bar.

    Raises:
        ValueError: for no clip, a clip of another size or number of frames than the first, or one without a label.
    """
    if not len(clips):
        raise ValueError("There are no clips")
    frames = None
    for row, clip in enumerate(tqdm(clips, desc="Decoding clips", unit="clip", mininterval=5, disable=not progress)):
        pictures = np.stack([np.asarray(picture.convert("RGB")) for picture in clip["frames"]])
        if frames is None:
            frames = np.empty((len(clips), *pictures.shape), np.uint8)
        if pictures.shape != frames.shape[1:]:
            raise ValueError(f"Clip {row} has frames of {pictures.shape}, the first of {frames.shape[1:]}")
        frames[row] = pictures
    verbs, nouns = list(clips["structured_verb"]), list(clips["structured_noun"])
    for name, labels in (("structured_verb", verbs), ("structured_noun", nouns)):
        if not all(labels):
            raise ValueError(f"Clip {labels.index(next(label for label in labels if not label))} has no {name}")
    return LabelledClips(frames, verbs, nouns)


@dataclass
class Classes:
    """What is told apart: questions about a clip, and the answers to each.

    Attributes:
        names (`dict[str, list[str]]`): the answers, by question: "verb", "noun", "appearance 0", ...
        appearance (`Mapping`): see `train_vision`.
    """

    names: dict[str, list[str]]
    appearance: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: LabelledClips, appearance: Mapping[str, Sequence[str]]) -> "Classes":
        unknown = sorted(set(clips.nouns) - set(appearance)) if appearance else []
        if unknown:
            raise ValueError(f"appearance lacks {len(unknown)} nouns of the clips, {unknown[0]!r} first")
        names = {"verb": sorted(set(clips.verbs)), "noun": sorted(set(clips.nouns))}
        for number, values in enumerate(zip(*appearance.values(), strict=True)):
            names[f"appearance {number}"] = sorted(set(values))
        return cls(names, appearance)

    def number(self, clips: LabelledClips) -> torch.Tensor:
        """int64 of shape (clips, questions); -1 for a verb or noun that is not among the answers."""
        numbers = {name: {value: n for n, value in enumerate(values)} for name, values in self.names.items()}
        columns = [
            [numbers["verb"].get(verb, -1) for verb in clips.verbs],
            [numbers["noun"].get(noun, -1) for noun in clips.nouns],
        ]
        for place in range(len(self.names) - 2):
            of_noun = {noun: numbers[f"appearance {place}"][values[place]] for noun, values in self.appearance.items()}
            columns.append([of_noun.get(noun, -1) for noun in clips.nouns])
        return torch.tensor(columns).T.contiguous()
