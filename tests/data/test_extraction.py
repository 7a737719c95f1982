"""Clips are extracted as the original extracts them, whatever happens to the process, the videos and the rows."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transformers_eilev.data import clip_store, extraction_worker
from transformers_eilev.data.clip_format import safe_name
from transformers_eilev.data.clip_store import merge_clip_parts
from transformers_eilev.data.extraction import extract_clips
from transformers_eilev.data.windows import place_window


FIXTURES = Path(__file__).parents[1] / "fixtures"
VIDEOS = FIXTURES / "videos"
GOLDEN = FIXTURES / "data" / "extraction"
SMALL = {"num_frames": 4, "size": 112, "num_workers": 0, "progress": False}


def action(uid, index, second, *, video="vid-short.mp4", **more):
    return {
        "video_uid": uid,
        "clip_index": index,
        "frame_path": f"{uid}|{index}",
        "narration_timestamp_sec": second,
        "narration_text": f"#C C does {index} ",
        "structured_verb": "take_(pick,_grab,_get)",
        "structured_noun": "",
        "video_path": str(VIDEOS / video) if video else "",
        **more,
    }


def golden_actions():
    with open(GOLDEN / "narrated_actions.csv", newline="") as file:
        for row in csv.DictReader(file):
            index, second = int(row["clip_index"]), float(row["narration_timestamp_sec"])
            path = str(VIDEOS / f"{row['video_uid']}.mp4")
            yield {**row, "clip_index": index, "narration_timestamp_sec": second, "video_path": path}


def read_rows(folder, split="train"):
    return [row for path in sorted(folder.glob(f"data/{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------------ windows


def test_windows_are_those_of_the_original():
    types = {"int": int, "float": float, "Fraction": Fraction}
    cases = json.loads((GOLDEN / "windows.json").read_text())["cases"]
    assert sum(len(clips) for _, _, clips in cases) > 150
    for value, kind, clips in cases:
        for second, start, end in clips:
            assert place_window(second, types[kind](value)) == (Fraction(start), Fraction(end))


def test_window_of_another_length():
    assert place_window(3, 20, clip_duration=Fraction(5, 2)) == (Fraction(7, 4), Fraction(17, 4))
    assert place_window(np.float32(0.5), 20, clip_duration=1) == (0, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((float("nan"), 10), "narration_timestamp_sec must be finite, got nan"),
        (("3", 10), "narration_timestamp_sec must be a number, got '3'"),
        ((3, float("inf")), "duration must be finite, got inf"),
        ((3, 0), "duration must be positive, got 0.0"),
        ((3, 10, -1), "clip_duration must be positive, got -1.0"),
    ],
)
def test_a_window_that_cannot_be(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        place_window(*arguments)


# -------------------------------------------------------------------------------------------------- as the original


def test_golden_extraction(tmp_path):
    """The same rows, and of every clip the same frames: their numbers are in their pixels."""
    report = extract_clips(golden_actions(), tmp_path, **SMALL, encoding="png", layout="parquet")
    assert (report.num_clips, report.num_failed, report.num_videos) == (16, 0, 3)
    rows = {row["frame_path"]: row for row in read_rows(tmp_path)}
    golden = json.loads((VIDEOS / "golden.json").read_text())["clips"]
    assert len(rows) == len(golden) == 16
    for expected, (video, second, numbers) in zip(golden_actions(), golden, strict=True):
        row = rows[expected["frame_path"]]
        assert (f"{row['video_uid']}.mp4", row["narration_timestamp_sec"]) == (video, second)
        assert {key: row[key] for key in expected if key != "video_path"} == {
            key: value for key, value in expected.items() if key != "video_path"
        }
        images = [np.asarray(Image.open(_file(frame))) for frame in row["frames"]]
        centers = [round((k + 0.5) * 112 / 12) for k in range(12)]
        read = [sum(int(image[14, x, 0] > 127) << k for k, x in enumerate(centers)) for image in images]
        assert read == numbers
        assert row["frame_sec"] == pytest.approx([number / 30 for number in numbers])


def _file(frame):
    import io

    return io.BytesIO(frame["bytes"])


def test_golden_frame_folders(tmp_path):
    """The same CSV up to its order, the same files, and pixels within what resizing by another kernel does."""
    report = extract_clips(golden_actions(), tmp_path, **SMALL, layout="frame_folders")
    assert report.merged and report.num_clips == 16
    lines = (tmp_path / "narrated_actions.csv").read_bytes().split(b"\r\n")
    golden = (GOLDEN / "narrated_actions.csv").read_bytes().split(b"\r\n")
    assert lines[0] == golden[0] and sorted(lines) == sorted(golden)
    for path in GOLDEN.glob("*.png"):
        uid, index, number = path.stem.rsplit("_", 2)
        name = f"{uid}|{index}"
        ours = np.asarray(Image.open(tmp_path / name / f"{name}|{number}.png"))
        difference = np.abs(ours.astype(int) - np.asarray(Image.open(path)))
        assert difference.max() <= 4 and difference.mean() < 0.5
    assert len(list(tmp_path.rglob("*.png"))) == 64 and not list(tmp_path.rglob("*.parquet"))
    before = content(tmp_path)
    assert extract_clips(golden_actions(), tmp_path, **SMALL, layout="frame_folders").num_resumed == 3
    assert content(tmp_path) == before
    with pytest.raises(ValueError, match="frame folders hold one split"):
        extract_clips(golden_actions(), tmp_path, **SMALL, layout="frame_folders", split="val")


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_failures_are_listed_and_the_rest_is_kept(tmp_path):
    actions = [
        action("whole", 0, 4.0),
        action("empty", 0, 4.0, video="empty.mp4"),
        action("empty", 1, 5.0, video="empty.mp4"),
        action("absent", 0, 4.0, video="no such file.mp4"),
        action("offline", 0, 4.0, video=""),
        action("html", 0, 4.0, video="html_error.mp4"),
        action("hole", 0, 4.0, video="zeroed_hole.mp4"),
        action("late", 0, 3600.0),
    ]
    report = extract_clips(actions, tmp_path, **SMALL)
    assert {entry["frame_path"] for entry in report.failures} == {"empty|0", "empty|1", "absent|0", "html|0"}
    assert report.missing_videos == {"offline": 1}
    assert report.num_clips == 3 and report.num_partial == 1 and report.num_failed == 4
    assert {row["frame_path"]: row["status"] for row in read_rows(tmp_path)} == {
        "hole|0": "partial",
        "late|0": "complete",
        "whole|0": "complete",
    }
    record = json.loads((tmp_path / "parts/train/hole.failed.json").read_text())
    assert "damaged" in record["partial"][0]["reason"] and record["partial"][0]["frame_path"] == "hole|0"
    record = json.loads((tmp_path / "parts/train/empty.failed.json").read_text())
    assert [entry["reason"] for entry in record["failed"]] == ["is empty", "is empty"] and not record["retry"]
    log = json.loads((tmp_path / "logs/train.json").read_text())
    moved = [entry for video in log["videos"] for entry in video["moved"]]
    assert [entry["reason"] for entry in moved] == ["narrated at 3600.0 s of a video of 5.500 s"]
    # The file that was not there is looked for again.
    actions[3]["video_path"] = str(VIDEOS / "vid-exact8.mp4")
    report = extract_clips(actions, tmp_path, **SMALL)
    assert (report.num_resumed, report.num_clips, report.num_failed) == (5, 4, 3)
    assert len(read_rows(tmp_path)) == 4


def test_a_cut_file_shows_nothing_else_in_place_of_what_it_lost(tmp_path):
    """Its header promises 10 s; windows stay where they would be in the whole file."""
    data = (VIDEOS / "faststart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    actions = [
        action("cut", i, second, video_path=str(tmp_path / "cut.mp4")) for i, second in enumerate((2.0, 4.5, 9.9))
    ]
    report = extract_clips(actions, tmp_path / "out", **SMALL, clip_duration=2)
    statuses = {row["clip_index"]: row["status"] for row in read_rows(tmp_path / "out")}
    assert statuses[0] == "complete" and 2 not in statuses
    assert "the file ends at" in report.failures[-1]["reason"] and report.failures[-1]["frame_path"] == "cut|2"


def test_bad_rows_are_refused_by_number(tmp_path):
    good = action("v", 0, 1.0)
    bad = [
        (action("v", 1, float("nan")), "narration_timestamp_sec must be a finite number, got nan"),
        (action("v", 2, "3"), "narration_timestamp_sec must be a finite number, got '3'"),
        (action("v", -1, 1.0), "clip_index must be an integer"),
        (action("v", True, 1.0), "clip_index must be an integer"),
        (action("", 1, 1.0), "video_uid is empty"),
        (action(None, 1, 1.0), "video_uid must be a string, got None"),
        (action("v", 3, 1.0, narration_text=None), "narration_text must be a string, got None"),
        (action("\ud800", 1, 1.0), "surrogates not allowed"),
        (action("v", 0, 2.0), "a second row of video_uid and clip_index 'v|0'"),
        (action("v", 4, 1.0, frame_path="../v|4"), "frame_path must be 'v|4'"),
        (action("v", 5, 1.0, video="vid-long.mp4"), "video_path of 'v' is"),
        (action("v", 6, 1.0, boxes=[1]), "boxes must be a string, a number or a boolean"),
        (action("v", 7, 1.0, frames=3), "'frames' is the clip's own"),
        ({}, "video_uid must be a string"),
    ]
    report = extract_clips([good, *(row for row, _ in bad)], tmp_path, **SMALL)
    assert report.num_clips == 1
    assert [entry["row"] for entry in report.refused] == list(range(1, len(bad) + 1))
    for entry, (_, message) in zip(report.refused, bad, strict=True):
        assert message in entry["reason"]
    assert json.loads((tmp_path / "logs/train.json").read_text())["refused_rows"] == report.refused


HOSTILE = [
    "../up",
    "/etc/passwd",
    "a|b",
    "..",
    ".",
    "a\x00b",
    "con\nnew",
    "x" * 500,
    "sp ace",
    "ümlaut",
    "a/b",
    "a_b",
    "~",
]


@pytest.mark.parametrize("layout", ["parquet", "frame_folders"])
def test_hostile_uids_stay_inside(tmp_path, layout):
    out = tmp_path / "deep" / "out"
    actions = [action(uid, 0, 1.0) for uid in HOSTILE]
    report = extract_clips(actions, out, **SMALL, layout=layout)
    assert report.num_clips == len(HOSTILE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    if layout == "parquet":
        assert sorted(row["video_uid"] for row in read_rows(out)) == sorted(HOSTILE)
    else:
        clips = clip_store.read_frame_folders(out, on_bad_row="raise")
        assert sorted(clips["video_uid"]) == sorted(HOSTILE)


def test_safe_names_differ():
    names = {safe_name(uid) for uid in HOSTILE}
    assert len(names) == len(HOSTILE) and safe_name("a_b") == "a_b"
    assert all(len(name) <= 120 and not set("/\\|.\0\n") & set(name) for name in names)


def test_disk_space_is_checked_first(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1 << 29})()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    actions = [action("v", index, 1.0) for index in range(1000)]
    with pytest.raises(OSError, match=r"1000 clips of about 706 KiB need 1.17 GiB at .*, where 0.50 GiB are free"):
        extract_clips(actions, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"num_frames": 2.5}, "num_frames must be an integer, got 2.5"),
        ({"encoding": "gif"}, "encoding must be one of .* got 'gif'"),
        ({"layout": "frame_folders", "encoding": "jpeg"}, "frame folders hold PNGs, got encoding='jpeg'"),
        ({"layout": "zip"}, "layout must be"),
        ({"shard": (2, 2)}, r"shard must be \(i, n\) with 0 <= i < n, got \(2, 2\)"),
        ({"split": "../train"}, "split must be a word"),
        ({"clip_duration": float("inf")}, "clip_duration must be positive and finite, got inf"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        extract_clips([], tmp_path, **arguments)


def test_other_settings_and_rows_are_not_mixed(tmp_path):
    actions = [action("v", 0, 1.0, participant_id="P01")]
    extract_clips(actions, tmp_path, **SMALL)
    with pytest.raises(ValueError, match="holds clips of size=112 and not 56"):
        extract_clips(actions, tmp_path, **{**SMALL, "size": 56})
    with pytest.raises(FileExistsError, match="holds clips already"):
        extract_clips(actions, tmp_path, **SMALL, resume=False)
    with pytest.raises(ValueError, match="'v' were made and merged from other rows"):
        extract_clips([action("v", 0, 2.0, participant_id="P01")], tmp_path, **SMALL)
    assert read_rows(tmp_path)[0]["participant_id"] == "P01"


# ---------------------------------------------------------------------------------------------------- shards and kills


def test_shards_make_what_one_run_makes(tmp_path):
    actions = list(golden_actions()) + [action(f"more-{i}", 0, 1.0) for i in range(5)]
    extract_clips(actions, tmp_path / "one", **SMALL)
    for i in (2, 0, 1):
        report = extract_clips(iter(reversed(actions)), tmp_path / "three", **SMALL, shard=(i, 3))
        assert not report.merged and 0 < report.num_videos < 8
    again = extract_clips(actions, tmp_path / "three", **SMALL)
    assert again.num_resumed == again.num_videos == 8
    for name in ("data/train-00000.parquet", "logs/train.json", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


KILLED = """
    import json, pathlib, sys, time
    from transformers_eilev import frame_resizing
    from transformers_eilev.data.extraction import extract_clips

    resize = frame_resizing.resize_frames
    def slow(frames, size):
        # So far and no further: the rest of the time it can be killed.
        enough = len(list(pathlib.Path(sys.argv[1]).glob("parts/train/*.failed.json"))) >= int(sys.argv[3])
        time.sleep(1 if enough else 0)
        return resize(frames, size)
    frame_resizing.resize_frames = slow
    extract_clips(json.loads(sys.argv[2]), sys.argv[1], num_frames=4, size=112, num_workers=0, progress=False)
"""


def kill_actions():
    return [*golden_actions(), *(action(f"more-{i}", j, j / 2) for i in range(4) for j in range(3))]


def test_killed_and_resumed_equals_never_killed(tmp_path):
    """With SIGKILL, twice, at whatever it was doing."""
    done = []
    for number in range(2):
        arguments = [str(tmp_path / "killed"), json.dumps(kill_actions()), str(1 + 4 * number)]
        command = [sys.executable, "-c", textwrap.dedent(KILLED), *arguments]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        parts = tmp_path / "killed" / "parts" / "train"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(list(parts.glob("*.failed.json"))) < 1 + 4 * number:
            time.sleep(0.005)
        time.sleep(0.03 * number)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        done.append({path.name: path.stat().st_mtime_ns for path in parts.glob("*.failed.json")})
    assert 0 < len(done[0]) < len(done[1]) < 7
    report = extract_clips(kill_actions(), tmp_path / "killed", **SMALL)
    assert report.num_resumed == len(done[1])
    extract_clips(kill_actions(), tmp_path / "whole", **SMALL)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    # Nothing was done twice.
    for earlier in done:
        for name, written in earlier.items():
            assert (tmp_path / "killed" / "parts" / "train" / name).stat().st_mtime_ns == written


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_while_merging(tmp_path, monkeypatch, number):
    """Stopped at its `number`-th removal of a part, so after a shard is in place and before its parts are gone."""
    for name in ("whole", "killed"):
        for i in range(2):
            extract_clips(kill_actions(), tmp_path / name, **SMALL, shard=(i, 2))
    merge_clip_parts(tmp_path / "whole", max_shard_bytes=60_000)
    assert len(list(tmp_path.glob("whole/data/*"))) >= 3
    unlink, calls = Path.unlink, []

    def stop(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == number:
            raise KeyboardInterrupt
        unlink(self, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", stop)
    with pytest.raises(KeyboardInterrupt):
        merge_clip_parts(tmp_path / "killed", max_shard_bytes=60_000)
    monkeypatch.undo()
    merge_clip_parts(tmp_path / "killed", max_shard_bytes=60_000)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_worker_that_dies_costs_its_video_alone(tmp_path, monkeypatch):
    """Real processes, of which one is killed as soon as it has got a video."""
    start = extraction_worker._Worker.start

    def deadly(self, task):
        start(self, task)
        if task.video_uid == "vid-long":
            self.process.kill()

    monkeypatch.setattr(extraction_worker._Worker, "start", deadly)
    report = extract_clips(kill_actions(), tmp_path, **{**SMALL, "num_workers": 1})
    assert (report.num_clips, report.num_failed) == (17, 11)
    assert {entry["reason"] for entry in report.failures} == {"the worker process was ended by SIGKILL"}
    assert len(read_rows(tmp_path)) == 17
    monkeypatch.undo()
    report = extract_clips(kill_actions(), tmp_path, **SMALL)
    assert (report.num_clips, report.num_failed, report.num_resumed) == (28, 0, 6)
    assert len(read_rows(tmp_path)) == 28
