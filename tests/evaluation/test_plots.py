"""Pictures, from numbers that are known: what they show is read back from the figures and the files."""

import sys

import numpy as np
import pytest
from made_records import make_records, record_of
from PIL import Image

from transformers_eilev.evaluation.plots import (
    COLOURS,
    GREY,
    describe_cells,
    plot_bars,
    plot_points,
    plot_shots,
    save_figure,
)
from transformers_eilev.evaluation.records import summarize


def texts_of(legend):
    return [text.get_text().replace("\n", " ") for text in legend.get_texts()]


def legends_of(axes):
    from matplotlib.legend import Legend

    return {legend.get_title().get_text(): texts_of(legend) for legend in axes.findobj(Legend)}


def test_a_line_goes_through_the_means_and_its_band_through_the_extremes():
    cells = summarize([*make_records(), record_of(shots=16, exact=0.7)], "exact")
    (axes,) = plot_shots([*cells[1:], cells[0]]).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[0, 0.0], [1, pytest.approx(0.6)], [2, 0.7]],  # 0, 2 and 16 shots at equal distances
        [[1, 0.13]],
        [[1, 0.25]],
        [[1, 0.45]],
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "2", "16"]
    corners = {tuple(map(float, np.round(point, 6))) for point in axes.collections[0].get_paths()[0].vertices}
    assert {(0.0, 0.0), (1.0, 0.4), (1.0, 0.9), (2.0, 0.6), (2.0, 0.8)} == corners
    # Of a single point the interval is a stroke.
    strokes = [
        stroke.tolist()
        for lines in axes.collections
        if len(lines.get_paths()[0]) == 2
        for stroke in lines.get_segments()
    ]
    assert strokes[1] == [[1, pytest.approx(0.15)], [1, pytest.approx(0.35)]]
    # A colour is a model, a kind of line a condition.
    assert [line.get_color() for line in axes.lines] == [COLOURS[0], COLOURS[0], COLOURS[1], GREY]
    styles = [(line.get_linestyle(), line.get_marker()) for line in axes.lines]
    assert styles[0] == styles[2]
    assert len({*styles}) == 3
    assert legends_of(axes) == {
        "model": ["eilev", "video-blip", "no model"],
        "condition": [
            "clips and narrations",
            "clips exchanged among the narrations",
            "most frequent verb and noun of the context",
        ],
    }
    assert axes.get_ylabel() == "Exact narrations (share)"
    assert axes.get_ylim()[0] == 0


def test_values_below_zero_are_seen():
    (axes,) = plot_shots(summarize([record_of(exact=-0.2), record_of(shots=1, exact=0.1)], "exact")).axes
    assert axes.get_ylim()[0] < -0.3  # the interval's end


def test_bars_compare_conditions():
    cells = [cell for cell in summarize(make_records(), "exact") if cell.shots == 2]
    (axes,) = plot_bars(cells).axes
    assert [bar.get_width() for bar in axes.patches] == [pytest.approx(0.6), 0.13, 0.25, 0.45]
    assert list(axes.lines[0].get_xdata()) == [0.4, 0.9]
    assert [text.get_text() for text in axes.texts] == ["0.60", "0.13", "0.25", "0.45"]
    # Bars of one condition lie together, the tick between them.
    tops = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    assert axes.get_yticks()[0] == pytest.approx((tops[0] + tops[2]) / 2)
    assert abs(tops[0] - tops[2]) < min(abs(tops[0] - tops[1]), abs(tops[2] - tops[1]))
    with pytest.raises(ValueError, match=r"one number of shots, but cells are of \[0, 2\]"):
        plot_bars(summarize(make_records(), "exact"))


def test_files_are_the_same_bytes_each_time_and_say_what_they_show(tmp_path):
    import matplotlib

    cells = summarize(make_records(), "exact")
    description = describe_cells(cells)
    assert description.startswith(
        "Exact narrations (share), generation of novel, by shots. eilev, clips and narrations: 0.00 after 0, 0.60"
    )
    contents = []
    for name in ("first", "second"):
        paths = save_figure(plot_shots(cells), tmp_path / name / "of.shots", description=description)
        assert [path.name for path in paths] == ["of.shots.png", "of.shots.svg"]
        contents.append([path.read_bytes() for path in paths])
        matplotlib.rcParams["font.size"] = 30  # the user's own style is not asked
    matplotlib.rcdefaults()
    assert contents[0] == contents[1]
    with Image.open(tmp_path / "first" / "of.shots.png") as image:
        assert image.text["Description"] == description
        assert image.size[0] == 1400
    assert "0.60 after 2" in contents[0][1].decode()
    assert b"<dc:date>" not in contents[0][1]


def test_points_have_the_colours_of_their_groups():
    points = np.arange(42.0).reshape(21, 2)
    groups = ["cup"] * 6 + ["door"] * 5 + list("aabbccddef")
    (axes,) = plot_points(points, groups, title="noun").axes
    # Of the two groups that have one point each, there is a colour for none.
    assert legends_of(axes) == {"noun": ["others (2)", "cup (6)", "door (5)", "a (2)", "b (2)", "c (2)", "d (2)"]}
    cups = next(collection for collection in axes.collections if collection.get_label() == "cup (6)")
    assert cups.get_offsets().tolist() == points[:6].tolist()


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plot_shots(summarize(make_records(), "exact"))


def test_what_has_no_number_is_not_drawn():
    cells = summarize([record_of(metrics={}, unavailable={"exact": "no library"})], "exact")
    with pytest.raises(ValueError, match="No cell has a number of exact: no library"):
        plot_shots(cells)
