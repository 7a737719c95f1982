"""One sentence for all actions of a verb and a noun, made of their labels by rule."""

from functools import cache

from .fho_words import FhoWords, load_fho_words
from .narrations import NO_LABELS, SUBJECT, phrases_of_label, third_person


# What follows a verb that takes no object of its own: "sits on the chair".
_PREPOSITIONS = {
    "converses": "with",
    "disposes": "of",
    "interacts": "with",
    "lets go": "of",
    "looks": "at",
    "points": "at",
    "searches": "for",
    "sits": "on",
    "stands": "on",
    "steps": "on",
    "talks": "to",
    "transitions": "to",
    "waits": "for",
    "walks": "around",
    "writes": "on",
}
# EPIC-KITCHENS' annotators have "put-into" for a verb, and for the noun what is put, not what into.
_OF_ANOTHER_NOUN = frozenset(["from", "in", "inside", "into", "of", "on", "onto", "to", "with"])
# Where such a word is part of the verb.
_PHRASAL = frozenset(["plugs in", "puts on", "switches on", "turns on"])
# Words without article, though not things.
_PRONOUNS = frozenset(["herself", "himself", "them"])
_ARTICLES = ("a ", "an ", "the ")
# Slips of the original's list, which a sentence need not have.
_CORRECTED = {"filer": "filler", "past": "pasta", "piler": "pliers", "plan pot": "plant pot"}


def words_of_verb(structured_verb: str | None) -> list[str]:
    """
    What a verb is called, in the third person: the original's words for a class of Ego4D's, what the label says for
    any other. "cut_(trim,_slice,_chop)" is "cuts", "trims", "slices", "chops"; "put-down" is "puts down".

    Returns:
        `list[str]`: none for a label that says nothing ("", "[other]" or `None`).
    """
    if structured_verb in NO_LABELS:
        return []
    if structured_verb in _fho_words().verbs:
        return list(_fho_words().verbs[structured_verb])
    heads_and_rests = (phrase.split(" ", 1) for phrase in phrases_of_label(structured_verb))
    return _once(" ".join([third_person(head), *rest]) for head, *rest in heads_and_rests)


def words_of_noun(structured_noun: str | None) -> list[str]:
    """
    What a noun is called, with "the": the original's words for a class of Ego4D's, what the label says for any other.
    "cup_(cup,_mug,_tumbler)" is "the cup", "the mug", "the tumbler"; "board:chopping" is "the chopping board".

    Returns:
        `list[str]`: none for a label that says nothing ("", "[other]" or `None`).
    """
    if structured_noun in NO_LABELS:
        return []
    words = _fho_words().nouns.get(structured_noun) or phrases_of_label(structured_noun)
    return _once(map(_with_the, words))


def action_to_sentence(structured_verb: str | None, structured_noun: str | None) -> str | None:
    """
    The sentence of a verb and a noun, in the first word of each: "take_(pick,_grab,_get)" and
    "cup_(cup,_mug,_tumbler)" make "The camera wearer takes the cup.", EPIC-KITCHENS' "put-down" and "board:chopping"
    make "The camera wearer puts down the chopping board."

    Args:
        structured_verb (`str`, *optional*): the verb's label.
        structured_noun (`str`, *optional*): the noun's label.

    Returns:
        `str`, *optional*: without an object ("The camera wearer walks.") where the noun's label says nothing, and
        `None` where the verb's says nothing ("", "[other]" or `None`): there is no action to tell then.
    """
    verbs, nouns = words_of_verb(structured_verb), words_of_noun(structured_noun)
    if not verbs:
        return None
    return " ".join([SUBJECT, *([before_noun(verbs[0]), nouns[0]] if nouns else verbs[:1])]) + "."


def before_noun(verb: str) -> str:
    """A verb's word as it stands before a noun: "sits on" for "sits", and "puts" for "puts into"."""
    head, _, last = verb.rpartition(" ")
    if head and last in _OF_ANOTHER_NOUN and verb not in _PHRASAL:
        verb = head
    return " ".join([verb, _PREPOSITIONS[verb]]) if verb in _PREPOSITIONS else verb


# ------------------------------------------------------------------------------------------------------------ details


@cache
def _fho_words() -> FhoWords:
    return load_fho_words()


def _with_the(word: str) -> str:
    article = next((article for article in _ARTICLES if word.startswith(article)), "")
    word = word.removeprefix(article)
    return word if word in _PRONOUNS else f"the {_CORRECTED.get(word, word)}"


def _once(words) -> list[str]:
    return list(dict.fromkeys(words))


__all__ = ["action_to_sentence", "before_noun", "words_of_noun", "words_of_verb"]
