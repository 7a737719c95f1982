"""Lists of narrated clips: what is read of them, and what is refused."""

import json
import logging

import numpy as np
import pytest

from transformers_eilev import ClipSpan
from transformers_eilev.in_context.library import (
    Demonstration,
    as_demonstrations,
    check_demonstrations,
    demonstrations_of,
    read_demonstrations,
    span_of,
)


def written(folder, text, name="mine.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_spreadsheets_csv_is_read(tmp_path, caplog):
    header = "path,narration,start,end,verb,noun,rating\r\n"
    rows = header + 'a/b.mp4,"C says ""hé"", 茶",1.5,3,say,tea,5\r\n\r\n/x.mp4,Two,,,,\r\n'
    path = written(tmp_path, b"\xef\xbb\xbf" + rows.encode())
    with caplog.at_level(logging.INFO):
        first, second = read_demonstrations(path)
    assert first == Demonstration(str(tmp_path / "a/b.mp4"), 'C says "hé", 茶', 1.5, 3.0, "say", "tea")
    assert second == Demonstration("/x.mp4", "Two")
    assert (first.where, second.where) == (f"{path}:2", f"{path}:4")
    assert "rating" in caplog.text


def test_json_lines_are_read(tmp_path):
    lines = [
        {"path": "a.mp4", "narration": "One", "start": 1, "end": None},
        {"path": "https://x/a.mp4", "narration": "Z"},
    ]
    path = written(tmp_path, "\n\n".join(map(json.dumps, lines)), "mine.jsonl")
    first, second = read_demonstrations(path)
    assert first == Demonstration(str(tmp_path / "a.mp4"), "One", 1.0)
    assert (second.clip, second.where) == ("https://x/a.mp4", f"{path}:3")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no demonstrations"),
        ("path,narration\n", "no demonstrations"),
        ("path;narration\na;b\n", "lacks the columns path, narration.*path;narration"),
        ("path,path,narration\na,b,c\n", "more than one column path"),
        ("path,narration\na,one,two\n", ":2: 3 values for 2 columns.*quotes: 'two'"),
        ('path,narration\na,"one\n', ":2: not CSV"),
        ("path,narration\na,ok\nb, \n", ":3: `narration` has no words"),
        ("path,narration\n,ok\n", ":2: `path` is empty"),
        ("path,narration\na,x <video> y\n", ":2: `narration` may not contain '<video>'"),
        ('path,narration\na,"x\ny"\nb,...\n', ":2: `narration` must be one line(.|\n)*:4: `narration` has no words"),
        ("path,narration,start\na,ok,soon\n", ":2: `start` must be a number of seconds, but is 'soon'"),
        ("path,narration,start\na,ok,-1\n", ":2: `start` must be seconds .* -1"),
        ("path,narration,end\na,ok,nan\n", ":2: `end` must be seconds .* nan"),
        ("path,narration,start,end\na,ok,3,3\n", ":2: `start` must be before `end`, but they are 3.0 and 3.0"),
        (b"path,narration\na,\xff\n", "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_demonstrations(written(tmp_path, text))


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1]", ":1: must be an object"),
        ("{", ":1: no JSON"),
        ('{"path": 3, "narration": "a"}', ":1: `path` must be a text, but is 3"),
        ('{"narration": "a"}', ":1: `path` is empty"),
        ('{"path": "a", "narration": "a", "start": true}', ":1: `start` must be a number of seconds, but is True"),
    ],
)
def test_what_is_wrong_with_json_lines_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_demonstrations(written(tmp_path, text, "mine.jsonl"))


def test_only_two_kinds_of_list(tmp_path):
    with pytest.raises(ValueError, match="mine.txt: .* .csv or a .jsonl"):
        read_demonstrations(tmp_path / "mine.txt")
    with pytest.raises(FileNotFoundError):
        read_demonstrations(tmp_path / "mine.csv")


def test_ten_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match=":11: (.|\n)*and 2 more") as error:
        read_demonstrations(written(tmp_path, "path,narration\n" + "a,.\n" * 12))
    assert len(str(error.value).splitlines()) == 11


def test_rows_of_a_clip_store():
    row = {"frames": [0], "narration_text": "#C C cuts a cup", "structured_verb": "cut", "structured_noun": None}
    [one] = demonstrations_of([row])
    assert one == Demonstration([0], "The camera wearer cuts a cup.", verb="cut")
    for name in ("frames", "narration_text"):
        with pytest.raises(ValueError, match=rf"row 1 \(v\|3\) has no `{name}`"):
            demonstrations_of([row, {**row, name: None, "frame_path": "v|3"}])
    with pytest.raises(ValueError, match="row 0: `narration` has no words"):
        demonstrations_of([{**row, "narration_text": " "}])


def test_pairs_are_demonstrations():
    own = Demonstration("b.mp4", "B", 1.0)
    assert as_demonstrations([("a.mp4", "A"), own]) == [Demonstration("a.mp4", "A"), own]
    assert span_of(own) == ClipSpan("b.mp4", 1.0) and span_of(Demonstration("a", "A")) == "a"
    for bad in (("a", "b", "c"), "ab", ("a", 3), None):
        with pytest.raises(ValueError, match=r"demonstrations\[1\] must be a Demonstration or a pair"):
            as_demonstrations([own, bad])
    with pytest.raises(ValueError, match="must be a list"):
        as_demonstrations(own)


def test_all_faults_are_told_before_any_work(tmp_path, videos_path):
    good = str(videos_path / "vfr.mp4")
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    check_demonstrations(
        [Demonstration(good, "A"), Demonstration(ClipSpan(good, 0, 1), "B"), Demonstration(frames, "C")]
    )
    bad = [
        Demonstration("missing.mp4", "A", where="mine.csv:2"),
        Demonstration(damaged, "A"),
        Demonstration(good, " "),
        Demonstration(good, "A", 2.0, 1.0),
        Demonstration(good, "A", 1e6),
        Demonstration(3, "A"),
    ]
    with pytest.raises(ValueError) as error:
        check_demonstrations(bad)
    lines = str(error.value).splitlines()
    assert lines[0] == "mine.csv:2: there is no file missing.mp4"
    words = ["damaged.mp4", "no words", "before `end`", "lasts", "no clip"]
    for index, (line, word) in enumerate(zip(lines[1:], words, strict=True), start=1):
        assert line.startswith(f"demonstrations[{index}]") and word in line
