"""What was said, in a file that a stopped run goes on with, and how much of it is right."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformers_eilev.data.narrations import SUBJECT


_NARRATION = re.compile(rf"{SUBJECT} (\w.*?) the (\w.*?)\.?")
# What a prediction is told by, before it is made.
PLACE = ("condition", "shots", "index", "query", "context", "reference")


def parse_narration(narration: str) -> tuple[str, str] | None:
    """
    The verb and the noun of "The camera wearer VERB the NOUN.": the words between the subject and the first "the", and
    all behind it. The full stop may be missing; nothing else may, and nothing may follow in another line.

    Returns:
        `tuple[str, str]`, such as ("picks up", "left glove"), or `None` for any other sentence.
    """
    match = _NARRATION.fullmatch(narration)
    return match and match.groups()


def bootstrap_interval(
    values: Sequence[float], seed: int, *, level: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean: between which numbers `level` of the means of resamples lie."""
    values = np.asarray(values, float)
    rng = np.random.default_rng([seed])
    means = values[rng.integers(len(values), size=(num_resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def parse_reference(narration: str) -> tuple[str, str]:
    """As `parse_narration`, but any other sentence is a ValueError."""
    words = parse_narration(narration)
    if words is None:
        raise ValueError(f"The narration {narration!r} has no verb and noun like '{SUBJECT} VERB the NOUN.'")
    return words


def build_narration(verb: str, noun: str) -> str:
    """What `parse_narration` takes apart."""
    return f"{SUBJECT} {verb} the {noun}."


def score(predictions: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """
    What `evaluate_shots` returns of the predictions of one (condition, shots).

    Args:
        predictions (`Sequence[Mapping]`): each with `narration` and `reference`.
        seed (`int`): of the intervals.

    Raises:
        ValueError: if there is none; a reference without verb and noun.
    """
    if not predictions:
        raise ValueError("There is no prediction to score")
    narrations = [prediction["narration"] for prediction in predictions]
    references = [prediction["reference"] for prediction in predictions]
    said = [parse_narration(narration) or (None, None) for narration in narrations]
    verbs, nouns = zip(*said)
    true_verbs, true_nouns = zip(*map(parse_reference, references))
    scores = {"n": len(predictions)}
    for name, given, true in (
        ("exact", narrations, references),
        ("verb", verbs, true_verbs),
        ("noun", nouns, true_nouns),
    ):
        right = [a == b for a, b in zip(given, true)]
        scores[name] = float(np.mean(right))
        scores[f"{name}_interval"] = list(bootstrap_interval(right, seed))
    empty = sum(not narration.strip() for narration in narrations)
    return {**scores, "empty": empty, "unparsable": verbs.count(None) - empty}


class Predictions:
    """
    Predictions in their order, in a file if there is a path for one: those that it has are not made again. For `with`.

    The file's first line says what made them, each other is a prediction: `PLACE` and its `narration`.

    Args:
        path (`str`, *optional*): of the file.
        model (`str`): where it is from.
        settings (`Mapping`): all that decides what is said, as JSON takes it.

    Raises:
        ValueError: if there is a file of other settings, with their names, or of something else.
    """

    def __init__(self, path: str | os.PathLike | None, model: str, settings: Mapping[str, Any]):
        self._path = None if path is None else Path(path)
        self._header = {"model": model, "settings": json.loads(json.dumps(settings))}
        self._made, self._next, self._file = [], 0, None

    def __enter__(self):
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            length = self._read() if self._path.exists() else 0
            self._file = open(self._path, "ab")  # noqa: SIM115
            # The last line of a run that was killed may be torn.
            self._file.truncate(length)
            if not length:
                self._write([self._header])
        return self

    def __exit__(self, *_):
        if self._file is not None:
            self._file.close()

    def complete(self, batch: Sequence[Mapping[str, Any]], say: Callable[[], list[str]]) -> None:
        """
        Makes those predictions of a batch, the next ones, that are not there.

        Args:
            batch (`Sequence[Mapping]`): all that is known of them.
            say (`Callable`): the narrations of the whole batch: a part of it, padded otherwise, might get others.
        """
        there = self._made[self._next : self._next + len(batch)]
        for number, (made, expected) in enumerate(zip(there, batch), start=self._next + 2):
            if made.get("narration") is None or any(made.get(name) != expected[name] for name in PLACE):
                raise ValueError(f"{self._path}, line {number}: the prediction is not that of these settings' sample")
        if len(there) < len(batch):
            new = [{**expected, "narration": said} for expected, said in zip(batch, say(), strict=True)][len(there) :]
            self._made += new
            self._write(new)
        self._next += len(batch)

    def last(self, number: int) -> list[dict[str, Any]]:
        """The last ones that were completed."""
        return self._made[self._next - number : self._next]

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self._file is not None:
            self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            self._file.flush()

    def _read(self) -> int:
        """Takes what there is, and returns the length of it in bytes."""
        content = self._path.read_bytes()
        length = content.rfind(b"\n") + 1
        if not length and (json.dumps(self._header, ensure_ascii=False) + "\n").encode().startswith(content):
            return 0
        lines = list(_parse_lines(content[:length], self._path))
        there = lines[0].get("settings") if lines else None
        if not isinstance(there, dict):
            raise ValueError(f"{self._path} has other things than predictions in it")
        settings = self._header["settings"]
        different = [name for name in {**settings, **there} if settings.get(name) != there.get(name)]
        if different:
            was, now = (str(values.get(different[0]))[:80] for values in (there, settings))
            raise ValueError(
                f"{self._path} has predictions of other settings: {', '.join(different)} ({different[0]} was {was}, "
                f"is {now}). Give another `predictions_path`, or delete it"
            )
        self._made = lines[1:]
        return length


def _parse_lines(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.splitlines(), start=1):
        value = None
        with contextlib.suppress(ValueError):
            value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: no JSON object: {line[:80]!r}")
        yield value


__all__ = [
    "PLACE",
    "Predictions",
    "bootstrap_interval",
    "build_narration",
    "parse_narration",
    "parse_reference",
    "score",
]
