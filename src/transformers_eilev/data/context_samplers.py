"""
Which narrated actions stand in a prompt before the one that is asked about, by chance.

Every draw comes from (seed, epoch, index), so a sample is the same in any order, process and number of workers, and a
run that is resumed goes on as it would have.
"""

import warnings
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from .action_groups import (
    ActionGroups,
    LargePairs,
    draw_around,
    draw_outside,
    encode_words,
    repeat_evenly,
    shares,
    span_length,
)


# "[other]" is Ego4D's verb for whatever its taxonomy lacks: two actions that have it share no verb.
_SHARED_BY_NOBODY = {"verb": ("", "[other]"), "noun": ("",)}

# The last number of a seed: what the draws are for. The context's own have none. Others are in `in_context`.
_UPSAMPLING = 4


@runtime_checkable
class ContextSampler(Protocol):
    """Chooses the context of a query, by chance, from a list or by likeness."""

    def __len__(self) -> int:
        """Number of samples in an epoch."""

    def query(self, index: int) -> int:
        """The row of the queries' actions that sample `index` asks about."""

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """The rows of the context's actions that stand before it, in the order of the prompt."""


class InContextSampler:
    r"""
    Draws contexts as EILEV was trained with: `verb_noun_ratio` of the examples share the query's verb and not its
    noun, the others its noun and not its verb; where either lack, the other tops up, then any other action. An action
    of the query's own (verb, noun) is never drawn. Where there are fewer actions than `num_examples`, all are given.

    The verbs "" and "[other]" and the noun "" are shared by no two actions.

    A draw takes the same time whatever the number of actions: they are indexed by verb, noun and pair, and nothing is
    walked through.

    Args:
        verbs (`Sequence[str]`): the actions that examples are drawn from: their `structured_verb`, or class numbers.
        nouns (`Sequence[str]`): their `structured_noun`.
        num_examples (`int`): in a context.
        verb_noun_ratio (`float`, *optional*, defaults to 0.5): from 0 to 1. The share of the verb is rounded down.
        random (`bool`, *optional*, defaults to `False`): draw from all actions but the query itself instead, whatever
            their verbs and nouns.
        seed (`int`, *optional*, defaults to 0): of all draws, not negative.
        queries (`tuple[Sequence[str], Sequence[str]]`, *optional*): verbs and nouns of the actions to ask about, where
            they are of another data set. By default, the actions themselves.
        target_length (`int`, *optional*): repeat queries so that there are so many, evenly over (verb, noun) pairs;
            see [`upsample`]. Contexts are drawn from the actions as they are.

    Raises:
        ValueError: for verbs and nouns of unequal number, and values out of range.
    """

    def __init__(
        self,
        verbs: Sequence,
        nouns: Sequence,
        *,
        num_examples: int,
        verb_noun_ratio: float = 0.5,
        random: bool = False,
        seed: int = 0,
        queries: tuple[Sequence, Sequence] | None = None,
        target_length: int | None = None,
    ):
        if num_examples < 0:
            raise ValueError(f"`num_examples` must not be negative, but is {num_examples}")
        if not 0 <= verb_noun_ratio <= 1:
            raise ValueError(f"`verb_noun_ratio` must be from 0 to 1, but is {verb_noun_ratio}")
        _check_seed(seed)
        self.num_examples = num_examples
        self.verb_noun_ratio = verb_noun_ratio
        self.random = random
        self.seed = seed

        verb_codes, noun_codes = {}, {}
        verbs, nouns = _encode_actions(verbs, nouns, verb_codes, noun_codes, "verbs", "nouns")
        self.num_actions = len(verbs)
        # Before codes are added for the queries' own words, which no action has.
        self._by_verb = ActionGroups(verbs, nouns, len(verb_codes), len(noun_codes))
        self._by_noun = ActionGroups(nouns, verbs, len(noun_codes), len(verb_codes))
        self._place_by_verb = np.empty_like(self._by_verb.rows)
        self._place_by_verb[self._by_verb.rows] = np.arange(len(verbs), dtype=np.int32)
        self._excludes_query = queries is None
        if queries is not None:
            verbs, nouns = _encode_actions(*queries, verb_codes, noun_codes, "queries[0]", "queries[1]")
        self._query_verbs, self._query_nouns = verbs, nouns
        self._unshared_verbs = {verb_codes.get(verb) for verb in _SHARED_BY_NOBODY["verb"]}
        self._unshared_nouns = {noun_codes.get(noun) for noun in _SHARED_BY_NOBODY["noun"]}
        self._queries = None
        if target_length is not None:
            rng = np.random.default_rng([seed, 0, 0, _UPSAMPLING])
            self._queries = repeat_evenly(verbs, nouns, target_length, rng)
        available = self.num_actions - self._excludes_query
        if random and num_examples > available:
            raise ValueError(f"`num_examples` is {num_examples}, but there are {available} actions to draw from")

    def __len__(self) -> int:
        return len(self._query_verbs) if self._queries is None else len(self._queries)

    def query(self, index: int) -> int:
        """
        The row of the query of sample `index`.

        Raises:
            IndexError: if there is no such sample.
        """
        check_index(index, len(self))
        return int(index if self._queries is None else self._queries[index])

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """
        Draws a context.

        Args:
            index (`int`): of the sample.
            epoch (`int`, *optional*, defaults to 0): another epoch, another draw.

        Returns:
            `list[int]`: different rows of the actions, in random order.

        Raises:
            IndexError: if there is no such sample.
        """
        query = self.query(index)
        rng = np.random.default_rng([self.seed, epoch, index])
        rows = self._draw_any(query, rng) if self.random else self._draw_composed(query, rng)
        return rng.permutation(rows).tolist()

    def _draw_any(self, query: int, rng) -> np.ndarray:
        rows = rng.choice(self.num_actions - self._excludes_query, self.num_examples, replace=False, shuffle=False)
        return rows + (rows >= query) if self._excludes_query else rows

    def _draw_composed(self, query: int, rng) -> np.ndarray:
        verb, noun = int(self._query_verbs[query]), int(self._query_nouns[query])
        verb_pair, noun_pair = self._by_verb.pair(verb, noun), self._by_noun.pair(noun, verb)
        # A pair's rows stand together within their verb's and within their noun's: the rest of a group is the group
        # with one gap. The query itself is in the gap.
        verb_group = verb_pair if verb in self._unshared_verbs else self._by_verb.group(verb)
        noun_group = noun_pair if noun in self._unshared_nouns else self._by_noun.group(noun)
        num_verb, num_noun = shares(
            self.num_examples,
            self.verb_noun_ratio,
            span_length(verb_group) - span_length(verb_pair),
            span_length(noun_group) - span_length(noun_pair),
        )
        of_verb = self._by_verb.rows[draw_around(verb_group, verb_pair, num_verb, rng)]
        of_noun = self._by_noun.rows[draw_around(noun_group, noun_pair, num_noun, rng)]
        missing = self.num_examples - num_verb - num_noun
        if not missing:
            return np.concatenate([of_verb, of_noun])
        # Both groups are used up: what is left is everything but the verb's group (or the pair) and `of_noun`.
        taken = np.sort(self._place_by_verb[of_noun]).astype(np.int64)
        places = draw_outside(self.num_actions, verb_group, taken, missing, rng)
        return np.concatenate([of_verb, of_noun, self._by_verb.rows[places]])


class BalancedContextSampler:
    r"""
    Draws contexts whose words alone don't tell the answer: as often as the query's verb stands in them another verb,
    and as often as its noun another noun.

    Of a query (verb, noun), one half of the examples has its verb and `num_distractors` other nouns, the other half
    its noun and `num_distractors` other verbs; of an odd `num_examples`, the draw decides which half gets the one
    more. The other nouns, and the other verbs, share their half evenly; where that does not come out even, the draw
    decides which of them have one more. An action of the query's own (verb, noun) is never drawn, nor one twice.

    With one distractor, and (verb, noun) asked about, half of the examples are (verb, other noun) and half (other
    verb, noun): the query's verb and the other one are as frequent, and so are the nouns. A question about (other
    verb, other noun) would draw the same. What always answers the more frequent verb is right in half of the cases;
    the same goes for the noun. With more distractors, each is that much rarer than the query's own verb and noun.

    The other nouns are drawn from those of which there are enough actions with the query's verb, each as likely, and
    their actions likewise; so are the other verbs. Enough is `ceil(ceil(num_examples / 2) / num_distractors)`. A query
    of which there are fewer than `num_distractors` such nouns, or such verbs, is left out, with a warning that says
    how many are; `left_out` has their rows. The verbs "" and "[other]" and the noun "" are shared by no two actions:
    who has one is left out, and they are no distractors.

    Who knows which pairs there are may still tell: often there is no action of (other verb, other noun).
    `counterpart` draws, for one distractor, only other words of which there is such an action, each two of them as
    likely, and leaves out queries that have none. How much more often (verb, noun) comes is not evened out.

    A draw takes the same time whatever the number of actions. With `counterpart` it grows with the number of
    different verbs times that of nouns.

    Since many examples of a context have the same verb and noun, `derange_clips` of [`InContextDataset`] exchanges
    many a clip for one of the same.

    Args:
        verbs (`Sequence[str]`): the actions that examples are drawn from: their `structured_verb`, or class numbers.
        nouns (`Sequence[str]`): their `structured_noun`.
        num_examples (`int`): in a context, at least `2 * num_distractors`.
        num_distractors (`int`, *optional*, defaults to 1): how many other verbs, and how many other nouns.
        counterpart (`bool`, *optional*, defaults to `False`): see above.
        seed (`int`, *optional*, defaults to 0): of all draws, not negative.
        queries (`tuple[Sequence[str], Sequence[str]]`, *optional*): verbs and nouns of the actions to ask about, where
            they are of another data set. By default, the actions themselves.

    Attributes:
        left_out (`np.ndarray`): rows of the queries that there is no such context for, in order.

    Raises:
        ValueError: for verbs and nouns of unequal number, values out of range, and if there is a context for no query.
    """

    def __init__(
        self,
        verbs: Sequence,
        nouns: Sequence,
        *,
        num_examples: int,
        num_distractors: int = 1,
        counterpart: bool = False,
        seed: int = 0,
        queries: tuple[Sequence, Sequence] | None = None,
    ):
        if num_distractors < 1:
            raise ValueError(f"`num_distractors` must be at least 1, but is {num_distractors}")
        if num_examples < 2 * num_distractors:
            raise ValueError(
                f"`num_examples` must be at least twice `num_distractors`, {2 * num_distractors}, but is "
                f"{num_examples}"
            )
        if counterpart and num_distractors > 1:
            raise ValueError(f"`counterpart` is for one distractor, but `num_distractors` is {num_distractors}")
        _check_seed(seed)
        self.num_examples = num_examples
        self.num_distractors = num_distractors
        self.counterpart = counterpart
        self.seed = seed

        verb_codes, noun_codes = {}, {}
        verbs, nouns = _encode_actions(verbs, nouns, verb_codes, noun_codes, "verbs", "nouns")
        unshared_verbs = [verb_codes.setdefault(verb, len(verb_codes)) for verb in _SHARED_BY_NOBODY["verb"]]
        unshared_nouns = [noun_codes.setdefault(noun, len(noun_codes)) for noun in _SHARED_BY_NOBODY["noun"]]
        enough = -(-((num_examples + 1) // 2) // num_distractors)
        by_verb = ActionGroups(verbs, nouns, len(verb_codes), len(noun_codes))
        by_noun = ActionGroups(nouns, verbs, len(noun_codes), len(verb_codes))
        self._with_verb = LargePairs(by_verb, enough, without_minor=unshared_nouns)
        self._with_noun = LargePairs(by_noun, enough, without_minor=unshared_verbs)
        if queries is not None:
            verbs, nouns = _encode_actions(*queries, verb_codes, noun_codes, "queries[0]", "queries[1]")
        self._query_verbs, self._query_nouns = verbs, nouns

        few_nouns = np.isin(verbs, unshared_verbs) | (self._with_verb.count_others(verbs, nouns) < num_distractors)
        few_verbs = np.isin(nouns, unshared_nouns) | (self._with_noun.count_others(nouns, verbs) < num_distractors)
        impossible = few_nouns | few_verbs
        if counterpart:
            self._is_pair = np.zeros((by_verb.num_major, by_verb.num_minor), bool)
            self._is_pair.flat[by_verb.pair_keys] = True
            impossible |= self._without_counterpart(~impossible)
        self._queries, self.left_out = np.flatnonzero(~impossible), np.flatnonzero(impossible)
        if len(self.left_out):
            no_counterpart = len(self.left_out) - int((few_nouns | few_verbs).sum())
            self._tell(int(few_nouns.sum()), int(few_verbs.sum()), no_counterpart, enough)

    def _tell(self, few_nouns: int, few_verbs: int, no_counterpart: int, enough: int):
        message = (
            f"For {len(self.left_out)} of {len(self._query_verbs)} queries there is no balanced context of "
            f"{self.num_examples} examples: {few_nouns} have a verb with fewer than {self.num_distractors} other "
            f"nouns of at least {enough} actions, {few_verbs} a noun with as few other verbs"
        )
        if self.counterpart:
            message += f"; {no_counterpart} more have no other verb and other noun with an action of both"
        if not len(self._queries):
            raise ValueError(f"{message}. Take fewer examples, or more actions")
        warnings.warn(f"{message}. They are left out", UserWarning, stacklevel=3)

    def _without_counterpart(self, possible: np.ndarray) -> np.ndarray:
        """Those of the possible queries that have none, of shape (num_queries,)."""
        missing = np.zeros(len(possible), bool)
        if possible.any():
            words = np.stack([self._query_verbs, self._query_nouns])[:, possible]
            pairs, places = np.unique(words, axis=1, return_inverse=True)
            of_pair = np.array([not len(self._counterparts(verb, noun)[0]) for verb, noun in pairs.T.tolist()])
            missing[possible] = of_pair[places.reshape(-1)]
        return missing

    def _counterparts(self, verb: int, noun: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each possible two of another noun and another verb, where their pairs with the query's words stand."""
        of_verb, of_noun = self._with_verb.others(verb, noun), self._with_noun.others(noun, verb)
        other_nouns = self._with_verb.keys[of_verb] % self._is_pair.shape[1]
        other_verbs = self._with_noun.keys[of_noun] % self._is_pair.shape[0]
        nouns, verbs = np.nonzero(self._is_pair[np.ix_(other_verbs, other_nouns)].T)
        return of_verb[nouns], of_noun[verbs]

    def __len__(self) -> int:
        return len(self._queries)

    def query(self, index: int) -> int:
        """
        The row of the query of sample `index`. Samples are in the order of the rows, without those left out.

        Raises:
            IndexError: if there is no such sample.
        """
        check_index(index, len(self))
        return int(self._queries[index])

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """
        Draws a context.

        Args:
            index (`int`): of the sample.
            epoch (`int`, *optional*, defaults to 0): another epoch, another draw.

        Returns:
            `list[int]`: `num_examples` different rows of the actions, in random order.

        Raises:
            IndexError: if there is no such sample.
        """
        query = self.query(index)
        verb, noun = int(self._query_verbs[query]), int(self._query_nouns[query])
        rng = np.random.default_rng([self.seed, epoch, index])
        num_verb = (self.num_examples + int(rng.integers(2))) // 2
        if self.counterpart:
            of_verb, of_noun = self._counterparts(verb, noun)
            drawn = int(rng.integers(len(of_verb)))
            of_verb, of_noun = of_verb[drawn : drawn + 1], of_noun[drawn : drawn + 1]
        else:
            of_verb = self._with_verb.draw_others(verb, noun, self.num_distractors, rng)
            of_noun = self._with_noun.draw_others(noun, verb, self.num_distractors, rng)
        rows = []
        for pairs, places, number in (
            (self._with_verb, of_verb, num_verb),
            (self._with_noun, of_noun, self.num_examples - num_verb),
        ):
            numbers = self._share_out(number, rng)
            rows += [pairs.draw_rows(place, count, rng) for place, count in zip(places, numbers)]
        return rng.permutation(np.concatenate(rows)).tolist()

    def _share_out(self, number: int, rng) -> list[int]:
        """How many actions of each distractor."""
        each, remainder = divmod(number, self.num_distractors)
        return rng.permutation([each + 1] * remainder + [each] * (self.num_distractors - remainder)).tolist()


def upsample(verbs: Sequence, nouns: Sequence, target_length: int, *, seed: int = 0) -> np.ndarray:
    """
    Repeats actions until there are `target_length`, so that each (verb, noun) pair gets as many more as any other, or
    one more where that does not come out even. Within a pair no action is repeated twice before all are once.

    Args:
        verbs, nouns (`Sequence[str]`): of the actions.
        target_length (`int`): how many there shall be. No action is left out if it is smaller than their number.
        seed (`int`, *optional*, defaults to 0): decides which ones are repeated.

    Returns:
        `np.ndarray`: rows of the actions: each once, in order, then the repeated ones.

    Raises:
        ValueError: if there is no action, or there are not as many nouns as verbs.
    """
    verbs, nouns = _encode_actions(verbs, nouns, {}, {}, "verbs", "nouns")
    return repeat_evenly(verbs, nouns, target_length, np.random.default_rng([seed, 0, 0, _UPSAMPLING]))


# ------------------------------------------------------------------------------------------------------------ details


def check_lengths(first, second, first_name: str, second_name: str):
    """Raises ValueError if two columns are of unequal length."""
    if len(first) != len(second):
        raise ValueError(f"`{first_name}` has {len(first)} values, but `{second_name}` has {len(second)}")


def check_index(index: int, length: int):
    """Raises IndexError if there is no such sample."""
    if not 0 <= index < length:
        raise IndexError(f"There are {length} samples, but no sample {index}")


def _check_seed(seed: int):
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, but is {seed}")


def _encode_actions(verbs, nouns, verb_codes: dict, noun_codes: dict, verbs_name: str, nouns_name: str):
    """Numbers for the verbs and nouns of as many actions; new words are added to the codes."""
    verbs, nouns = encode_words(verbs, verb_codes), encode_words(nouns, noun_codes)
    check_lengths(verbs, nouns, verbs_name, nouns_name)
    return verbs, nouns


__all__ = ["BalancedContextSampler", "ContextSampler", "InContextSampler", "upsample"]
