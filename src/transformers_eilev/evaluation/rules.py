"""
What can be said of a clip without looking: from the words of the context alone.

Each rule takes the context's narrations, their rows (`structured_verb`, `structured_noun`) and randomness, by which
ties are drawn, and gives a narration.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..data.narrations import NO_LABELS
from ..data.plain_narrations import build_narration, parse_narration
from ..data.standard_sentences import action_to_sentence


def say_frequent_sentence(narrations: Sequence[str], rows: Sequence[Mapping], rng: np.random.Generator) -> str:
    """The most frequent narration."""
    return most_frequent(narrations, rng)


def say_frequent_action(narrations: Sequence[str], rows: Sequence[Mapping], rng: np.random.Generator) -> str:
    """
    A sentence of the most frequent verb and the most frequent noun, each by itself: of the narrations' own words where
    all are plain ("The camera wearer VERB the NOUN."), else of their labels. "" if none has such a label.
    """
    pairs = [parse_narration(narration) for narration in narrations]
    if all(pairs):
        verbs, nouns = zip(*pairs)
        return build_narration(most_frequent(verbs, rng), most_frequent(nouns, rng))
    verb, noun = (frequent_label(rows, kind, rng) for kind in ("verb", "noun"))
    return action_to_sentence(verb, noun) or ""


def say_unseen_pair(narrations: Sequence[str], rows: Sequence[Mapping], rng: np.random.Generator) -> str:
    """
    The verb and noun of plain narrations that are most frequent, counted together, among those that don't stand in the
    context side by side: the best that can be made of a balanced context's words
    ([`~transformers_eilev.data.BalancedContextSampler`]). Where all do, as `say_frequent_action`.

    Raises:
        ValueError: for a narration that is not plain.
    """
    pairs = [parse_narration(narration) for narration in narrations]
    if not all(pairs):
        raise ValueError(f"`unseen_pair` needs plain narrations, but one is {narrations[pairs.index(None)]!r}")
    verbs, nouns = (Counter(words) for words in zip(*pairs))
    unseen = {(v, n): verbs[v] + nouns[n] for v in sorted(verbs) for n in sorted(nouns) if (v, n) not in pairs}
    if not unseen:
        return say_frequent_action(narrations, rows, rng)
    return build_narration(*most_frequent(Counter(unseen), rng))


def frequent_label(rows: Sequence[Mapping], kind: str, rng: np.random.Generator) -> str:
    """
    The most frequent `structured_verb` or `structured_noun`, of those that say something; "" if none does.

    Args:
        kind (`str`): "verb" or "noun".
    """
    labels = [label for row in rows if (label := row[f"structured_{kind}"]) not in NO_LABELS]
    return most_frequent(labels, rng) if labels else ""


def most_frequent(items: Iterable | Counter, rng: np.random.Generator):
    """The most frequent of some items that can be ordered, ties by chance."""
    counts = Counter(items)
    most = max(counts.values())
    first = sorted(item for item, count in counts.items() if count == most)
    return first[int(rng.integers(len(first)))]


__all__ = ["frequent_label", "most_frequent", "say_frequent_action", "say_frequent_sentence", "say_unseen_pair"]
