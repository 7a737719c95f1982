"""Long videos are narrated window by window as each by itself, whatever stops a run and whatever is damaged."""

import threading
import time
import warnings
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from video_frames import VIDEOS, run_python

from transformers_eilev import VideoBlip2VideoProcessor
from transformers_eilev.data.windows import place_window
from transformers_eilev.in_context import long_videos, narration_journal
from transformers_eilev.in_context.long_videos import VideoNarration, narrate_video, plan_windows
from transformers_eilev.video_reading import (
    ClipWindow,
    ReadLimits,
    VideoReadError,
    VideoReadWarning,
    iter_clips,
    read_clip,
)


GOOD = VIDEOS / "good_cfr_bframes.mp4"  # 10 s
QUIET = {"progress": False, "num_frames": 3, "size": (28, 28)}


def describe(clips, spans):
    """A narration that any change of the pixels changes."""
    return [(f"{start:.3f} {clip.sum()}", -float(clip.float().mean())) for clip, (start, _) in zip(clips, spans)]


def no_threads_left():
    return not [thread for thread in threading.enumerate() if thread.name == "read ahead"]


@pytest.fixture(autouse=True)
def threads_end():
    yield
    assert no_threads_left()


# ------------------------------------------------------------------------------------------------------------ windows


def test_stretches_and_their_windows():
    stretches = plan_windows(Fraction(21, 2), every=4, clip_sec=8)
    assert [(s.start, s.end) for s in stretches] == [(0, 4), (4, 8), (8, Fraction(21, 2))]
    windows = [(s.window_start, s.window_end) for s in stretches]
    assert windows == [(0, 8), (2, 10), (Fraction(5, 2), Fraction(21, 2))]
    assert [place_window((s.start + s.end) / 2, Fraction(21, 2)) for s in stretches] == windows
    stretches = plan_windows(3600, every=0.1, start=10, end=12.25, clip_sec=1)
    assert len(stretches) == 23 and stretches[-1].end == Fraction(49, 4)
    assert all(a.end == b.start for a, b in zip(stretches, stretches[1:]))
    assert stretches[0].window_start < 10  # windows keep to the video, not to the part
    (short,) = plan_windows(1.5, every=4)
    assert (short.start, short.end, short.window_start, short.window_end) == (0, 1.5, 0, 1.5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"every": 0}, "every must be a positive number of seconds, got 0"),
        ({"every": "4"}, "every must be a number, got '4'"),
        ({"every": float("nan")}, "every must be a positive"),
        ({"every": 1e-6}, "stretches, more than 1000000"),
        ({"every": 4, "clip_sec": -1}, "clip_duration must be positive"),
        ({"every": 4, "start": -1}, "start must not be negative"),
        ({"every": 4, "start": 3, "end": 2}, "end must be after start"),
        ({"every": 4, "start": 11}, "start is 11, but the video is 10.000 s long"),
    ],
)
def test_windows_that_cannot_be(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        plan_windows(10, **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"read_ahead": 0}, "read_ahead must be"),
        ({"size": (28,)}, "size must be a height and a width"),
        ({"num_frames": None}, "give num_frames or fps"),
        ({"num_frames": 0}, "num_frames must be positive"),
        ({"fps": -1}, "fps must be positive"),
        ({"start": "x"}, "start must be a number"),
        ({"output": "x.txt"}, "must end with one of .srt"),
        ({"output": "no/such/x.srt"}, "no folder 'no/such'"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        narrate_video(GOOD, describe, **settings)


# -------------------------------------------------------------------------------------------------------------- clips


@pytest.mark.parametrize(
    "name",
    ["good_cfr_bframes.mp4", "vfr.mp4", "vp9.mp4", "start_time.mkv", "start_time_ts.ts", "editlist_cut.mp4"]
    + ["raw_annexb.h264", "rotate90.mp4", "odd_size_319x241.mp4", "single_frame.mp4", "fps_1.mp4", "mjpeg.avi"],
)
def test_pixels_are_those_of_each_window_by_itself(name):
    processor = VideoBlip2VideoProcessor(size={"height": 42, "width": 28}, num_frames=3)
    seen = []

    def narrate(clips, spans):
        seen.extend(zip(clips, spans))
        return [("x", None)] * len(clips)

    settings = {"every": 1.5, "clip_sec": 4, "num_frames": 3, "progress": False, "batch_size": 2}
    narrations = list(narrate_video(VIDEOS / name, narrate, **settings, size=(42, 28)))
    assert len(narrations) == len(seen) >= 1 and not any(narration.error for narration in narrations)
    with open(VIDEOS / name, "rb") as file:
        duration = long_videos._measure(long_videos._NamedFile(file, name), ReadLimits())
    stretches = plan_windows(duration, every=1.5, clip_sec=4)
    windows = [ClipWindow(stretch.window_start, stretch.window_end, 3) for stretch in stretches]
    alone = [read_clip(VIDEOS / name, window).frames for window in windows]
    assert [span for _, span in seen] == [(float(w.start), float(w.end)) for w in windows]
    for (clip, _), frames in zip(seen, alone, strict=True):
        expected = processor(frames, return_tensors="pt")["pixel_values"]
        assert torch.equal(processor.normalize_frames(clip)[None], expected)
    if name == GOOD.name:
        for clip, (start, end) in seen:
            expected = processor(str(GOOD), start=start, end=end, return_tensors="pt")["pixel_values"]
            assert torch.equal(processor.normalize_frames(clip)[None], expected)
    seen.clear()
    list(narrate_video(VIDEOS / name, narrate, **settings))  # as large as they are
    assert all(torch.equal(clip, frames) for (clip, _), frames in zip(seen, alone, strict=True))


def test_frames_by_rate_and_part_of_a_video():
    seen = []

    def narrate(clips, spans):
        seen.append(([len(clip) for clip in clips], spans))
        return [("x", 0.0)] * len(clips)

    settings = {"every": 2, "clip_sec": 4, "fps": 2, "start": 3, "end": 8, "progress": False}
    narrations = list(narrate_video(GOOD, narrate, **settings))
    assert [(n.start, n.end) for n in narrations] == [(3, 5), (5, 7), (7, 8)]
    assert seen == [([8, 8, 8], [(2, 6), (4, 8), (5.5, 9.5)])]


def test_sources_and_scores(tmp_path):
    expected = list(narrate_video(GOOD, describe, **QUIET))
    assert [narration.start for narration in expected] == [0, 4, 8]
    assert list(narrate_video(GOOD.read_bytes(), describe, **QUIET)) == expected
    with open(GOOD, "rb") as file:
        assert list(narrate_video(file, describe, **QUIET)) == expected
        assert not file.closed
    scores = iter([float("nan"), float("-inf"), -1.5])
    narrations = narrate_video(GOOD, lambda clips, spans: [("x", next(scores)) for _ in clips], **QUIET)
    assert [narration.score for narration in narrations] == [None, None, -1.5]


def test_wrong_answers_of_the_model():
    with pytest.raises(ValueError, match="narrate returned 1 narrations for 3 clips"):
        list(narrate_video(GOOD, lambda clips, spans: [("x", 0.0)], **QUIET))
    with pytest.raises(TypeError, match="pairs of a text and a score, got 'xy'"):
        list(narrate_video(GOOD, lambda clips, spans: ["xy"] * len(clips), **QUIET))


@pytest.mark.parametrize("name", ["audio_only.mp4", "empty.mp4", "html_error.mp4", "truncated_nomoov.mp4"])
def test_no_video(name, tmp_path):
    with pytest.raises(VideoReadError, match=name):
        list(narrate_video(VIDEOS / name, describe, output=tmp_path / "x.srt", **QUIET))
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        list(narrate_video(tmp_path / "none.mp4", describe, **QUIET))


# ------------------------------------------------------------------------------------------------------------- damage


def damaged_video(tmp_path):
    """With a keyframe every second, and 3 s of the packets in its middle zeroed."""
    import av

    path = tmp_path / "damaged.mp4"
    make_video(path, seconds=16)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and 6 <= p.pts * p.time_base < 9]
    data = bytearray(path.read_bytes())
    for pos, size in places:
        data[pos : pos + size] = bytes(size)
    path.write_bytes(data)
    return path


def make_video(path, *, seconds, rate=10, size=(96, 64)):
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": str(rate), "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(seconds * rate):
            image = np.full((size[1], size[0], 3), number % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_damaged_stretch_is_left_out_and_the_rest_narrated(tmp_path):
    path = damaged_video(tmp_path)
    settings = {**QUIET, "every": 1, "clip_sec": 1, "batch_size": 3}
    with pytest.warns(VideoReadWarning) as caught:
        narrations = list(narrate_video(path, describe, output=tmp_path / "x.csv", **settings))
    assert len(narrations) == 16
    assert [n.start for n in narrations if not n.text] == [6, 7, 8]
    assert all(n.error for n in narrations[6:9]) and not any(n.error for n in narrations[:6] + narrations[9:])
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 3
    assert all(
        str(path) in message and f"{second}.000 s to" in message for second, message in zip((6, 7, 8), messages)
    )
    # The same in a run that is taken up within the damage.
    expected = (tmp_path / "x.csv").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoReadWarning)
        for stop in (3, 6, 7, 9, 12):
            runs = narrate_video(path, describe, output=tmp_path / "x.csv", overwrite=True, **settings)
            for _ in range(stop):
                next(runs)
            runs.close()
            list(narrate_video(path, describe, output=tmp_path / "x.csv", overwrite=True, **settings))
            assert (tmp_path / "x.csv").read_bytes() == expected


def test_a_file_that_was_cut_off(tmp_path):
    data = (VIDEOS / "faststart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    with pytest.warns(VideoReadWarning, match=r"cut.mp4: the file ends at .* but should at 10.00 s"):
        narrations = list(narrate_video(tmp_path / "cut.mp4", describe, every=1, clip_sec=1, **QUIET))
    assert 4 <= len(narrations) <= 9 and all(narration.text for narration in narrations[:4])


def test_empty_narrations_are_counted(tmp_path):
    with pytest.warns(UserWarning, match="3 of 3 narrations are empty"):
        list(narrate_video(GOOD, lambda c, s: [("", None)] * len(c), output=tmp_path / "x.srt", **QUIET))
    assert (tmp_path / "x.srt").read_text() == ""


# ------------------------------------------------------------------------------------------------------------- memory


def test_one_pass(tmp_path, monkeypatch):
    """Each frame is decoded about once, however many windows show it."""
    counts = []

    def watched(*args, **kwargs):
        for index, clip in iter_clips(*args, **kwargs):
            counts.append(clip.counts)
            yield index, clip

    monkeypatch.setattr(long_videos, "iter_clips", watched)
    make_video(tmp_path / "long.mp4", seconds=900, rate=5)
    assert len(list(narrate_video(tmp_path / "long.mp4", describe, every=1, clip_sec=8, **QUIET))) == 900
    assert len(counts) == 900 and counts[0] is counts[-1]
    assert counts[-1].decoded < 1.1 * 900 * 5


MEMORY = """
    import sys
    from transformers_eilev.in_context.long_videos import narrate_video
    n = sum(1 for _ in narrate_video(sys.argv[1], lambda c, s: [("x", 0.0)] * len(c), every=2, progress=False))
    peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    print(n, peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    peaks = []
    for minutes in (4, 20):
        path = tmp_path / f"{minutes}.mp4"
        make_video(path, seconds=60 * minutes, rate=2, size=(320, 240))
        number, peak = map(int, run_python(MEMORY, path).split())
        assert number == 30 * minutes
        peaks.append(peak)
    # 480 more clips of 1.8 MB each would be 880 MB
    assert peaks[1] - peaks[0] < 60_000


# ---------------------------------------------------------------------------------------------------------- two sides


def test_the_decoder_ends_with_its_consumer():
    for stop in (1, 2, 5):
        for narration in narrate_video(GOOD, describe, every=0.2, batch_size=1, **QUIET):
            assert isinstance(narration, VideoNarration)
            if narration.start > stop:
                break
        del narration
    runs = narrate_video(GOOD, describe, **QUIET)
    del runs  # not even begun
    time.sleep(0.01)
    assert no_threads_left()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("model"), SystemExit])
def test_the_decoder_ends_with_the_model(error):
    def narrate(clips, spans):
        raise error

    started = time.monotonic()
    with pytest.raises(error if isinstance(error, type) else type(error)):
        list(narrate_video(GOOD, narrate, every=0.2, batch_size=1, **QUIET))
    assert time.monotonic() - started < 5 and no_threads_left()


def test_the_model_ends_with_the_decoder(monkeypatch, tmp_path):
    def failing(*args, **kwargs):
        yield from list(iter_clips(*args, **kwargs))[:4]
        raise VideoReadError("good.mp4", "reading took longer than max_seconds=600")

    monkeypatch.setattr(long_videos, "iter_clips", failing)
    got = []
    with pytest.raises(VideoReadError, match="max_seconds"):
        for narration in narrate_video(GOOD, describe, every=1, batch_size=2, output=tmp_path / "x.csv", **QUIET):
            got.append(narration)
    assert len(got) == 4 and narration_journal.journal_path(tmp_path / "x.csv").exists()


def test_decoding_runs_ahead_of_the_model(monkeypatch):
    """While the model is at one batch, the next ones are read, and no more of them than was asked for."""
    read = []

    def watched(*args, **kwargs):
        for item in iter_clips(*args, **kwargs):
            read.append(item[0])
            yield item

    monkeypatch.setattr(long_videos, "iter_clips", watched)
    counts = []

    def narrate(clips, spans):
        deadline = time.monotonic() + 10
        expected = min(20, (len(counts) + 1 + 2 + 1) * 2)  # this batch, two ahead, one that waits to be handed over
        while len(read) < expected and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        counts.append((len(read), expected))
        return describe(clips, spans)

    list(narrate_video(GOOD, narrate, every=0.5, clip_sec=2, batch_size=2, read_ahead=2, **QUIET))
    assert all(number in (expected, expected + 1) for number, expected in counts), counts
