"""Summed up records as Markdown."""

from collections.abc import Iterable, Sequence

from .published import SOURCE
from .records import METRIC_NAMES, Cell, subject_of, words_of_condition, words_of_model


_MARK = "†"


def make_table(cells: Sequence[Cell], *, published: Iterable[Cell] = (), digits: int = 2, counts: bool = True) -> str:
    """
    A table of one metric: a row for each model and condition, a column for each number of shots. Below it, what could
    not be computed, and why.

    Args:
        cells (`Sequence[Cell]`): of one task, data set and metric, as of [`summarize`].
        published (`Iterable[Cell]`): figures of another publication, such as `PAPER_FIGURES["ego4d-held-out"]`, for
            rows that are marked as such; those of other metrics are left aside.
        digits (`int`, defaults to 2): after the point.
        counts (`bool`, defaults to `True`): also list queries that stand out, as [`list_counts`].

    Returns:
        `str`: of cells over seeds "0.55 ± 0.02", mean and standard deviation; of a single seed "0.55 [0.51, 0.59]",
        with its bootstrap interval. Empty if there are no cells.

    Raises:
        ValueError: if cells are of several tasks, data sets or metrics.
    """
    if not cells:
        return ""
    task, dataset, metric = subject_of(cells)
    has_numbers = any(cell.mean is not None for cell in cells)
    published = [cell for cell in published if has_numbers and (cell.task, cell.metric) == (task, metric)]
    shots = sorted({cell.shots for cell in (*cells, *published)})
    lines = [["model", "condition", *map(str, shots)], ["---"] * 2 + ["---:"] * len(shots)]
    for mark, part in (("", cells), (f" {_MARK}", published)):
        rows: dict[tuple[str, str], dict[int, Cell]] = {}
        for cell in part:
            rows.setdefault((cell.model, cell.condition), {})[cell.shots] = cell
        for (model, condition), by_shots in rows.items():
            values = [format_cell(by_shots[number], digits) if number in by_shots else "" for number in shots]
            lines.append([words_of_model(model) + mark, words_of_condition(condition), *values])
    table = "".join("| " + " | ".join(value.replace("|", "\\|") for value in line) + " |\n" for line in lines)
    caption = f"**{METRIC_NAMES.get(metric, metric)}**, {task} of {dataset}, by number of shots:\n"
    sources = ", ".join(dict.fromkeys(cell.dataset for cell in published))
    notes = [f"{_MARK} Published figures, of other models on other clips ({sources}): {SOURCE}\n"] if published else []
    notes += [_list_unavailable(cells), list_counts(cells) if counts else ""]
    parts = [caption, table if has_numbers else "", *notes]
    return "\n".join(filter(None, parts))


def list_counts(cells: Sequence[Cell]) -> str:
    """Queries that stand out, such as those with an empty narration, as a list in Markdown; "" if there are none."""
    lines = []
    for cell in cells:
        if cell.counts:
            what = ", ".join(f"{count} {words}" for words, count in cell.counts.items())
            lines.append(f"- {_list_runs([cell])}: {what}, of {cell.num_answers}\n")
    return "".join(["Queries that stand out:\n\n", *lines]) if lines else ""


def format_cell(cell: Cell, digits: int = 2) -> str:
    """A cell's number with its spread; "–" if there is none."""
    if cell.mean is None:
        return "–"
    mean = f"{cell.mean:.{digits}f}"
    if cell.std is not None:
        return f"{mean} ± {cell.std:.{digits}f}"
    return mean if cell.interval is None else f"{mean} [{cell.interval[0]:.{digits}f}, {cell.interval[1]:.{digits}f}]"


# ------------------------------------------------------------------------------------------------------------ details


def _list_unavailable(cells: Sequence[Cell]) -> str:
    reasons: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.unavailable:
            reasons.setdefault(cell.unavailable, []).append(cell)
    lines = []
    for reason, of_reason in reasons.items():
        lines.append(f"- {'everywhere' if len(of_reason) == len(cells) else _list_runs(of_reason)}: {reason}\n")
    return "".join(["Not computed:\n\n", *lines]) if lines else ""


def _list_runs(cells: Sequence[Cell]) -> str:
    """Of each model and condition the shots: "EILEV, clips and narrations, 0, 4 shots; ..."."""
    runs: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        runs.setdefault((cell.model, cell.condition), []).append(str(cell.shots))
    return "; ".join(
        f"{words_of_model(model)}, {words_of_condition(condition)}, {', '.join(shots)} shots"
        for (model, condition), shots in runs.items()
    )


__all__ = ["format_cell", "list_counts", "make_table"]
