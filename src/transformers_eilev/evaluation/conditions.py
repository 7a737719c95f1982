"""What a model is shown before it answers: EILEV's contexts, its ablations, and controls that tell where an answer
comes from."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .rules import say_frequent_action, say_frequent_sentence, say_unseen_pair


@dataclass(frozen=True, kw_only=True)
class Condition:
    """
    What is shown, where it differs from clips and narrations as they are.

    Attributes:
        summary (`str`): in words.
        demonstration_clips, query_clip, derange_clips (`bool`): as of [`~transformers_eilev.data.InContextDataset`].
        random (`bool`): contexts are drawn whatever their verbs and nouns.
        canonical (`bool`): the narrations of the context are standardised sentences of their labels.
        num_common_pairs (`int`, *optional*): contexts are of so many most frequent pairs of verb and noun alone.
        rule (`Callable`, *optional*): what answers instead of the model; see `rules`.
        min_shots (`int`): with fewer it would be the same as another, or nothing.
    """

    summary: str
    demonstration_clips: bool = True
    query_clip: bool = True
    derange_clips: bool = False
    random: bool = False
    canonical: bool = False
    num_common_pairs: int | None = None
    rule: Callable | None = None
    min_shots: int = 0


CONDITIONS = {
    "in_context": Condition(summary="clips and narrations"),
    "random": Condition(summary="contexts drawn at random", random=True, min_shots=1),
    "canonical": Condition(summary="standardised narrations in the context", canonical=True, min_shots=1),
    # A single clip can't be exchanged.
    "shuffled": Condition(summary="clips exchanged among the narrations", derange_clips=True, min_shots=2),
    "text_only": Condition(summary="narrations without their clips", demonstration_clips=False, min_shots=1),
    "no_query_clip": Condition(summary="the clip that is asked about left out", query_clip=False),
    "no_clips": Condition(summary="no clip at all", demonstration_clips=False, query_clip=False, min_shots=1),
    "majority": Condition(summary="most frequent verb and noun of the context", rule=say_frequent_action, min_shots=1),
    "majority_sentence": Condition(
        summary="most frequent narration of the context", rule=say_frequent_sentence, min_shots=1
    ),
    "unseen_pair": Condition(
        summary="words of the context that don't stand together in it", rule=say_unseen_pair, min_shots=1
    ),
}
_COMMON = re.compile(r"top_([1-9]\d*)")


def find_condition(name: str) -> Condition:
    """
    The condition of a name: of `CONDITIONS`, or "top_100" (any number), whose contexts are of the 100 most frequent
    pairs of verb and noun alone.

    Args:
        name (`str`): such as "in_context".

    Raises:
        ValueError: for another name.
    """
    common = _COMMON.fullmatch(name)
    if common:
        number = int(common.group(1))
        summary = f"contexts of the {number} most frequent actions"
        return Condition(summary=summary, num_common_pairs=number, min_shots=1)
    if name not in CONDITIONS:
        raise ValueError(f"`conditions` must be of {[*CONDITIONS, 'top_N']}, but one is {name!r}")
    return CONDITIONS[name]


__all__ = ["CONDITIONS", "Condition", "find_condition"]
