"""A file of narrations is that of an undisturbed run, however often the run was stopped."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from test_long_videos import GOOD, QUIET, describe
from video_frames import VIDEOS

from transformers_eilev.in_context import long_videos, narration_journal
from transformers_eilev.in_context.long_videos import narrate_video
from transformers_eilev.video_reading import iter_clips


CHILD = """
    import sys, time
    from transformers_eilev.in_context.long_videos import narrate_video
    def narrate(clips, spans):
        time.sleep(0.03)
        return [(f"{start:.3f} {c.sum()}", -float(c.float().mean())) for c, (start, _) in zip(clips, spans)]
    settings = {"num_frames": 3, "size": (28, 28), "progress": False}
    print("ready", flush=True)
    for narration in narrate_video(
        sys.argv[1], narrate, output=sys.argv[2], every=0.25, clip_sec=2, batch_size=3, **settings
    ):
        print(narration.start, flush=True)
"""


def start_child(output):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(GOOD), str(output)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_at_any_moment(tmp_path):
    output, whole = tmp_path / "x.srt", tmp_path / "whole.srt"
    settings = {**QUIET, "every": 0.25, "clip_sec": 2, "batch_size": 3}
    expected = list(narrate_video(GOOD, describe, output=whole, **settings))
    moments = random.Random(0)
    num_done = []
    for _ in range(4):
        child = start_child(output)
        assert child.stdout.readline() == "ready\n"
        child.stdout.readline()  # a narration at least
        time.sleep(moments.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        num_done.append(len(narration_journal.journal_path(output).read_bytes().splitlines()) - 1)
    assert num_done == sorted(num_done) and 0 < num_done[0] <= num_done[-1] < 40
    assert list(narrate_video(GOOD, describe, output=output, **settings)) == expected
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.srt", "x.srt"]


def test_a_journal_torn_at_any_byte(tmp_path):
    settings = {**QUIET, "every": 1, "batch_size": 3, "clip_sec": 2}
    output = tmp_path / "x.jsonl"
    journal = narration_journal.journal_path(output)
    runs = narrate_video(GOOD, describe, output=output, **settings)
    for _ in range(9):
        next(runs)
    runs.close()
    data = journal.read_bytes()
    assert len(data.splitlines()) == 10
    whole = None
    for length in sorted({len(data), *random.Random(0).sample(range(len(data)), 12), data.index(b"\n") + 1}):
        journal.write_bytes(data[:length])
        narrations = list(
            narrate_video(GOOD, describe, output=output, overwrite=length <= data.index(b"\n"), **settings)
        )
        assert len(narrations) == 10 and not journal.exists()
        whole = whole or output.read_bytes()
        assert output.read_bytes() == whole


def test_taken_up_where_it_stood(tmp_path, monkeypatch):
    """Behind the last whole batch, in the same batches, and without decoding what is done."""
    calls, first_windows = [], []

    def failing(clips, spans):
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        calls.append(spans)
        return describe(clips, spans)

    def watched(source, windows, **kwargs):
        first_windows.append(windows[0].start)
        return iter_clips(source, windows, **kwargs)

    monkeypatch.setattr(long_videos, "iter_clips", watched)
    settings = {**QUIET, "every": 1, "batch_size": 3, "clip_sec": 1}
    output = tmp_path / "x.srt"
    with pytest.raises(RuntimeError, match="out of memory"):
        list(narrate_video(GOOD, failing, output=output, **settings))
    assert len(output.read_text().split("\n\n")) == 6 + 1  # written as it goes
    calls.clear()
    taken_up = narrate_video(GOOD, lambda c, s: calls.append(s) or describe(c, s), output=output, **settings)
    assert len(list(taken_up)) == 10
    assert [len(spans) for spans in calls] == [3, 1] and first_windows == [0, 6]
    list(narrate_video(GOOD, describe, output=tmp_path / "whole.srt", **settings))
    assert output.read_bytes() == (tmp_path / "whole.srt").read_bytes()


def test_finished_with_the_last_batch(tmp_path, monkeypatch):
    """Also if nobody asks whether there is more; and by the next run, if this one could not."""
    output = tmp_path / "x.vtt"
    runs = narrate_video(GOOD, describe, output=output, **QUIET)
    next(runs)
    runs.close()
    assert not narration_journal.journal_path(output).exists() and output.read_text().count("-->") == 3
    expected = output.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(narration_journal.NarrationFile, "finish", lambda self: None)
        list(narrate_video(GOOD, describe, output=output, overwrite=True, **QUIET))
    assert len(list(narrate_video(GOOD, None, output=output, **QUIET))) == 3
    assert not narration_journal.journal_path(output).exists() and output.read_bytes() == expected


def test_taken_up_in_other_batches(tmp_path):
    settings = {**QUIET, "every": 1, "output": tmp_path / "x.csv"}
    expected = list(narrate_video(GOOD, describe, **{**settings, "output": None}))
    for batch_size in (4, 3, 1, 8):
        runs = narrate_video(GOOD, describe, batch_size=batch_size, **settings)
        assert next(runs) == expected[0]
        runs.close()
    assert list(narrate_video(GOOD, describe, batch_size=3, **settings)) == expected


def test_another_request_is_refused(tmp_path):
    output = tmp_path / "x.srt"

    def begin(source=GOOD, **settings):
        return narrate_video(source, describe, output=output, **{**QUIET, "every": 1, "batch_size": 1, **settings})

    runs = begin(identity="tiny")
    next(runs)
    runs.close()
    with pytest.raises(ValueError, match=r"x.srt.partial.jsonl is of another run.*every \(1.0, now 2.0\); identity"):
        list(begin(identity="large", every=2))
    with pytest.raises(ValueError, match="differs in video"):
        list(begin(VIDEOS / "vp9.mp4", identity="tiny"))
    with open(GOOD, "rb") as file, pytest.raises(ValueError, match="can't be recognized"):
        list(begin(file, identity="tiny"))
    assert len(list(begin(identity="large", overwrite=True))) == 10
    with pytest.raises(FileExistsError, match="x.srt is there already"):
        begin(identity="large")
    assert len(list(begin(overwrite=True, every=5))) == 2
    runs = begin(GOOD.read_bytes(), overwrite=True)
    next(runs)
    runs.close()
    assert len(list(begin(GOOD.read_bytes()))) == 10


def test_one_writer_at_a_time(tmp_path):
    output = tmp_path / "x.srt"
    first = narrate_video(GOOD, describe, output=output, batch_size=2, **QUIET)
    next(first)
    for overwrite in (False, True):
        with pytest.raises(BlockingIOError, match="x.srt is being written by another process"):
            list(narrate_video(GOOD, describe, output=output, overwrite=overwrite, **QUIET))
    assert len(list(first)) == 2
    assert output.read_text().count("-->") == 3


def test_a_full_disk(tmp_path, monkeypatch):
    output = tmp_path / "x.srt"
    settings = {**QUIET, "every": 1, "batch_size": 2}
    syncs = []

    def fsync(descriptor):
        syncs.append(descriptor)
        if len(syncs) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(narration_journal.os, "fsync", fsync)
        with pytest.raises(OSError, match=r"No space left.*x.srt; what is done is in .*x.srt.partial.jsonl") as caught:
            list(narrate_video(GOOD, describe, output=output, **settings))
    assert caught.value.errno == errno.ENOSPC
    assert len(list(narrate_video(GOOD, describe, output=output, **settings))) == 10
    assert output.read_text().count("-->") == 10


def test_interrupted_from_the_keyboard(tmp_path):
    child = start_child(tmp_path / "x.csv")
    assert child.stdout.readline() == "ready\n"
    child.stdout.readline()  # a narration at least
    child.send_signal(signal.SIGINT)
    child.wait(timeout=20)
    child.stdout.close()
    assert child.returncode != 0
    lines = narration_journal.journal_path(tmp_path / "x.csv").read_text().splitlines()
    assert json.loads(lines[0])["every"] == 0.25
