"""Records in experiment trackers, by accelerate's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from .processes import join_processes


PROJECT = "transformers-eilev"
# What each needs beyond a name: settings of `SummaryWriter` and of `wandb.init`.
TRACKERS = ("tensorboard", "wandb")


def check_trackers(names: Sequence[str]) -> None:
    """
    Looks whether trackers can be used; before anything is computed.

    Args:
        names (`Sequence[str]`): of `TRACKERS`; "none" counts as none.

    Raises:
        ValueError: for another name.
        ImportError: if the library of one is missing.
    """
    for name in _wanted(names):
        if name not in TRACKERS:
            raise ValueError(f"`report_to` must be of {[*TRACKERS, 'none']}, but one is {name!r}")
        if name not in map(str, get_available_trackers()):
            raise ImportError(f"`report_to` {name!r} needs {name}: pip install {name}")


def track_records(records: Sequence[Mapping[str, Any]], names: Sequence[str], output_dir: str | os.PathLike) -> None:
    """
    Hands records to trackers: a run for each task, model and seed, in which the step is the number of shots and a
    metric is called "data set/condition/metric". Written anew, TensorBoard's replace those of before.

    Args:
        records (`Sequence[Mapping]`): of runs.
        names (`Sequence[str]`): as of [`check_trackers`].
        output_dir (`str`): TensorBoard's files go to its folder `tensorboard`, wandb's to its folder `wandb`.

    Raises:
        ValueError, ImportError: as [`check_trackers`].
    """
    check_trackers(names)
    runs: dict[str, list[Mapping]] = {}
    for record in records:
        runs.setdefault(f"{record['task']}-{record['model']}-{record['seed']}", []).append(record)
    for name in _wanted(names):
        for run, own in runs.items():
            tracker = _start(name, run, Path(output_dir))
            for shots, values in _by_step(own).items():
                tracker.log(values, step=shots)
            tracker.finish()


# ------------------------------------------------------------------------------------------------------------ details


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name != "none"]


def _start(name: str, run: str, output_dir: Path):
    if name == "tensorboard":
        # From this step on, what an earlier call has written is hidden.
        tracker = LOGGER_TYPE_TO_CLASS[name](run, output_dir / "tensorboard", purge_step=0)
    else:
        output_dir.mkdir(parents=True, exist_ok=True)
        tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, name=run, dir=os.fspath(output_dir))
    join_processes()  # which it says to be done before
    tracker.start()
    return tracker


def _by_step(records: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Values by shots, ascending: wandb takes no step that is smaller than the one before."""
    steps: dict[int, dict[str, float]] = {}
    for record in sorted(records, key=lambda record: record["shots"]):
        where = f"{record['dataset']}/{record['condition']}"
        values = {f"{where}/{name}": metric["value"] for name, metric in record["metrics"].items()}
        steps.setdefault(record["shots"], {}).update(values)
    return steps


__all__ = ["TRACKERS", "check_trackers", "track_records"]
