"""The words that the original has for the verbs and nouns of Ego4D's FHO taxonomy."""

import csv
from dataclasses import dataclass
from pathlib import Path


_FOLDER = Path(__file__).parent / "fho_taxonomy"


@dataclass(frozen=True)
class FhoWords:
    """
    What each class is called, in the order of the original's files; their slips are kept.

    Attributes:
        verbs (`dict[str, list[str]]`): of each `structured_verb` its words in the third person, such as "plugs in".
        nouns (`dict[str, list[str]]`): of each `structured_noun` its words, with an article where they have one.
    """

    verbs: dict[str, list[str]]
    nouns: dict[str, list[str]]


def load_fho_words() -> FhoWords:
    """Reads them: 187 words for 117 verbs and 792 words for 521 nouns."""
    return FhoWords(verbs=_read("structured_verb"), nouns=_read("structured_noun"))


def _read(column: str) -> dict[str, list[str]]:
    words = {}
    with open(_FOLDER / f"{column}_prompt.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            words.setdefault(row[column], []).append(row["prompt"])
    return words


__all__ = ["FhoWords", "load_fho_words"]
