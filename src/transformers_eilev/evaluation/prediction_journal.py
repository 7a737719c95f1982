"""
Predictions on their way to disk: written by any number of processes batch by batch, so that a run that was killed goes
on, with the same number of processes or another, and at the end each is there once.

In the folder of a run:

    settings.json                   what decides the predictions
    predictions.part-0.jsonl        those of process 0, as they are made
    predictions.jsonl               all of them in order, once they are there; the parts are gone then

Batches are the same whoever makes them: a clip in other company, and padded otherwise, may be narrated otherwise.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.files import atomic_file, write_json


SETTINGS_NAME, PREDICTIONS_NAME = "settings.json", "predictions.jsonl"
_PART = re.compile(r"predictions\.part-\d+\.jsonl")


class PredictionJournal:
    """
    The predictions of one run.

    Args:
        folder (`str`): of the run; made if it is not there.
        expected (`Sequence[Mapping]`): what is known of each prediction before it is made, as JSON takes it; with its
            place as `index`.
        settings (`Mapping`): all that decides what is predicted, as JSON takes it.
        batch_size (`int`): predictions at a time.
        overwrite (`bool`, defaults to `False`): drop what other settings have left.

    Raises:
        ValueError: if the folder has predictions of other settings or other samples, with what differs; something else
            than predictions, with file and line.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        expected: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
        *,
        batch_size: int,
        overwrite: bool = False,
    ):
        self.folder = Path(folder)
        self.expected = json.loads(json.dumps(expected))
        self.settings = json.loads(json.dumps({**settings, "batch_size": batch_size}))
        self.batch_size = batch_size
        self.overwrite = overwrite

    def prepare(self) -> list[range]:
        """
        Settles, in one process and before the others begin, whether what is there is gone on with.

        Returns:
            `list[range]`: the batches that are missing, by the places of their samples: all of them are to be
            completed, each by one process.

        Raises:
            ValueError: if what is there is of other settings, or is no prediction.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS_NAME
        if path.exists():
            there, now_settings = _flat(_read_settings(path)), _flat(self.settings)
            differences = [name for name in {**there, **now_settings} if there.get(name) != now_settings.get(name)]
            if not differences:
                return self._missing_batches()
            if not self.overwrite:
                name = differences[0]
                was, now = (str(values.get(name))[:80] for values in (there, now_settings))
                raise ValueError(
                    f"{self.folder} has predictions of other settings: {', '.join(differences)} ({name} was {was}, is "
                    f"{now}). Give another folder, or overwrite them"
                )
        elif not self.overwrite and (self.folder / PREDICTIONS_NAME).exists():
            raise ValueError(f"{self.folder} has predictions, but no {SETTINGS_NAME} that says of what")
        for leftover in [*self._parts(), self.folder / PREDICTIONS_NAME, self.folder / "results.json"]:
            leftover.unlink(missing_ok=True)
        write_json(path, self.settings)
        return self._missing_batches()

    def complete(
        self,
        batches: Sequence[range],
        predict: Callable[[Sequence[int]], list[Mapping[str, Any]]],
        *,
        rank: int = 0,
        progress: Callable[[int], Any] = lambda number: None,
    ) -> None:
        """
        Makes a process's share of the predictions.

        Args:
            batches (`Sequence[range]`): of those that `prepare` returned.
            predict (`Callable`): gives what is added to each of the samples of a batch, by their places.
            rank (`int`, defaults to 0): of the process, which has a file of its own.
            progress (`Callable[[int], Any]`, *optional*): told how many more there are, after each batch.

        Raises:
            ValueError: if `predict` gives more or fewer than asked for.
        """
        path = self.folder / f"predictions.part-{rank}.jsonl"
        with open(path, "ab") as file:
            file.truncate(_whole_lines(path))
            for batch in batches:
                said = predict(batch)
                if len(said) != len(batch):
                    raise ValueError(f"{len(batch)} predictions are wanted, but {len(said)} were made")
                lines = [{**self.expected[index], **own} for index, own in zip(batch, said)]
                file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
                progress(len(batch))

    def finish(self) -> list[dict[str, Any]]:
        """
        Joins the parts, in one process and after all have done their share, and gives all predictions in order.

        Raises:
            ValueError: if one is missing, or not of the sample in its place.
        """
        path = self.folder / PREDICTIONS_NAME
        if path.exists():
            predictions = list(_read_lines(path))
            if len(predictions) != len(self.expected):
                number = len(self.expected)
                raise ValueError(f"{path} has {len(predictions)} predictions, but there are {number} samples")
            self._check(predictions, path)
        else:
            made = self._read_parts()
            missing = [index for index in range(len(self.expected)) if index not in made]
            if missing:
                raise ValueError(
                    f"{self.folder}: {len(missing)} of {len(self.expected)} predictions are missing, the first is "
                    f"{missing[0]}. Run the same command again"
                )
            predictions = [made[index] for index in range(len(self.expected))]
            with atomic_file(path) as file:
                for prediction in predictions:
                    file.write((json.dumps(prediction, ensure_ascii=False) + "\n").encode())
        for part in self._parts():
            part.unlink()
        return predictions

    def _batches(self) -> list[range]:
        starts = range(0, len(self.expected), self.batch_size)
        return [range(start, min(start + self.batch_size, len(self.expected))) for start in starts]

    def _missing_batches(self) -> list[range]:
        if (self.folder / PREDICTIONS_NAME).exists():
            return []
        made = self._read_parts()
        return [batch for batch in self._batches() if batch[0] not in made]

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if _PART.fullmatch(path.name))

    def _read_parts(self) -> dict[int, dict[str, Any]]:
        """By place; of batches that are whole alone. What two have made is the same: one is as good."""
        made: dict[int, dict[str, Any]] = {}
        for path in self._parts():
            for prediction in _read_lines(path, length=_whole_lines(path)):
                index = prediction.get("index")
                if not isinstance(index, int) or not 0 <= index < len(self.expected):
                    raise ValueError(f"{path}: a prediction's index is {index!r}, of {len(self.expected)} samples")
                self._check([prediction], path)
                made.setdefault(index, prediction)
        for batch in self._batches():
            if not all(index in made for index in batch):
                for index in batch:
                    made.pop(index, None)
        return made

    def _check(self, predictions: Sequence[Mapping[str, Any]], path: Path) -> None:
        for prediction in predictions:
            expected = self.expected[prediction["index"]]
            wrong = [name for name in expected if prediction.get(name) != expected[name]]
            if wrong:
                raise ValueError(
                    f"{path}: prediction {prediction['index']} is of another sample: `{wrong[0]}` is "
                    f"{str(prediction.get(wrong[0]))[:80]!r}, not {str(expected[wrong[0]])[:80]!r}"
                )


def read_predictions(path: str | os.PathLike) -> list[dict[str, Any]]:
    """
    The predictions of a file, or of the folder of a run.

    Args:
        path (`str` or `os.PathLike`): of a file with a JSON object a line, or of a folder with `predictions.jsonl`.

    Returns:
        `list[dict]`: a prediction for each line, in their order.

    Raises:
        ValueError: if a line is no JSON object, with file and line.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    return list(_read_lines(path / PREDICTIONS_NAME if path.is_dir() else path))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """With one level of names, such as "fingerprints.model"."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to its last line break: a process that was killed may have torn its last line."""
    return path.read_bytes().rfind(b"\n") + 1


def _read_lines(path: Path, *, length: int | None = None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes()[:length].splitlines(), start=1):
        value = None
        with contextlib.suppress(ValueError):
            value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: no JSON object: {line[:80]!r}")
        yield value


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no settings of predictions")
    return settings


__all__ = ["PREDICTIONS_NAME", "SETTINGS_NAME", "PredictionJournal", "read_predictions"]
