"""What a run leaves beside its predictions: numbers, and all that is needed to make them again."""

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..data.files import write_json


RESULTS_NAME = "results.json"
# Which run a record is of.
LABELS = ("task", "model", "dataset", "condition", "shots", "seed")

_LIBRARIES = (
    "transformers-eilev",
    "transformers",
    "torch",
    "datasets",
    "numpy",
    "sentence-transformers",
    "bert-score",
    "rouge-score",
    "sacrebleu",
    "pycocoevalcap",
    "scikit-learn",
)


def make_record(
    predictions: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    unavailable: Mapping[str, str],
    *,
    arguments: Mapping[str, Any],
    **counts: Any,
) -> dict[str, Any]:
    """
    What `results.json` holds.

    Args:
        predictions (`Sequence[Mapping]`): all of them.
        settings (`Mapping`): what decides predictions and metrics, `LABELS` among them.
        metrics (`Mapping`): of each its `value` and its 95 % bootstrap `interval`, or `None`.
        unavailable (`Mapping[str, str]`): metrics that could not be computed, and why.
        arguments (`Mapping`): what the user asked for: it would be asked for again to make the same.
        counts: what else is counted, such as `num_empty`.
    """
    return {
        **{name: settings[name] for name in LABELS},
        "num_queries": len(predictions),
        **counts,
        "metrics": dict(metrics),
        "unavailable": dict(unavailable),
        "settings": {name: value for name, value in settings.items() if name not in (*LABELS, "fingerprints")},
        "fingerprints": {**settings["fingerprints"], "predictions": fingerprint_of([*map(dict, predictions)])},
        "arguments": dict(arguments),
        "versions": library_versions(),
        "commit": commit_of_package(),
    }


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `results.json`, whole or not at all."""
    write_json(Path(folder) / RESULTS_NAME, dict(record))


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a folder, `None` if there is none yet."""
    path = Path(folder) / RESULTS_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def fingerprint_of(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """
    SHA-256 of what JSON can hold.

    Args:
        value (`Any`): to hash.
        default (`Callable`, *optional*): makes something that JSON can hold of what it can't, as of `json.dumps`.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=default).encode()).hexdigest()


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that numbers come from, of those that are installed."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@cache
def commit_of_package() -> str | None:
    """The commit of the clone that this package is run from, with "-dirty" if it was changed; `None` if installed."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    is_ours = (folder.parents[2] / ".git").exists()
    return described.stdout.strip() if is_ours and described.returncode == 0 else None


__all__ = [
    "LABELS",
    "RESULTS_NAME",
    "commit_of_package",
    "fingerprint_of",
    "library_versions",
    "make_record",
    "read_record",
    "write_record",
]
