"""Actions by verb, noun and pair, and draws from them in a time that does not depend on how many there are."""

from collections.abc import Iterable, Sequence

import numpy as np


class ActionGroups:
    """Rows sorted by a major and a minor code, so that each major code's and each pair's stand together."""

    def __init__(self, major: np.ndarray, minor: np.ndarray, num_major: int, num_minor: int):
        keys = major.astype(np.int64) * num_minor + minor
        self.rows = np.argsort(keys, kind="stable").astype(np.int32)
        self.starts = np.searchsorted(major[self.rows], np.arange(num_major + 1)).astype(np.int32)
        self.pair_keys, pair_starts = np.unique(keys[self.rows], return_index=True)
        self.pair_bounds = np.append(pair_starts, len(keys)).astype(np.int32)
        self.num_major, self.num_minor = num_major, num_minor

    def group(self, major: int) -> tuple[int, int]:
        """Where a major code's rows start and stop."""
        if major >= self.num_major:
            return 0, 0
        return int(self.starts[major]), int(self.starts[major + 1])

    def pair(self, major: int, minor: int) -> tuple[int, int]:
        """Where a pair's rows start and stop."""
        if major < self.num_major and minor < self.num_minor:
            key = major * self.num_minor + minor
            place = int(np.searchsorted(self.pair_keys, key))
            if place < len(self.pair_keys) and self.pair_keys[place] == key:
                return int(self.pair_bounds[place]), int(self.pair_bounds[place + 1])
        start, _ = self.group(major)
        return start, start


class LargePairs:
    """The pairs of [`ActionGroups`] that have at least `size` rows, but for those of some minor codes; each major
    code's stand together."""

    def __init__(self, groups: ActionGroups, size: int, *, without_minor: Sequence[int] = ()):
        self.groups = groups
        major, minor = np.divmod(groups.pair_keys, max(1, groups.num_minor))
        self.places = np.flatnonzero((np.diff(groups.pair_bounds) >= size) & ~np.isin(minor, without_minor))
        self.keys = groups.pair_keys[self.places]
        self.starts = np.searchsorted(major[self.places], np.arange(groups.num_major + 1))

    def count_others(self, major: np.ndarray, minor: np.ndarray) -> np.ndarray:
        """For each of some pairs, how many other pairs its major code has here."""
        # Codes that the groups lack: an empty span at the end.
        spans = np.minimum(np.stack([major, major + 1]).astype(np.int64), self.groups.num_major)
        starts, stops = self.starts[spans]
        keys = major.astype(np.int64) * self.groups.num_minor + minor
        return stops - starts - (np.isin(keys, self.keys) & (minor < self.groups.num_minor) & (stops > starts))

    def others(self, major: int, minor: int) -> np.ndarray:
        """Where the other pairs of a major code stand in `keys`."""
        group, gap = self._spans(major, minor)
        return np.concatenate([np.arange(group[0], gap[0]), np.arange(gap[1], group[1])])

    def draw_others(self, major: int, minor: int, number: int, rng) -> np.ndarray:
        """Different ones of them, each as likely."""
        return draw_around(*self._spans(major, minor), number, rng)

    def draw_rows(self, place: int, number: int, rng) -> np.ndarray:
        """Different rows of the pair `keys[place]`."""
        pair = self.places[place]
        start, stop = (int(bound) for bound in self.groups.pair_bounds[pair : pair + 2])
        return self.groups.rows[draw_around((start, stop), (start, start), number, rng)]

    def _spans(self, major: int, minor: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where a major code's pairs start and stop, and the gap that the pair with the minor code is."""
        group = int(self.starts[major]), int(self.starts[major + 1])
        if minor >= self.groups.num_minor:
            return group, (group[0], group[0])
        start, stop = np.searchsorted(self.keys, np.array([0, 1]) + (major * self.groups.num_minor + minor)).tolist()
        return group, (start, stop)


def shares(number: int, ratio: float, num_verb: int, num_noun: int) -> tuple[int, int]:
    """How many examples to take of the two groups, topping up the one from the other."""
    of_verb = of_noun = 0
    while (missing := number - of_verb - of_noun) and (of_verb < num_verb or of_noun < num_noun):
        for_verb = missing if of_noun == num_noun else 0
        if of_verb < num_verb and of_noun < num_noun:
            for_verb = int(missing * ratio)
        of_noun, of_verb = min(num_noun, of_noun + missing - for_verb), min(num_verb, of_verb + for_verb)
    return of_verb, of_noun


def draw_around(group: tuple[int, int], gap: tuple[int, int], number: int, rng) -> np.ndarray:
    """Different places of a range with a gap."""
    places = group[0] + rng.choice(span_length(group) - span_length(gap), number, replace=False, shuffle=False)
    places[places >= gap[0]] += span_length(gap)
    return places


def draw_outside(length: int, gap: tuple[int, int], taken: np.ndarray, number: int, rng) -> np.ndarray:
    """Different places from 0 to `length`, not in the gap and not among `taken`, which are sorted and outside it."""
    taken = np.where(taken >= gap[1], taken - span_length(gap), taken)
    available = length - span_length(gap) - len(taken)
    places = rng.choice(available, min(number, available), replace=False, shuffle=False)
    # The n-th of those that are left: n, and as many on as are taken before it.
    places += np.searchsorted(taken - np.arange(len(taken)), places, side="right")
    places[places >= gap[0]] += span_length(gap)
    return places


def span_length(span: tuple[int, int]) -> int:
    """How many rows a span has."""
    return span[1] - span[0]


def encode_words(words: Iterable, codes: dict) -> np.ndarray:
    """Numbers for words, in the order of their first appearance; `None` is the empty one."""
    return np.fromiter((codes.setdefault("" if w is None else w, len(codes)) for w in _unboxed(words)), np.int32)


def _unboxed(words: Iterable) -> Iterable:
    """Arrays of NumPy and Arrow hold objects of their own, slow to hash or equal to nothing else; a column of a data
    set is a hundred times as fast to read whole."""
    words = words[:] if isinstance(words, Sequence) else words
    for convert in ("tolist", "to_pylist"):
        if hasattr(words, convert):
            return getattr(words, convert)()
    return words


def repeat_evenly(verbs: np.ndarray, nouns: np.ndarray, target_length: int, rng: np.random.Generator) -> np.ndarray:
    """Rows for `upsample`, of codes."""
    rows = np.arange(len(verbs), dtype=np.int64)
    missing = target_length - len(rows)
    if missing <= 0:
        return rows
    if not len(rows):
        raise ValueError(f"`target_length` is {target_length}, but there is no action to repeat")
    groups = ActionGroups(verbs, nouns, int(verbs.max()) + 1, int(nouns.max()) + 1)
    starts, stops = groups.pair_bounds[:-1].tolist(), groups.pair_bounds[1:].tolist()
    each, remainder = divmod(missing, len(starts))
    numbers = np.full(len(starts), each)
    numbers[rng.choice(len(numbers), remainder, replace=False, shuffle=False)] += 1
    parts = [rows]
    for start, stop, number in zip(starts, stops, numbers.tolist()):
        rounds, rest = divmod(number, stop - start)
        pair = groups.rows[start:stop]
        parts += [pair] * rounds + [pair[rng.choice(len(pair), rest, replace=False, shuffle=False)]]
    return np.concatenate(parts).astype(np.int64)
