"""Records of runs, read back, and summed up over seeds."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .conditions import CONDITIONS, find_condition
from .results import LABELS, RESULTS_NAME


# The model of what answers by a rule.
NO_MODEL = "none"

METRIC_NAMES = {
    "exact": "Exact narrations (share)",
    "verb": "Right verbs in narrations (share)",
    "noun": "Right nouns in narrations (share)",
    "sts_bi_encoder": "STS-BE (cosine similarity)",
    "sts_cross_encoder": "STS-CE (similarity)",
    "bert_score": "BERTScore F1 (rescaled)",
    "rouge_l": "ROUGE-L F1",
    "bleu": "BLEU",
    "meteor": "METEOR",
    "cider": "CIDEr",
    **{f"{kind}_macro_f1": f"Macro F1 of {kind}s" for kind in ("verb", "noun")},
    **{f"{kind}_top_{k}": f"Top-{k} accuracy of {kind}s (share)" for kind in ("verb", "noun") for k in (1, 5)},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    One metric of a model under a condition with a number of shots, over seeds.

    Attributes:
        task, model, dataset, condition, shots, metric: what it is of.
        num_seeds (`int`): runs that have the metric.
        num_queries, num_answers (`int`): of a run, the fewest; of all runs together.
        mean (`float`, *optional*): over seeds; `None` if no run has the metric.
        std (`float`, *optional*): of the sample; `None` with less than two seeds.
        min, max (`float`, *optional*): the worst and the best seed.
        interval (`tuple[float, float]`, *optional*): of a single seed, the 95 % bootstrap interval over its queries.
        counts (`dict[str, int]`): queries that stand out, such as those with an "empty" narration, of all runs.
        unavailable (`str`): why runs lack the metric; else empty.
    """

    task: str
    model: str
    dataset: str
    condition: str
    shots: int
    metric: str
    num_seeds: int
    num_queries: int
    num_answers: int
    mean: float | None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    interval: tuple[float, float] | None = None
    counts: dict[str, int] = field(default_factory=dict)
    unavailable: str = ""

    @property
    def low_high(self) -> tuple[float, float]:
        """
        What is drawn as its spread: from the worst seed to the best; of a single one its interval, or the mean alone.
        """
        if self.num_seeds > 1:
            return self.min, self.max
        return (self.mean, self.mean) if self.interval is None else tuple(self.interval)


def read_records(paths: Iterable[str | os.PathLike]) -> list[dict[str, Any]]:
    """
    Reads the records of runs. One file counts once, however often it is named; so does what a rule says, which is the
    same beside each model.

    Args:
        paths (`Iterable[str]`): files, or folders in which each `results.json` is taken, at any depth.

    Returns:
        `list[dict]`: in the order of `paths`, in a folder by name.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a folder without records; what is no record, with file, field and value; two records of one run,
            with both files.
    """
    files = dict.fromkeys(file.resolve() for path in paths for file in _files_of(Path(path)))
    found: dict[tuple, tuple[Path, dict]] = {}
    for file in files:
        record = _read(file)
        label = tuple(record[name] for name in LABELS)
        if label not in found:
            found[label] = file, record
        elif record["model"] == NO_MODEL and _agree(record, found[label][1]):
            found[label] = found[label][0], _join(found[label][1], record)
        else:
            run = ", ".join(f"{name} {value!r}" for name, value in zip(LABELS, label))
            raise ValueError(f"{found[label][0]} and {file} are two records of one run: {run}")
    return [record for _, record in found.values()]


def metrics_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """
    The metrics that some record has, or says to lack.

    Args:
        records (`Iterable[Mapping]`): as of [`read_records`].

    Returns:
        `list[str]`: their names, in the order of `METRIC_NAMES`, then others as they come.
    """
    names = dict.fromkeys(name for record in records for part in ("metrics", "unavailable") for name in record[part])
    known = list(METRIC_NAMES)
    return sorted(names, key=lambda name: known.index(name) if name in METRIC_NAMES else len(known))


def summarize(records: Iterable[Mapping[str, Any]], metric: str) -> list[Cell]:
    """
    Sums up a metric over seeds.

    Args:
        records (`Iterable[Mapping]`): as of [`read_records`].
        metric (`str`): a name in their `metrics`.

    Returns:
        `list[Cell]`: of each (task, model, dataset, condition, shots) whose records have the metric or say why not:
        data sets and models as they come, rules last; conditions in the order of `CONDITIONS`; shots ascending.
    """
    groups: dict[tuple, list[Mapping]] = {}
    for record in records:
        if metric in record["metrics"] or metric in record["unavailable"]:
            groups.setdefault(tuple(record[name] for name in LABELS[:-1]), []).append(record)
    cells = [_cell(group, runs, metric) for group, runs in groups.items()]
    places = {name: list(dict.fromkeys(getattr(cell, name) for cell in cells)) for name in ("dataset", "model")}
    return sorted(
        cells,
        key=lambda cell: (
            cell.task,
            places["dataset"].index(cell.dataset),
            cell.model == NO_MODEL,
            places["model"].index(cell.model),
            _place_of_condition(cell.condition),
            cell.shots,
        ),
    )


def subject_of(cells: Sequence[Cell]) -> tuple[str, str, str]:
    """
    Task, data set and metric of cells that are shown together.

    Raises:
        ValueError: if there are several, or no cells.
    """
    subjects = {(cell.task, cell.dataset, cell.metric) for cell in cells}
    if len(subjects) != 1:
        raise ValueError(f"Cells must be of one task, data set and metric, but are of {sorted(subjects)}")
    return subjects.pop()


def find_mismatches(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """
    What makes numbers hard to compare: models that were asked different queries, contexts or questions under one
    label; runs of one name that are of other models or numbers of queries, and are taken for seeds; and metrics that
    were computed in different ways.

    Args:
        records (`Sequence[Mapping]`): as of [`read_records`].

    Returns:
        `list[str]`: a line for each.
    """
    lines = []
    asked: dict[tuple, dict[str, list[str]]] = {}
    runs: dict[tuple, set[tuple]] = {}
    ways: dict[tuple, dict[str, list[str]]] = {}
    for record in records:
        fingerprints = record.get("fingerprints", {})
        if "queries" in fingerprints and record["model"] != NO_MODEL:
            label = tuple(record[name] for name in ("task", "dataset", "condition", "shots", "seed"))
            prompts = json.dumps([fingerprints["queries"], fingerprints.get("prompts")])
            asked.setdefault(label, {}).setdefault(prompts, []).append(record["model"])
            # Several trainings that are asked the same are other models by intention.
            is_training = "queries_seed" in record.get("settings", {})
            label = tuple(record[name] for name in ("task", "dataset", "model", "condition", "shots"))
            same = (None if is_training else fingerprints.get("model"), record["num_queries"])
            runs.setdefault(label, set()).add(same)
        for metric, way in _ways(record).items():
            by_way = ways.setdefault((record["task"], record["dataset"], metric), {})
            by_way.setdefault(json.dumps(way, sort_keys=True), []).append(record["model"])
    for (task, dataset, condition, shots, seed), models in asked.items():
        if len(models) > 1:
            groups = " | ".join(", ".join(group) for group in models.values())
            where = f"{task} of {dataset}, {words_of_condition(condition)}, {words_of_shots(shots)}, seed {seed}"
            lines.append(f"{where}: not all were asked the same ({groups})")
    for (task, dataset, model, condition, shots), of_run in runs.items():
        if len(of_run) > 1:
            where = f"{task} of {dataset}, {model}, {words_of_condition(condition)}, {words_of_shots(shots)}"
            what = "numbers of queries" if len({model for model, _ in of_run}) == 1 else "models of this name"
            lines.append(f"{where}: taken for seeds of one run, but of {len(of_run)} different {what}")
    for (task, dataset, metric), by_way in ways.items():
        if len(by_way) > 1:
            groups = " | ".join(f"{', '.join(dict.fromkeys(models))}: {way}" for way, models in by_way.items())
            lines.append(f"{task} of {dataset}, {metric}: not computed alike ({groups})")
    return lines


def words_of_condition(name: str) -> str:
    """A condition in words; a name that is none of `CONDITIONS` stays as it is."""
    try:
        return find_condition(name).summary
    except ValueError:
        return name


def words_of_shots(number: int) -> str:
    """Such as "1 shot", "2 shots"."""
    return f"{number} shot{'s' * (number != 1)}"


def words_of_model(name: str) -> str:
    """A model's name, to show."""
    return "no model" if name == NO_MODEL else name


# ------------------------------------------------------------------------------------------------------------ details


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}")
        return [path]
    files = sorted(path.rglob(RESULTS_NAME))
    if not files:
        raise ValueError(f"{path} has no {RESULTS_NAME}, at no depth")
    return files


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: no JSON ({error})") from None
    if not isinstance(record, dict):
        raise ValueError(f"{file}: must be an object, but is {str(record)[:80]!r}")
    for name in ("task", "model", "dataset", "condition"):
        _check(file, record, name, isinstance(record.get(name), str) and record[name], "a text")
    for name, least in (("shots", 0), ("seed", 0), ("num_queries", 1)):
        _check(file, record, name, _is_count(record.get(name), least), f"a whole number from {least} on")
    for name in ("metrics", "unavailable"):
        _check(file, record, name, isinstance(record.get(name), dict), "an object")
    for name in record:
        if name.startswith("num_") and record[name] is not None:
            _check(file, record, name, _is_count(record[name], 0), "a whole number from 0 on, or null")
    for name, value in record["metrics"].items():
        if not (isinstance(value, dict) and _is_number(value.get("value")) and _is_interval(value.get("interval"))):
            raise ValueError(
                f"{file}: `metrics.{name}` must have a number as `value`, and as `interval` two numbers or null, "
                f"but is {value!r}"
            )
    return record


def _check(file: Path, record: Mapping[str, Any], name: str, is_right: Any, what: str) -> None:
    if not is_right:
        raise ValueError(f"{file}: `{name}` must be {what}, but is {record.get(name)!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)))


def _agree(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records are of the same answers, and of no metric have two values."""
    said = [(one.get("fingerprints", {}).get("predictions"), one["num_queries"]) for one in (record, other)]
    common = record["metrics"].keys() & other["metrics"].keys()
    return said[0] == said[1] and all(record["metrics"][name] == other["metrics"][name] for name in common)


def _join(record: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of both."""
    metrics = {**other["metrics"], **record["metrics"]}
    unavailable = {**other["unavailable"], **record["unavailable"]}
    lacking = {name: reason for name, reason in unavailable.items() if name not in metrics}
    return {**record, "metrics": metrics, "unavailable": lacking}


def _ways(record: Mapping[str, Any]) -> dict[str, Any]:
    """How each metric was computed, as far as the record says so."""
    settings = record.get("settings", {})
    ways = {name: settings.get("metrics", {}).get(name, settings.get("num_classes")) for name in record["metrics"]}
    return {name: way for name, way in ways.items() if way is not None}


def _cell(group: tuple, runs: Sequence[Mapping[str, Any]], metric: str) -> Cell:
    found = [run["metrics"][metric] for run in runs if metric in run["metrics"]]
    values = [one["value"] for one in found]
    spread: dict[str, Any] = {"mean": None}
    if values:
        spread = {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}
    if len(values) > 1:
        spread["std"] = float(np.std(values, ddof=1))
    elif values and found[0].get("interval") is not None:
        spread["interval"] = tuple(found[0]["interval"])
    reasons = [run["unavailable"][metric] for run in runs if metric in run["unavailable"]]
    unavailable = "; ".join(dict.fromkeys(reasons))
    if values and reasons:
        unavailable = f"in {len(reasons)} of {len(runs)} seeds: {unavailable}"
    counts: dict[str, int] = {}
    for run in runs:
        for name, count in run.items():
            if name.startswith("num_") and name != "num_queries" and count:
                words = name.removeprefix("num_").replace("_", " ")
                counts[words] = counts.get(words, 0) + count
    return Cell(
        **dict(zip(LABELS, group)),
        metric=metric,
        num_seeds=len(values),
        num_queries=min(run["num_queries"] for run in runs),
        num_answers=sum(run["num_queries"] for run in runs),
        **spread,
        counts=counts,
        unavailable=unavailable,
    )


def _place_of_condition(name: str) -> tuple[int, int, str]:
    names = list(CONDITIONS)
    number = name.rpartition("_")[2]
    return names.index(name) if name in names else len(names), int(number) if number.isdigit() else 0, name


__all__ = [
    "METRIC_NAMES",
    "NO_MODEL",
    "Cell",
    "find_mismatches",
    "metrics_of",
    "read_records",
    "subject_of",
    "summarize",
    "words_of_condition",
    "words_of_model",
    "words_of_shots",
]
