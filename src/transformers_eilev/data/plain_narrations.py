"""Sentences that say a verb and a noun and nothing else: "The camera wearer VERB the NOUN.\""""

import re

from .narrations import SUBJECT


_NARRATION = re.compile(rf"{SUBJECT} (\w.*?) the (\w.*?)\.?")


def parse_narration(narration: str) -> tuple[str, str] | None:
    """
    The verb and the noun of "The camera wearer VERB the NOUN.": the words between the subject and the first "the", and
    all behind it. The full stop may be missing; nothing else may, and nothing may follow in another line.

    Args:
        narration (`str`): a sentence, without space around it.

    Returns:
        `tuple[str, str]`, such as ("picks up", "left glove"), or `None` for any other sentence.
    """
    match = _NARRATION.fullmatch(narration)
    return match and match.groups()


def build_narration(verb: str, noun: str) -> str:
    """
    What `parse_narration` takes apart: "The camera wearer VERB the NOUN."

    Args:
        verb (`str`): in the third person, such as "picks up".
        noun (`str`): without article, such as "left glove".
    """
    return f"{SUBJECT} {verb} the {noun}."


__all__ = ["build_narration", "parse_narration"]
