"""Predictions that somebody else made, to be measured: checked against the clips that they are said to be of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.narrations import clean_narration_text
from .prediction_journal import read_predictions


def load_predictions(
    path: Path, rows: Sequence[Mapping[str, Any]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """
    Reads predictions, a line of JSON each, with a `narration` and either a `reference` or the `query` (the clip's
    `frame_path`) that it is of.

    Args:
        path (`str`): of the file, or of the folder of a run.
        rows (`Sequence[Mapping]`, *optional*): the clips that they shall be of, with `frame_path` and
            `narration_text`, which references are taken from, cleaned.

    Returns:
        `tuple`: the predictions, each with `narration` and `reference`; and counts: `num_clips_without_prediction`.

    Raises:
        ValueError: for a line without a narration; predictions of clips that are not there, as of another split; two
            of one clip; a reference that is missing. With file, line, field and value.
    """
    path = Path(path)
    predictions = read_predictions(path)
    if not predictions:
        raise ValueError(f"{path} has no prediction")
    for number, prediction in enumerate(predictions, start=1):
        if not isinstance(prediction.get("narration"), str):
            raise ValueError(
                f"{path}, line {number}: `narration` must be a text, but is {prediction.get('narration')!r}"
            )
    if rows is None:
        for number, prediction in enumerate(predictions, start=1):
            reference = prediction.get("reference")
            if not isinstance(reference, str) or not reference.strip():
                raise ValueError(f"{path}, line {number}: `reference` must be a narration, but is {reference!r}")
        return predictions, {}
    references = {row["frame_path"]: clean_narration_text(row["narration_text"]) for row in rows}
    names = [prediction.get("query") for prediction in predictions]
    unknown = [(number, name) for number, name in enumerate(names, start=1) if name not in references]
    if unknown:
        number, name = unknown[0]
        raise ValueError(
            f"{path} has predictions of another split: {len(unknown)} of {len(names)} are of clips that are not among "
            f"the {len(references)}, the first in line {number}: `query` {name!r}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has {names.count(twice[0])} predictions of the clip {twice[0]!r}")
    joined = [{**prediction, "reference": references[name]} for prediction, name in zip(predictions, names)]
    return joined, {"num_clips_without_prediction": len(references) - len(names)}


__all__ = ["load_predictions"]
