"""The verbs and nouns that are told apart, and the words that narrations have for them."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.fho_words import load_fho_words
from ..data.standard_sentences import words_of_noun, words_of_verb


@dataclass(frozen=True)
class Taxonomy:
    """
    Classes, and the words that each is called by.

    Attributes:
        verbs (`dict[str, list[str]]`): of each `structured_verb` its words, as they follow "The camera wearer".
        nouns (`dict[str, list[str]]`): of each `structured_noun` its words with their article, as they follow a verb.

    Raises:
        ValueError: if there are no verbs or no nouns; for a class without words, or with an empty one, by its label.
    """

    verbs: Mapping[str, Sequence[str]]
    nouns: Mapping[str, Sequence[str]]

    def __post_init__(self):
        for kind, words in (("verbs", self.verbs), ("nouns", self.nouns)):
            if not words:
                raise ValueError(f"There is no class among the {kind}")
            silent = [label for label, of_label in words.items() if not of_label or not all(map(str.strip, of_label))]
            if silent:
                raise ValueError(f"The class {silent[0]!r} of the {kind} has no words, or an empty one")

    @classmethod
    def fho(cls) -> "Taxonomy":
        """Ego4D's FHO taxonomy in the original's words: 117 verbs and 521 nouns."""
        words = load_fho_words()
        return cls(words.verbs, words.nouns)

    @classmethod
    def of_labels(cls, verbs: Iterable[str], nouns: Iterable[str]) -> "Taxonomy":
        """
        Of whatever labels a data set has: its `structured_verb` and `structured_noun`, in words that their labels say.
        Labels that say nothing ("", "[other]") are no class.
        """
        return cls(_spelled(verbs, words_of_verb), _spelled(nouns, words_of_noun))

    @classmethod
    def from_csv(cls, verbs: str | os.PathLike, nouns: str | os.PathLike) -> "Taxonomy":
        """
        Of two files in the original's form, `prompt,structured_verb` and `prompt,structured_noun`, a line for a word.

        Raises:
            ValueError: for another form, with file, line and field.
        """
        return cls(_read_words(verbs, "structured_verb"), _read_words(nouns, "structured_noun"))


@dataclass(frozen=True)
class Candidates:
    """
    The words of all classes in one row, to score.

    Attributes:
        words (`list[str]`): in the order of the classes.
        labels (`list[str]`): the classes.
        class_of_word (`np.ndarray` of shape `(num_words,)`): whose each word is.
    """

    words: list[str]
    labels: list[str]
    class_of_word: np.ndarray

    @classmethod
    def of(cls, words_of: Mapping[str, Sequence[str]]) -> "Candidates":
        labels = list(words_of)
        pairs = [(word, number) for number, label in enumerate(labels) for word in words_of[label]]
        words, classes = zip(*pairs)
        return cls(list(words), labels, np.array(classes))

    def class_scores(self, scores: np.ndarray) -> np.ndarray:
        """
        Of each class the score of its best word.

        Args:
            scores (`np.ndarray` of shape `(num_queries, num_words)`): of the words.

        Returns:
            `np.ndarray` of shape `(num_queries, num_classes)`.
        """
        best = np.full((len(scores), len(self.labels)), -np.inf, dtype=np.float64)
        np.maximum.at(best, (slice(None), self.class_of_word), scores)
        return best


def _spelled(labels: Iterable[str], words_of) -> dict[str, list[str]]:
    spelled = {label: words_of(label) for label in sorted({*labels} - {None})}
    return {label: words for label, words in spelled.items() if words}


def _read_words(path: str | os.PathLike, column: str) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    with open(Path(path), newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"prompt", column} <= {*(reader.fieldnames or ())}:
            raise ValueError(f"{path} must have the columns prompt and {column}, but has {reader.fieldnames}")
        for row in reader:
            if not (row["prompt"] or "").strip() or not (row[column] or "").strip():
                raise ValueError(f"{path}, line {reader.line_num}: `prompt` or `{column}` is empty: {row}")
            words.setdefault(row[column], []).append(row["prompt"].strip())
    return words


__all__ = ["Candidates", "Taxonomy"]
