"""
Splits: by video, and with rare pairs of verb and noun held out. The original's algorithms and numbers.

The original draws with Python's `random.sample` and `random.shuffle`, whose workings Python does not promise to keep.
`seed` and `random()` it does promise, so the draws here are made of those alone: the same seed gives the same split on
every machine and every Python.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from .actions import InvalidActionError, NarratedAction, check_video_uid, shorten
from .files import write_text


SPLITS = ("train", "val", "test")

# random() gives 53 bits: the upper 27 of one 32-bit word of the generator and the upper 26 of the next.
_WORD_BITS = (27, 26)


class _Words:
    """The words of Python's generator, of which it makes its integers, taken from `random()`."""

    def __init__(self, seed: int):
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer from 0 on, got {shorten(seed)}")
        self._random = random.Random(seed)
        self._left: list[tuple[int, int]] = []

    def below(self, bound: int) -> int:
        """An integer from 0 to `bound` - 1, each as likely."""
        bits = bound.bit_length()
        if bits > _WORD_BITS[1]:
            raise ValueError(f"cannot draw from {bound:,} things, {2 ** _WORD_BITS[1]:,} at most")
        while True:
            if not self._left:
                both = int(self._random.random() * 2.0**53)
                low = both & (2 ** _WORD_BITS[1] - 1)
                self._left = [(low, _WORD_BITS[1]), (both >> _WORD_BITS[1], _WORD_BITS[0])]
            word, width = self._left.pop()
            drawn = word >> (width - bits)
            if drawn < bound:
                return drawn

    def sample_all(self, items: Iterable) -> list:
        """All of `items` in random order, as `random.sample(items, k=len(items))` draws them."""
        pool, drawn = list(items), []
        for left in range(len(pool), 0, -1):
            index = self.below(left)
            drawn.append(pool[index])
            pool[index] = pool[left - 1]
        return drawn

    def shuffle(self, items: list):
        """Shuffles `items` in place, as `random.shuffle` does."""
        for last in range(len(items) - 1, 0, -1):
            index = self.below(last + 1)
            items[last], items[index] = items[index], items[last]


def _check_share(value: float, name: str):
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {shorten(value)}")


def count_by_video(actions: Iterable[NarratedAction | Mapping[str, Any]]) -> dict[str, int]:
    """How many actions each video has, in the order in which the videos come.

    Args:
        actions (`Iterable`): actions or their rows; only `video_uid` is read.

    Returns:
        `dict[str, int]`: of each video its number of actions, as [`split_by_video`] takes it.
    """
    return dict(Counter(_value(action, "video_uid") for action in actions))


def split_by_video(
    num_actions: Mapping[str, int], *, train_val_share: float = 0.75, train_share: float = 0.75, seed: int = 42
) -> dict[str, dict[str, int]]:
    """Deals whole videos out to train, val and test, by their number of narrated actions.

    Videos are drawn at random for train and val together until `train_val_share` of all actions is reached, the rest
    is test; from those, for train until `train_share` of them is reached, the rest is val. The last video drawn may
    overshoot, as in the original, so small sets miss their shares.

    Args:
        num_actions (`Mapping[str, int]`): actions of each video; the order counts, the original's is that of
            `fho_main.json`. Videos without any are left out.
        train_val_share (`float`): the share of the actions that is not test.
        train_share (`float`): the share of those that is train.
        seed (`int`): what the draws derive from.

    Returns:
        `dict[str, dict[str, int]]`: for "train", "val" and "test", its videos in the order drawn, and their actions.

    Raises:
        ValueError: a share outside 0 to 1, a seed or a count that is no integer from 0 on.
    """
    _check_share(train_val_share, "train_val_share")
    _check_share(train_share, "train_share")
    for video_uid, count in num_actions.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"num_actions[{video_uid!r}] must be an integer from 0 on, got {shorten(count)}")
    words = _Words(seed)
    counts = {video_uid: count for video_uid, count in num_actions.items() if count}
    train_val_goal = round(sum(counts.values()) * train_val_share)
    train_val, test = _deal(counts, train_val_goal, words)
    # Of the goal, not of what was drawn: the original's way.
    train, val = _deal(train_val, round(train_val_goal * train_share), words)
    return {"train": train, "val": val, "test": test}


def _deal(counts: Mapping[str, int], goal: int, words: _Words) -> tuple[dict[str, int], dict[str, int]]:
    taken, rest, num_taken = {}, {}, 0
    for video_uid in words.sample_all(counts):
        if num_taken < goal:
            taken[video_uid] = counts[video_uid]
            num_taken += counts[video_uid]
        else:
            rest[video_uid] = counts[video_uid]
    return taken, rest


@dataclass(frozen=True, kw_only=True)
class HeldOutSplit:
    """Which actions go where when rare pairs are held out: numbers of rows, in the order the original writes them.

    Attributes:
        train, val (`list[int]`): actions with a common pair.
        test (`list[int]`): actions with a rare pair.
        unused (`list[int]`): actions without a verb or without a noun.
        common_pairs, rare_pairs (`list[tuple[str, str]]`): the (verb, noun) pairs, most frequent first; of equally
            frequent ones the first met comes first.
    """

    train: list[int]
    val: list[int]
    test: list[int]
    unused: list[int]
    common_pairs: list[tuple[str, str]]
    rare_pairs: list[tuple[str, str]]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(getattr(self, name)):,}" for name in (*SPLITS, "unused"))
        return f"{sizes} actions; {len(self.common_pairs):,} common and {len(self.rare_pairs):,} rare pairs"


def hold_out_rare_pairs(
    actions: Iterable[NarratedAction | Mapping[str, Any]],
    *,
    num_common_pairs: int | None = None,
    common_share: float | None = None,
    train_share: float = 0.75,
    seed: int = 42,
) -> HeldOutSplit:
    """Keeps actions with rare (verb, noun) pairs for the test, and splits the others at random into train and val.

    Args:
        actions (`Iterable`): actions or their rows; only `structured_verb` and `structured_noun` are read. Of a data
            set with frames, pass `dataset.select_columns(["structured_verb", "structured_noun"])`.
        num_common_pairs (`int`, *optional*): so many of the most frequent pairs are common, the others rare.
        common_share (`float`, *optional*): or: as many of the most frequent pairs as it takes to cover this share of
            the actions that have a pair. One of the two must be given.
        train_share (`float`): the share of actions with a common pair that is train.
        seed (`int`): what the draws derive from.

    Returns:
        `HeldOutSplit`

    Raises:
        ValueError: both or neither of `num_common_pairs` and `common_share`, or a value out of range.
    """
    if (num_common_pairs is None) == (common_share is None):
        raise ValueError(
            "give one of num_common_pairs and common_share, got "
            f"num_common_pairs={shorten(num_common_pairs)} and common_share={shorten(common_share)}"
        )
    _check_share(train_share, "train_share")
    words = _Words(seed)
    pairs = [(_value(action, "structured_verb"), _value(action, "structured_noun")) for action in actions]
    counts = Counter(pair for pair in pairs if all(pair)).most_common()  # a stable sort: ties stay in order
    num_common = _num_common([count for _, count in counts], num_common_pairs, common_share)
    common = {pair for pair, _ in counts[:num_common]}
    train_val, test, unused = [], [], []
    for row, pair in enumerate(pairs):
        (unused if not all(pair) else train_val if pair in common else test).append(row)
    words.shuffle(train_val)
    num_train = round(len(train_val) * train_share)
    return HeldOutSplit(
        train=train_val[:num_train],
        val=train_val[num_train:],
        test=test,
        unused=unused,
        common_pairs=[pair for pair, _ in counts[:num_common]],
        rare_pairs=[pair for pair, _ in counts[num_common:]],
    )


def _value(action: NarratedAction | Mapping[str, Any], name: str) -> Any:
    return action[name] if isinstance(action, Mapping) else getattr(action, name)


def _num_common(counts: Sequence[int], num_common_pairs: int | None, common_share: float | None) -> int:
    if num_common_pairs is not None:
        if isinstance(num_common_pairs, bool) or not isinstance(num_common_pairs, int) or num_common_pairs < 0:
            raise ValueError(f"num_common_pairs must be an integer from 0 on, got {shorten(num_common_pairs)}")
        return num_common_pairs
    _check_share(common_share, "common_share")
    needed = common_share * sum(counts)
    return next((rank for rank, covered in enumerate(accumulate(counts), 1) if covered >= needed), len(counts))


def write_split_files(splits: Mapping[str, Mapping[str, int]], folder: str | os.PathLike) -> list[Path]:
    """Writes what `split_by_video` returned as the original does: `fho_main_train.json`, `_val` and `_test`.

    Each file appears whole or not at all; one of the same name is replaced.

    Args:
        splits (`Mapping[str, Mapping[str, int]]`): for each split's name, its videos and their numbers of actions.
        folder (`str` or `os.PathLike`): for the files; it is made if it is not there.

    Returns:
        `list[Path]`: the files, in the order of `splits`.

    Raises:
        InvalidActionError: the name of a split that is not safe in the name of a file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, videos in splits.items():
        path = folder / f"fho_main_{check_video_uid(name, 'the name of a split')}.json"
        write_text(path, json.dumps({"split": name, "videos": dict(videos)}))
        paths.append(path)
    return paths


def read_split_file(path: str | os.PathLike) -> tuple[str, dict[str, int]]:
    """Reads one of the original's split files, such as `fho_main_train.json`.

    Args:
        path (`str` or `os.PathLike`): of the file.

    Returns:
        `tuple[str, dict[str, int]]`: the split's name, and its videos with their number of narrated actions.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: not such a file; it names the file, the field and the value.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("split"), str):
        raise ValueError(f"{os.fspath(path)}: split must be the name of a split, got {shorten(content)}")
    videos = content.get("videos")
    if not isinstance(videos, dict):
        raise ValueError(f"{os.fspath(path)}: videos must map ids to numbers of actions, got {shorten(videos)}")
    for video_uid, count in videos.items():
        try:
            check_video_uid(video_uid)
        except InvalidActionError as error:
            raise ValueError(f"{os.fspath(path)}: videos: {error}") from None
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{os.fspath(path)}: videos[{video_uid!r}] must be a count, got {shorten(count)}")
    return content["split"], videos
