"""All that evaluations have left, in one report: tables, pictures, and what is missing."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.files import write_json, write_text
from .model_index import make_model_index
from .plots import describe_cells, plot_bars, plot_shots, save_figure
from .records import Cell, find_mismatches, metrics_of, summarize
from .tables import list_counts, make_table


_EXPLANATION = (
    "Mean ± standard deviation over seeds; of a single seed its mean with the 95 % bootstrap interval over queries. "
    "Bands and error bars go from the worst seed to the best, or are that interval.\n"
)


def write_report(
    records: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    *,
    title: str = "Evaluation",
    metrics: Sequence[str] | None = None,
    bars_at: int | None = None,
    published: Iterable[Cell] = (),
    model: str | None = None,
    dataset_ids: Mapping[str, str] | None = None,
) -> Path:
    """
    Writes `report.md`, `report.json` with all cells, pictures in `plots` and, of one model, `model_index.yaml`. The
    same records give the same bytes.

    Args:
        records (`Sequence[Mapping]`): as of [`read_records`].
        output_dir (`str`): a folder, which is made.
        title (`str`): of the report.
        metrics (`Sequence[str]`, *optional*): which, in this order; by default all that records have or lack.
        bars_at (`int`, *optional*): the number of shots at which conditions are compared by bars; by default the most.
        published (`Iterable[Cell]`): as of [`make_table`].
        model (`str`, *optional*), dataset_ids (`Mapping[str, str]`, *optional*): as of [`make_model_index`].

    Returns:
        `Path`: of `report.md`.

    Raises:
        ValueError: if there is no record, or none has to do with a metric; what [`make_model_index`] says.
        ImportError: without matplotlib.
    """
    if not records:
        raise ValueError("There are no records to report")
    there = metrics_of(records)
    unknown = [name for name in metrics or () if name not in there]
    if unknown:
        raise ValueError(f"`metrics` must be of {there}, but one is {unknown[0]!r}")
    model_index = None if model is None else make_model_index(records, model, dataset_ids=dataset_ids)
    cells = [cell for metric in metrics or there for cell in summarize(records, metric)]
    output_dir, published, mismatches = Path(output_dir), list(published), find_mismatches(records)
    parts = [f"# {title}\n", _EXPLANATION, _list("Hard to compare", mismatches)]
    stems = _stems({(cell.task, cell.dataset): None for cell in cells})
    for subject, stem in stems.items():
        own = [cell for cell in cells if (cell.task, cell.dataset) == subject]
        parts.append(f"## {subject[0].capitalize()}: {subject[1]}\n")
        parts.append(f"Seeds: {_span(own, 'num_seeds')}; queries of a run: {_span(own, 'num_queries')}.\n")
        for metric in dict.fromkeys(cell.metric for cell in own):
            of_metric = [cell for cell in own if cell.metric == metric]
            parts.append(make_table(of_metric, published=published, counts=False))
            parts += _draw(of_metric, output_dir, f"{stem}-{metric}", bars_at)
        # The same for each metric.
        by_run = {(cell.model, cell.condition, cell.shots): cell for cell in own}
        parts.append(list_counts(list(by_run.values())))
    made_by = _made_by(records)
    parts.append(_list("Made by", [f"{name}: {', '.join(values)}" for name, values in made_by.items()]))
    output_dir.mkdir(parents=True, exist_ok=True)
    content = {"cells": [asdict(cell) for cell in cells], "hard_to_compare": mismatches, "made_by": made_by}
    write_json(output_dir / "report.json", content)
    if model_index is not None:
        write_text(output_dir / "model_index.yaml", model_index)
    write_text(output_dir / "report.md", "\n".join(filter(None, parts)))
    return output_dir / "report.md"


# ------------------------------------------------------------------------------------------------------------ details


def _draw(cells: Sequence[Cell], output_dir: Path, stem: str, bars_at: int | None) -> list[str]:
    """Draws what can be drawn; Markdown of the pictures."""
    drawn = [cell for cell in cells if cell.mean is not None]
    if not drawn:
        return []
    figures = {}
    if len({cell.shots for cell in drawn}) > 1:
        figures["shots"] = plot_shots(drawn), drawn
    bars_at = max(cell.shots for cell in drawn) if bars_at is None else bars_at
    at_once = [cell for cell in drawn if cell.shots == bars_at]
    if len({(cell.model, cell.condition) for cell in at_once}) > 1:
        figures["bars"] = plot_bars(at_once), at_once
    lines = []
    for kind, (figure, shown) in figures.items():
        description = describe_cells(shown)
        save_figure(figure, output_dir / "plots" / f"{stem}-{kind}", description=description)
        # The numbers stand in the table above, and in the picture's own description.
        title = description.partition(". ")[0].replace("[", "(").replace("]", ")")
        lines.append(f"![{title}](plots/{stem}-{kind}.png)\n")
    return lines


def _span(cells: Sequence[Cell], name: str) -> str:
    values = [getattr(cell, name) for cell in cells]
    return " to ".join(map(str, sorted({min(values), max(values)})))


def _stems(subjects: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Names of files for each task and data set, no two alike."""
    stems: dict[tuple[str, str], str] = {}
    for subject in subjects:
        stem = first = re.sub(r"[^\w.-]+", "-", "-".join(subject))
        number = 1
        while stem in stems.values():
            number += 1
            stem = f"{first}-{number}"
        stems[subject] = stem
    return stems


def _made_by(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Commits and versions that the records name."""
    found: dict[str, set[str]] = {}
    for record in records:
        made_by = {"commit": record.get("commit"), **record.get("versions", {})}
        for name, value in made_by.items():
            if value is not None:
                found.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in found.items()}


def _list(heading: str, lines: Sequence[str]) -> str:
    return f"## {heading}\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""


__all__ = ["write_report"]
