"""Records of `evaluation.evaluate_shots`, of several models and seeds, as tables, as JSON and as pictures."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from transformers_eilev.data.files import atomic_file, write_json

from .evaluation import CONDITIONS


METRICS = ("exact", "verb", "noun")
# Of a record, where it stands: a table is of the first three, and runs differ in the last.
TABLE_LABELS = ("family", "set", "words")
LABELS = (*TABLE_LABELS, "method", "seed")
_NO_MODEL = "none"

METHOD_NAMES = {"eilev": "EILEV", "control": "VideoBLIP", _NO_MODEL: "no model"}
SET_NAMES = {
    "pairs": "verbs and nouns that were never trained on together",
    "novel": "nouns, and some verbs, that were never trained on",
}
WORDS_NAMES = {"own": "called as they are", "new": "called anew in each context, as far as it names them"}
CONDITION_NAMES = {
    "clips": "clips and narrations",
    "text_only": "narrations without their clips",
    "shuffled": "clips exchanged among the narrations",
    "majority": "most frequent words of the context",
    "unseen_pair": "words of the context that don't stand together in it",
    "any": "EILEV's contexts",
    "any_shuffled": "EILEV's contexts, clips exchanged",
}


def summarize(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Means over the seeds of trainings.

    Args:
        records (`Sequence[Mapping]`): of `evaluate_shots`, with the labels `LABELS`.

    Returns:
        `list[dict]`: for each (family, set, words, method, condition, shots), in the order of the records: `num_runs`;
        `n`, queries of a run (the fewest); of "exact", "verb" and "noun" each a dict of `mean`, `std` (of the sample;
        `None` of a single run), `min`, `max` and, of a single run, its bootstrap `interval`; `empty` and `unparsable`,
        narrations of all runs. What a rule says is of the method "none", and one run where it is the same.

    Raises:
        ValueError: a record without a label; two of one run.
    """
    groups: dict[tuple, dict[Any, Mapping]] = {}
    for record in records:
        missing = [name for name in (*LABELS, "condition", "shots", *METRICS) if name not in record]
        if missing:
            raise ValueError(f"A record must have {missing[0]!r}, but is {dict(record)}")
        is_rule = CONDITIONS[record["condition"]].rule is not None
        # The same rule is asked beside each model.
        run = tuple(record[name] for name in ("n", *METRICS)) if is_rule else record["seed"]
        method = _NO_MODEL if is_rule else record["method"]
        group = (*(record[name] for name in TABLE_LABELS), method, record["condition"], record["shots"])
        runs = groups.setdefault(group, {})
        if run in runs and not is_rule:
            raise ValueError(f"There are two records of {group}, seed {record['seed']}")
        runs[run] = record
    summary = []
    for group, by_run in groups.items():
        runs = list(by_run.values())
        summary.append(
            {
                **dict(zip((*TABLE_LABELS, "method", "condition", "shots"), group)),
                **{"num_runs": len(runs), "n": min(run["n"] for run in runs)},
                **{metric: _spread(runs, metric) for metric in METRICS},
                **{count: sum(run[count] for run in runs) for count in ("empty", "unparsable")},
            }
        )
    return summary


def write_report(
    records: Sequence[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    *,
    title: str = "Narrations by number of shots",
    plotted: Sequence[str] = ("clips", "text_only", "shuffled", "unseen_pair"),
) -> Path:
    """
    Writes `report.md` with the tables, `report.json` with the records and their means, and for each (family, set,
    words) a picture, such as `exact-opt-novel-new.svg`.

    Args:
        records (`Sequence[Mapping]`): as of `summarize`.
        output_dir (`str`): a folder, which is made.
        title (`str`): of the report.
        plotted (`Sequence[str]`): conditions to draw.

    Returns:
        `Path`: of `report.md`.

    Raises:
        ValueError: as `summarize`; if there is no record.
    """
    if not records:
        raise ValueError("There are no records to report")
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    summary = summarize(records)
    parts = [f"# {title}\n", _explain(summary)]
    for table in dict.fromkeys(_table_of(entry) for entry in summary):
        entries = [entry for entry in summary if _table_of(entry) == table]
        name, heading = "-".join(table), _heading(*table)
        lines = [entry for entry in entries if entry["condition"] in plotted]
        parts.append(f"## {heading}\n")
        if lines:
            _write_text(output_dir / f"exact-{name}.svg", draw_lines(lines, title=f"{heading}: exact narrations"))
            parts.append(f"![Exact narrations by shots](exact-{name}.svg)\n")
        parts += ["Exact narrations:\n", make_table(entries, ("exact",))]
        parts += ["Verb / noun:\n", make_table(entries, ("verb", "noun")), _count_wordless(entries)]
    write_json(output_dir / "report.json", {"summary": summary, "records": [dict(record) for record in records]})
    path = output_dir / "report.md"
    _write_text(path, "\n".join(part for part in parts if part))
    return path


def make_table(summary: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """
    A Markdown table: a row for each (method, condition), a column for each number of shots.

    Args:
        summary (`Sequence[Mapping]`): of one (family, set, words), as of `summarize`.
        metrics (`Sequence[str]`): of which one is shown with its spread: mean ± standard deviation over runs, or, of
            one run, with its interval; more are shown as means, "verb / noun".
    """
    shots = sorted({entry["shots"] for entry in summary})
    rows: dict[tuple, dict[int, Mapping]] = {}
    for entry in summary:
        rows.setdefault((entry["method"], entry["condition"]), {})[entry["shots"]] = entry
    lines = [["model", "condition", *map(str, shots)], ["---"] * 2 + ["---:"] * len(shots)]
    for (method, condition), cells in sorted(rows.items(), key=lambda row: row[0][0] == _NO_MODEL):
        values = [_cell(cells[k], metrics) if k in cells else "" for k in shots]
        lines.append([METHOD_NAMES.get(method, method), CONDITION_NAMES[condition], *values])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# ------------------------------------------------------------------------------------------------------------ picture

_WIDTH, _HEIGHT, _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 900, 380, 50, 40, 440, 290
# Of color-blind people's eyes too (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_GREY = "#777777"
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 5", "12 5")


def draw_lines(summary: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """
    Exact narrations against shots, as SVG: of each (method, condition) a line through the means and a band from the
    worst run to the best. A colour is a method, a kind of dashes a condition. Numbers of shots are at equal distances.

    Args:
        summary (`Sequence[Mapping]`): of one (family, set, words), as of `summarize`.
        title (`str`): above it.
    """
    shots = sorted({entry["shots"] for entry in summary})
    methods, conditions = (list(dict.fromkeys(entry[key] for entry in summary)) for key in ("method", "condition"))
    colours = dict(zip((method for method in methods if method != _NO_MODEL), cycle(_COLOURS))) | {_NO_MODEL: _GREY}
    dashes = dict(zip(conditions, cycle(_DASHES)))
    parts = _axes(shots, title)
    lines = sorted({(entry["method"], entry["condition"]): None for entry in summary}, key=lambda x: x[0] == _NO_MODEL)
    for number, (method, condition) in enumerate(lines):
        of_line = {e["shots"]: e["exact"] for e in summary if (e["method"], e["condition"]) == (method, condition)}
        xs = [_x(shots.index(k), shots) for k in sorted(of_line)]
        means, lows, highs = ([_y(of_line[k][key]) for k in sorted(of_line)] for key in ("mean", "min", "max"))
        colour, style = colours[method], f'stroke="{colours[method]}" stroke-dasharray="{dashes[condition]}"'
        band = _points([*zip(xs, highs), *reversed([*zip(xs, lows)])])
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(f'<polyline points="{_points(zip(xs, means))}" fill="none" stroke-width="2" {style}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in zip(xs, means)]
        x, y = _LEFT + _PLOT_WIDTH + 25, _TOP + 12 + 22 * number
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 34}" y2="{y}" stroke-width="2" {style}/>')
        label = ": ".join([METHOD_NAMES.get(method, method)] * (method != _NO_MODEL) + [CONDITION_NAMES[condition]])
        parts.append(f'<text x="{x + 42}" y="{y + 4}">{escape(label)}</text>')
    height = max(_HEIGHT, _TOP + 22 * len(lines) + 20)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _axes(shots: Sequence[int], title: str) -> list[str]:
    right, bottom = _LEFT + _PLOT_WIDTH, _TOP + _PLOT_HEIGHT
    parts = [f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        y = _y(tick)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for place, number in enumerate(shots):
        parts.append(f'<text x="{_x(place, shots):.1f}" y="{bottom + 18}" text-anchor="middle">{number}</text>')
    middle = _LEFT + _PLOT_WIDTH / 2
    parts.append(f'<text x="{middle:.1f}" y="{bottom + 38}" text-anchor="middle">shots</text>')
    return [*parts, f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="black"/>']


def _x(place: int, shots: Sequence[int]) -> float:
    return _LEFT + 20 + (_PLOT_WIDTH - 40) * place / max(1, len(shots) - 1)


def _y(value: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - value)


def _points(points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


# ------------------------------------------------------------------------------------------------------------ details


def _spread(runs: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    values = [run[metric] for run in runs]
    spread = {"mean": float(np.mean(values)), "std": None, "min": min(values), "max": max(values)}
    if len(values) > 1:
        return {**spread, "std": float(np.std(values, ddof=1))}
    return {**spread, "interval": runs[0].get(f"{metric}_interval")}


def _table_of(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return tuple(entry[name] for name in TABLE_LABELS)


def _heading(family: str, name: str, words: str) -> str:
    return f"{family}: {SET_NAMES.get(name, name)}, {WORDS_NAMES.get(words, words)}"


def _cell(entry: Mapping[str, Any], metrics: Sequence[str]) -> str:
    if len(metrics) > 1:
        return " / ".join(f"{entry[metric]['mean']:.2f}" for metric in metrics)
    spread = entry[metrics[0]]
    if spread["std"] is not None:
        return f"{spread['mean']:.2f} ± {spread['std']:.2f}"
    interval = spread.get("interval")
    return f"{spread['mean']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _explain(summary: Sequence[Mapping[str, Any]]) -> str:
    def span(key):
        values = {entry[key] for entry in summary if entry["method"] != _NO_MODEL} or {0}
        return " to ".join(map(str, sorted({min(values), max(values)})))

    return (
        f"Shares from 0 to 1, by number of shots. Trainings of each model: {span('num_runs')}; queries of each: "
        f"{span('n')}. Mean ± standard deviation over trainings; of a single one, and of what answers without a "
        "model, mean and 95 % bootstrap interval over queries. The band of a picture goes from the worst training to "
        "the best.\n"
    )


def _count_wordless(entries: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for entry in entries:
        if entry["empty"] or entry["unparsable"]:
            where = f"{METHOD_NAMES.get(entry['method'], entry['method'])}, {CONDITION_NAMES[entry['condition']]}"
            what = f"{entry['empty']} empty, {entry['unparsable']} without verb and noun"
            lines.append(f"- {where}, {entry['shots']} shots: {what}, of {entry['num_runs'] * entry['n']}")
    return "\n".join(["Narrations that are no such sentence, and count as wrong:\n", *lines, ""]) if lines else ""


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())


__all__ = ["METRICS", "draw_lines", "make_table", "summarize", "write_report"]
