"""Tables and pictures of what was measured, from numbers that are known."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "examples" / "training" / "synthetic"))

from recipe.report import draw_lines, make_table, summarize, write_report  # noqa: E402


def record_of(method="eilev", seed=0, condition="clips", shots=0, exact=0.5, **changes):
    numbers = {"n": 10, "exact": exact, "verb": exact / 2, "noun": 1.0, "exact_interval": [0.1, 0.9]}
    labels = {"method": method, "family": "opt", "seed": seed, "set": "novel", "words": "new"}
    return {**labels, "condition": condition, "shots": shots, **numbers, "empty": 0, "unparsable": 0, **changes}


RECORDS = [
    *(record_of(seed=seed, shots=2, exact=exact) for seed, exact in enumerate((0.4, 0.5, 0.9))),
    *(record_of(seed=seed, exact=0.0) for seed in range(3)),
    record_of("control", shots=2, exact=0.25, unparsable=3, empty=1),
    *(record_of(method, condition="unseen_pair", shots=2, exact=0.45) for method in ("eilev", "control")),
]


def test_tables_show_means_over_trainings():
    summary = summarize(RECORDS)
    first = summary[0]["exact"]
    # 0.6 - 0.2, - 0.1, + 0.3: a variance of (0.04 + 0.01 + 0.09) / 2.
    assert first == {"mean": pytest.approx(0.6), "std": pytest.approx(0.07**0.5), "min": 0.4, "max": 0.9}
    assert make_table(summary, ("exact",)).splitlines() == [
        "| model | condition | 0 | 2 |",
        "| --- | --- | ---: | ---: |",
        "| EILEV | clips and narrations | 0.00 ± 0.00 | 0.60 ± 0.26 |",
        "| VideoBLIP | clips and narrations |  | 0.25 [0.10, 0.90] |",
        "| no model | words of the context that don't stand together in it |  | 0.45 [0.10, 0.90] |",
    ]
    assert "| EILEV | clips and narrations | 0.00 / 1.00 | 0.30 / 1.00 |" in make_table(summary, ("verb", "noun"))


def test_the_picture_has_a_line_and_a_band_for_each():
    picture = ElementTree.fromstring(draw_lines(summarize(RECORDS), title="a < b"))
    name = "{http://www.w3.org/2000/svg}"

    def points(tag):
        shapes = [shape.get("points").split() for shape in picture.iter(name + tag)]
        return [[tuple(map(float, point.split(","))) for point in shape] for shape in shapes]

    lines, bands = points("polyline"), points("polygon")
    assert [len(line) for line in lines] == [2, 1, 1]
    (left, bottom), (right, middle) = lines[0]
    assert left < right
    assert middle < bottom
    # By their distances from 0: the mean, and the best and the worst.
    height = (bottom - middle) / 0.6
    assert bands[0] == [
        (left, bottom),
        (right, pytest.approx(bottom - 0.9 * height, abs=0.2)),
        (right, pytest.approx(bottom - 0.4 * height, abs=0.2)),
        (left, bottom),
    ]
    texts = [text.text for text in picture.iter(name + "text")]
    assert "a < b" in texts
    assert "EILEV: clips and narrations" in texts
    assert "words of the context that don't stand together in it" in texts


def test_a_report_has_tables_numbers_and_pictures(tmp_path):
    other = [record_of(words="own", shots=2, exact=1.0)]
    path = write_report([*RECORDS, *other], tmp_path / "report")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "exact-opt-novel-new.svg",
        "exact-opt-novel-own.svg",
        "report.json",
        "report.md",
    ]
    text = path.read_text(encoding="utf-8")
    assert "Trainings of each model: 1 to 3; queries of each: 10." in text
    assert "| EILEV | clips and narrations | 0.00 ± 0.00 | 0.60 ± 0.26 |" in text
    assert "![Exact narrations by shots](exact-opt-novel-own.svg)" in text
    assert "- VideoBLIP, clips and narrations, 2 shots: 1 empty, 3 without verb and noun, of 10" in text
    assert text.count("count as wrong") == 1
    content = json.loads((path.parent / "report.json").read_text())
    assert content["records"] == [*RECORDS, *other]
    assert content["summary"] == json.loads(json.dumps(summarize([*RECORDS, *other])))


def test_records_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two records of .*'eilev', 'clips', 2.*seed 0"):
        summarize([RECORDS[0], RECORDS[0]])
    with pytest.raises(ValueError, match="must have 'words'"):
        summarize([{name: value for name, value in RECORDS[0].items() if name != "words"}])
    with pytest.raises(ValueError, match="no records"):
        write_report([], tmp_path)
