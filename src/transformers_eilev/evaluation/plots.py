"""Summed up records as pictures, for a report or a paper: PNG and SVG, the same bytes from the same numbers."""

import io
import os
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..data.files import atomic_file
from .records import METRIC_NAMES, NO_MODEL, Cell, subject_of, words_of_condition, words_of_model, words_of_shots


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# To be told apart by color-blind people too: M. Okabe, K. Ito, "Color Universal Design", 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY = "#777777"
# Of lines, with their markers, so that a picture can be read in black and white.
_STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (1, 3)), "v"), ((0, (8, 2)), "P"))

_WIDTH, _HEIGHT = 7.0, 3.4  # inches; the width is two columns of a paper
_FONT_SIZE = 9
_DPI = 200
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": _FONT_SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.title_fontsize": _FONT_SIZE,
    "svg.hashsalt": "transformers_eilev",
}


def plot_shots(cells: Sequence[Cell]) -> "Figure":
    """
    A metric against the number of shots: a line for each model and condition, with a band from the worst seed to the
    best, or of a single seed's bootstrap interval. A colour is a model, a kind of line a condition. Numbers of shots
    are at equal distances.

    Args:
        cells (`Sequence[Cell]`): of one task, data set and metric, as of [`summarize`].

    Returns:
        `matplotlib.figure.Figure`: for [`save_figure`].

    Raises:
        ValueError: if cells are of several tasks, data sets or metrics, or none has a number.
        ImportError: without matplotlib.
    """
    cells = _plotted(cells)
    shots = sorted({cell.shots for cell in cells})
    colours, styles = _colours(cells), _styles(cells)
    with _style():
        figure, axes = _new_figure(
            _height_of_legends([*map(words_of_model, colours), *map(words_of_condition, styles)])
        )
        axes.grid(axis="x", visible=False)
        for model, condition in dict.fromkeys((cell.model, cell.condition) for cell in cells):
            line = [cell for cell in cells if (cell.model, cell.condition) == (model, condition)]
            line.sort(key=lambda cell: cell.shots)
            places = [shots.index(cell.shots) for cell in line]
            spreads = [cell.low_high for cell in line]
            colour, (dashes, marker) = colours[model], styles[condition]
            axes.fill_between(places, *np.transpose(spreads), color=colour, alpha=0.15, linewidth=0)
            if len(line) == 1:  # no band is seen
                axes.vlines(places, *np.transpose(spreads), color=colour, linewidth=1)
            axes.plot(
                places, [cell.mean for cell in line], color=colour, linestyle=dashes, marker=marker, markersize=4.5
            )
        axes.set_xticks(range(len(shots)), list(map(str, shots)))
        axes.set_xlabel("Shots (narrated clips in the context)")
        _set_values(axes.set_ylim, axes.set_ylabel, cells)
        _add_legends(axes, colours, styles)
    return figure


def plot_bars(cells: Sequence[Cell]) -> "Figure":
    """
    Conditions at one number of shots, such as ablations: a bar for each model, with its spread as [`plot_shots`] has
    it, and the mean in digits.

    Args:
        cells (`Sequence[Cell]`): of one task, data set, metric and number of shots.

    Returns:
        `matplotlib.figure.Figure`: for [`save_figure`].

    Raises:
        ValueError: if cells are of several tasks, data sets, metrics or numbers of shots, or none has a number.
        ImportError: without matplotlib.
    """
    cells = _plotted(cells)
    shots = sorted({cell.shots for cell in cells})
    if len(shots) > 1:
        raise ValueError(f"Bars are of one number of shots, but cells are of {shots}")
    conditions = list(dict.fromkeys(cell.condition for cell in cells))
    models, colours = list(dict.fromkeys(cell.model for cell in cells)), _colours(cells)
    # Bars of a condition lie one below the other, without holes for models that lack it.
    places, ticks, place = {}, [], 0.0
    for condition in conditions:
        own = [model for model in models if any((c.model, c.condition) == (model, condition) for c in cells)]
        ticks.append(place + (len(own) - 1) / 2)
        places |= {(model, condition): place + number for number, model in enumerate(own)}
        place += len(own) + 0.6
    with _style():
        figure, axes = _new_figure(0.8 + 0.24 * place)
        axes.grid(axis="y", visible=False)
        for cell in cells:
            y = places[cell.model, cell.condition]
            axes.barh(y, cell.mean, height=0.85, color=colours[cell.model])
            low, high = cell.low_high
            if low < high:
                axes.plot([low, high], [y, y], color="black", linewidth=1.2, marker="|", markersize=5)
            axes.annotate(
                f"{cell.mean:.2f}", (max(high, 0.0), y), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(ticks, [_wrap(words_of_condition(condition)) for condition in conditions])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        _set_values(axes.set_xlim, axes.set_xlabel, cells, margin=0.15, suffix=f" after {words_of_shots(shots[0])}")
        _add_legends(axes, colours, {}, patches=True)
    return figure


def plot_points(points: np.ndarray, groups: Sequence[str], *, title: str) -> "Figure":
    """
    A map of points in the plane, such as of embedded clips, without scales: these mean nothing.

    Args:
        points (`np.ndarray` of shape `(num_points, 2)`): where they are.
        groups (`Sequence[str]`): of each, what it belongs to; the six most frequent get colours of their own.
        title (`str`): of the legend, what a group is.

    Returns:
        `matplotlib.figure.Figure`: for [`save_figure`].

    Raises:
        ImportError: without matplotlib.
    """
    names, counts = np.unique(np.asarray(groups, dtype=str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    with _style():
        figure, axes = _new_figure(4.6)
        axes.grid(visible=False)
        rest = ~np.isin(groups, names[order[: len(COLOURS)]])
        if rest.any():
            axes.scatter(*points[rest].T, s=9, color=GREY, alpha=0.5, linewidths=0, label=f"others ({rest.sum()})")
        markers = cycle("os^DvP")
        for number, colour, marker in zip(order, COLOURS, markers):
            own = points[np.asarray(groups, dtype=str) == names[number]]
            label = f"{names[number]} ({counts[number]})"
            axes.scatter(*own.T, s=14, color=colour, alpha=0.7, linewidths=0, marker=marker, label=label)
        axes.set(
            xticks=[],
            yticks=[],
        )
        axes.set_aspect("equal", adjustable="datalim")
        axes.spines[:].set_visible(True)
        axes.legend(title=title, alignment="left", bbox_to_anchor=(1.02, 1), loc="upper left", borderaxespad=0)
    return figure


def save_figure(figure: "Figure", stem: str | os.PathLike, *, description: str) -> list[Path]:
    """
    Writes a picture, whole or not at all.

    Args:
        figure (`matplotlib.figure.Figure`): to write.
        stem (`str`): the files' path without ending; its folder is made.
        description (`str`): for who can't see it; written into the files.

    Returns:
        `list[Path]`: of the PNG and of the SVG.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    # What differs from run to run, or from version to version, is left out.
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        content = io.BytesIO()
        with _style():
            figure.savefig(content, format=suffix, dpi=_DPI, metadata={**metadata, "Description": description})
        paths.append(stem.with_name(f"{stem.name}.{suffix}"))
        with atomic_file(paths[-1]) as file:
            file.write(content.getvalue())
    return paths


def describe_cells(cells: Sequence[Cell]) -> str:
    """
    What a picture of cells shows, in words and numbers: the means that there are, by model, condition and shots.

    Args:
        cells (`Sequence[Cell]`): of one task, data set and metric, as of [`summarize`].

    Returns:
        `str`: for `description` of [`save_figure`].

    Raises:
        ValueError: if cells are of several tasks, data sets or metrics, or none has a number.
    """
    cells = _plotted(cells)
    task, dataset, metric = subject_of(cells)
    lines: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        lines.setdefault((cell.model, cell.condition), []).append(f"{cell.mean:.2f} after {cell.shots}")
    parts = [
        f"{words_of_model(model)}, {words_of_condition(condition)}: {', '.join(values)}"
        for (model, condition), values in lines.items()
    ]
    return f"{METRIC_NAMES.get(metric, metric)}, {task} of {dataset}, by shots. {'; '.join(parts)}."


# ------------------------------------------------------------------------------------------------------------ details


def _plotted(cells: Sequence[Cell]) -> list[Cell]:
    subject_of(cells)
    plotted = [cell for cell in cells if cell.mean is not None]
    if not plotted:
        raise ValueError(f"No cell has a number of {cells[0].metric}: {cells[0].unavailable}")
    return plotted


def _style():
    try:
        from matplotlib import style
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install matplotlib") from error
    # Whatever the user's own is.
    return style.context(["default", _STYLE])


def _new_figure(height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(cells: Sequence[Cell]) -> dict[str, str]:
    models = dict.fromkeys(cell.model for cell in cells)
    colours = cycle(COLOURS)
    return {model: GREY if model == NO_MODEL else next(colours) for model in models}


def _styles(cells: Sequence[Cell]) -> dict[str, tuple]:
    return dict(zip(dict.fromkeys(cell.condition for cell in cells), cycle(_STYLES)))


def _set_values(set_limits, set_label, cells: Sequence[Cell], *, margin: float = 0.04, suffix: str = "") -> None:
    """The axis of the metric, from 0 unless there is less."""
    bounds = [bound for cell in cells for bound in (*cell.low_high, cell.mean)]
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    margin *= (high - low) or 1.0
    set_limits(low - margin if low < 0 else 0.0, high + margin)
    metric = cells[0].metric
    set_label(METRIC_NAMES.get(metric, metric) + suffix)


def _add_legends(axes, colours: dict[str, str], styles: dict[str, tuple], *, patches: bool = False) -> None:
    """Beside the picture: what the colours are, and below it what the kinds of lines are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def model_handle(model, colour):
        label = _wrap(words_of_model(model))
        return Patch(color=colour, label=label) if patches else Line2D([], [], color=colour, linewidth=3, label=label)

    models = [model_handle(*item) for item in colours.items()]
    legend = axes.legend(
        handles=models, title="model", alignment="left", bbox_to_anchor=(1.02, 1), loc="upper left", borderaxespad=0
    )
    if styles:
        conditions = [
            Line2D(
                [],
                [],
                color="black",
                linestyle=dashes,
                marker=marker,
                markersize=4.5,
                label=_wrap(words_of_condition(condition)),
            )
            for condition, (dashes, marker) in styles.items()
        ]
        axes.add_artist(legend)
        axes.legend(
            handles=conditions,
            title="condition",
            alignment="left",
            bbox_to_anchor=(1.02, 0),
            loc="lower left",
            borderaxespad=0,
            handlelength=3.2,
        )


def _wrap(words: str) -> str:
    return fill(words, 30)


def _height_of_legends(labels: Sequence[str]) -> float:
    """Inches for two legends, one below the other."""
    lines = sum(1 + _wrap(label).count("\n") for label in labels)
    return max(_HEIGHT, 0.19 * (lines + 4))


__all__ = ["COLOURS", "describe_cells", "plot_bars", "plot_points", "plot_shots", "save_figure"]
