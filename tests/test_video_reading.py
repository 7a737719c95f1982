"""Which frames are read is proved by their pixels: the test videos carry the number of each frame in 16 blocks of 8x8
pixels along the top edge, white for a set bit, lowest bit first."""

import contextlib
import functools
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch

from transformers_eilev.video_reading import (
    ClipWindow,
    ReadLimits,
    VideoReadError,
    VideoReadWarning,
    frames_to_tensor,
    iter_clips,
    probe_video,
    read_clip,
    read_clips,
    sample_indices,
)


VIDEOS = Path(__file__).parent / "fixtures" / "videos"
GOLDEN = json.loads((VIDEOS / "golden.json").read_text())
SOUND = [
    "audio_longer.mp4",
    "av1.mp4",
    "editlist_cut.mp4",
    "faststart.mp4",
    "five_frames.mp4",
    "fps_1.mp4",
    "fps_5994.mp4",
    "full_range.mp4",
    "good_cfr_bframes.mp4",
    "good_opengop.mp4",
    "good_shortgop_nob.mp4",
    "mjpeg.avi",
    "noeditlist_cut.mp4",
    "odd_size_319x241.mp4",
    "raw_annexb.h264",
    "sar_4_3.mp4",
    "short_2s.mp4",
    "single_frame.mp4",
    "start_time.mkv",
    "start_time.mp4",
    "start_time_ts.ts",
    "tenbit_h264.mp4",
    "two_streams.mp4",
    "vfr.mp4",
    "vp9.mp4",
]
WINDOWS = [
    ClipWindow(end=8, num_frames=8),
    ClipWindow(start=0.031, end=0.9, num_frames=5),
    ClipWindow(start=1.5, end=1.9, num_frames=4),
    ClipWindow(start=3, end=5, num_frames=8),
    ClipWindow(start=Fraction(29, 10), num_frames=3),
    ClipWindow(start=0.55, end=100, fps=3),
    ClipWindow(start=1, end=Fraction(4, 3)),
]


def frame_number(image):
    """The counter in the pixels of an image of shape (3, height, width)."""
    blocks = image[:, 2:6, :128].reshape(3, 4, 16, 8)[..., 2:6].float().mean((0, 1, 3))
    return sum(bit << k for k, bit in enumerate((blocks > 127).tolist()))


def frame_numbers(clip):
    return [frame_number(image) for image in clip.frames]


def to_image(frame):
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


@functools.lru_cache(maxsize=2)
def decode_everything(name):
    """[(seconds from the first frame, frame)] in order of display; the plain way, one frame after the other."""
    frames = []
    with av.open(str(VIDEOS / name)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            time = Fraction(len(frames), 25) if frame.pts is None else frame.pts * stream.time_base
            frames.append((time, frame))
    frames.sort(key=lambda item: item[0])
    return [(time - frames[0][0], frame) for time, frame in frames]


def expected_frames(name, window):
    frames = decode_everything(name)
    end = float("inf") if window.end is None else window.end
    inside = [frame for frame in frames if window.start <= frame[0] < end]
    if window.fps is not None:
        shown_for = frames[-1][0] - frames[-2][0] if len(frames) > 1 else Fraction(1, 30)
        chosen, now = [], Fraction(window.start)
        while now < end and now < frames[-1][0] + shown_for:
            chosen.append([frame for frame in frames if frame[0] <= now][-1])
            now += 1 / Fraction(window.fps)
        return chosen
    if window.num_frames is None or not inside:
        return inside
    indices = torch.linspace(0, len(inside) - 1, window.num_frames).long()
    return [inside[i] for i in indices]


# ---------------------------------------------------------------------------------------------- the frames asked for


@pytest.mark.parametrize("name", SOUND)
def test_reads_the_frames_of_plain_sequential_decoding(name):
    clips = read_clips(VIDEOS / name, WINDOWS, on_error="return")
    for window, clip in zip(WINDOWS, clips, strict=True):
        expected = expected_frames(name, window)
        if not expected:
            assert isinstance(clip, VideoReadError), window
            continue
        assert clip.status == "complete" and clip.message == ""
        images = [to_image(frame) for _, frame in expected]
        assert frame_numbers(clip) == [frame_number(image) for image in images], window
        assert clip.frame_sec == pytest.approx([float(time) for time, _ in expected], abs=1e-6)
        assert torch.equal(clip.frames, torch.stack(images)), window
        assert clip.frames.is_contiguous() and clip.frames.dtype == torch.uint8
    # Each frame converted once, so that none had to be looked for a second time.
    assert clips[0].counts.converted == len({second for clip in clips for second in getattr(clip, "frame_sec", ())})


@pytest.mark.parametrize(
    "name",
    ["good_cfr_bframes.mp4", "good_opengop.mp4", "start_time_ts.ts", "start_time.mkv", "av1.mp4", "raw_annexb.h264"],
)
def test_each_frame_alone(name):
    """Seeking anywhere gives the same pixels as decoding from the beginning."""
    frames = decode_everything(name)
    for number in range(0, len(frames), 13):
        time, frame = frames[number]
        clip = read_clip(VIDEOS / name, ClipWindow(start=time, end=time + Fraction(1, 60), num_frames=1))
        assert frame_numbers(clip) == [number] and clip.counts.converted == 1
        assert torch.equal(clip.frames[0], to_image(frame))


@pytest.mark.parametrize("codec, suffix", [("libx265", "mp4"), ("mpeg4", "avi"), ("libvpx", "webm"), ("gif", "gif")])
def test_other_codecs(tmp_path, codec, suffix):
    path = tmp_path / f"video.{suffix}"
    options = {"x265-params": "bframes=4:keyint=40:log-level=none"} if codec == "libx265" else {"g": "40"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "rgb8" if codec == "gif" else "yuv420p"
        for number in range(100):
            pixels = np.zeros((96, 160, 3), dtype=np.uint8)
            for k in range(16):
                pixels[:8, 8 * k : 8 * k + 8] = 255 * (number >> k & 1)
            pixels[40:60, number : number + 30, 1] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    windows = [ClipWindow(num_frames=8), ClipWindow(start=1.9, end=3.1, num_frames=5)]
    clips = read_clips(path, windows)
    assert frame_numbers(clips[0]) == [0, 14, 28, 42, 56, 70, 84, 99]
    assert frame_numbers(clips[1]) == [48, 55, 62, 69, 77]
    for window, clip in zip(windows, clips, strict=True):
        assert clip.status == "complete"
        assert torch.equal(clip.frames, torch.stack([to_image(frame) for _, frame in expected_frames(path, window)]))
    assert probe_video(path).duration == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("video, second, numbers", GOLDEN["clips"])
def test_clips_of_the_original(video, second, numbers):
    duration = Fraction(GOLDEN["durations"][video])
    start = max(Fraction(0), min(Fraction(second) - 4, duration - 8))
    window = ClipWindow(start=start, end=min(start + 8, duration), num_frames=4)
    clip = read_clip(VIDEOS / video, window)
    height, width = clip.frames.shape[-2:]
    centers = [round((k + 0.5) * width / 12) for k in range(12)]
    read = [sum(int(image[0, height // 8, x] > 127) << k for k, x in enumerate(centers)) for image in clip.frames]
    assert read == numbers


def test_sample_indices_is_the_rule_of_the_original():
    assert len(GOLDEN["subsample"]) > 600
    for n, num_frames, indices in GOLDEN["subsample"]:
        assert sample_indices(n, num_frames) == indices
    assert sample_indices(5, 8) == [0, 0, 1, 1, 2, 2, 3, 4]
    for bad in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="must be positive"):
            sample_indices(*bad)


def test_the_end_of_a_window_is_not_part_of_it():
    path = VIDEOS / "faststart.mp4"
    assert frame_numbers(read_clip(path, ClipWindow(start=1, end=2)))[::29] == [30, 59]
    assert frame_numbers(read_clip(path, ClipWindow(end=5, fps=1))) == [0, 30, 60, 90, 120]
    assert frame_numbers(read_clip(path, ClipWindow(fps=1))) == list(range(0, 300, 30))


def test_a_frame_stays_on_display_until_the_next():
    clip = read_clip(VIDEOS / "fps_1.mp4", ClipWindow(start=2.5, end=5, fps=2))
    assert clip.frame_sec == [2.0, 3.0, 3.0, 4.0, 4.0]


# ---------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("degrees, hflip", [(0, True), (90, False), (180, False), (270, False), (90, True)])
def test_rotation(tmp_path, degrees, hflip):
    stored = np.zeros((64, 96, 3), dtype=np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = tmp_path / "rotated.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        stream.set_display_rotation(degrees, hflip=hflip)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored)))
        container.mux(stream.encode(None))
    upright = np.rot90(stored, degrees // 90)  # counter-clockwise, as a display matrix turns
    upright = upright[:, ::-1] if hflip else upright
    frames = read_clip(path).frames
    assert frames.shape[2:] == upright.shape[:2]
    difference = frames[0].permute(1, 2, 0).int() - torch.from_numpy(upright.copy()).int()
    assert difference[4:-4, 4:-4].abs().float().mean() < 5
    info = probe_video(path)
    assert (info.height, info.width) == upright.shape[:2]
    if not hflip:
        assert info.rotation == degrees


def test_rotated_phone_video():
    clip = read_clip(VIDEOS / "rotate90.mp4")
    assert clip.frames.shape == (8, 3, 320, 240)
    assert [frame_number(image.rot90(-1, (1, 2))) for image in clip.frames] == [0, 34, 68, 102, 136, 170, 204, 239]


@pytest.mark.parametrize("pix_fmt, color_range", [("yuv420p", 1), ("yuvj420p", 2), ("yuv420p10le", 1), ("yuv420p", 2)])
def test_grey_keeps_its_value(tmp_path, pix_fmt, color_range):
    """Full range, limited range and 10 bits are each undone."""
    path = tmp_path / "grey.mkv"
    scale = 4 if "10" in pix_fmt else 1
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame(64, 64, pix_fmt)
        frame.color_range = color_range
        luma = 180 if color_range == 2 else round(16 + 180 / 255 * 219)
        for plane, value in zip(frame.planes, (luma, 128, 128), strict=True):
            dtype = np.uint16 if scale == 4 else np.uint8
            plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value * scale, dtype).tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert (read_clip(path).frames.int() - 180).abs().max() <= 2


def test_the_main_stream_is_read():
    assert probe_video(VIDEOS / "two_streams.mp4").width == 320


# ----------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", ["corrupt_middle.mp4", "corrupt_tail.mp4", "zeroed_hole.mp4"])
def test_damaged_frames_are_not_taken(name):
    """All three are damaged copies of faststart.mp4."""
    whole = decode_everything("faststart.mp4")
    with pytest.warns(VideoReadWarning, match=rf"{name}: clip 0.000 s to the end: \d+ of its 300 frames") as caught:
        clip = read_clip(VIDEOS / name, ClipWindow(num_frames=12))
    assert len(caught) == 1
    assert clip.status == "partial" and "damaged" in clip.message
    numbers = [round(second * 30) for second in clip.frame_sec]
    assert frame_numbers(clip) == numbers and numbers == sorted(numbers)
    assert len(set(numbers)) > 4
    for number, image in zip(numbers, clip.frames, strict=True):
        if name != "corrupt_middle.mp4" or not 100 <= number < 104:  # damage there that the decoder does not notice
            assert torch.equal(image, to_image(whole[number][1]))
    with pytest.warns(VideoReadWarning):
        clip = read_clip(VIDEOS / name, ClipWindow(start=2))  # all that is left
    for second, image in zip(clip.frame_sec, clip.frames, strict=True):
        number = round(second * 30)
        if name != "corrupt_middle.mp4" or not 100 <= number < 104:
            assert torch.equal(image, to_image(whole[number][1])), number
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_clip(VIDEOS / name, ClipWindow(end=2, num_frames=4)).status == "complete"


def test_one_bad_window_leaves_the_others():
    windows = [ClipWindow(1, 2, 4), ClipWindow(4.5, 4.75, 4), ClipWindow(60, 68, 8), ClipWindow(8.2, 9.2, 4)]
    clips = read_clips(VIDEOS / "zeroed_hole.mp4", windows, on_error="return")
    assert [getattr(clip, "status", "failed") for clip in clips] == ["complete", "failed", "failed", "complete"]
    assert clips[1].window == windows[1] and "none of its 8 frames can be decoded" in str(clips[1])
    assert "zeroed_hole.mp4" in str(clips[2]) and "the video is 10.00 s long" in str(clips[2])
    with pytest.raises(VideoReadError, match="4.500 s to 4.750 s"):
        read_clips(VIDEOS / "zeroed_hole.mp4", windows)
    assert str(pickle.loads(pickle.dumps(clips[1]))) == str(clips[1])


@pytest.mark.parametrize("name, fraction", [("faststart.mp4", 0.6), ("start_time.mkv", 0.6), ("mjpeg.avi", 0.5)])
def test_a_cut_file_gives_what_there_is(name, fraction):
    data = (VIDEOS / name).read_bytes()
    data = data[: int(len(data) * fraction)]
    with pytest.warns(VideoReadWarning, match="the file ends at .* s but should at"):
        clip = read_clip(data, ClipWindow(num_frames=8))
    numbers = [round(second * 30) for second in clip.frame_sec]
    assert clip.status == "partial" and frame_numbers(clip) == numbers
    assert 0 < probe_video(data).duration < 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frame_numbers(read_clip(data, ClipWindow(end=0.5, num_frames=2))) == [0, 14]
    with pytest.raises(VideoReadError, match="should at"):
        read_clip(data, ClipWindow(start=1.9 if "avi" in name else 9))


UNREADABLE = {
    "audio_only.mp4": "has no video stream",
    "empty.mp4": "is empty",
    "html_error.mp4": "cannot be opened as a video: Invalid data",
    "text.mp4": "cannot be opened as a video: Invalid data",
    "truncated_nomoov.mp4": "cannot be opened as a video: Invalid data",
}


@pytest.mark.parametrize("name, reason", UNREADABLE.items())
@pytest.mark.parametrize("function", [read_clip, probe_video])
def test_unreadable_files_are_named_with_a_reason(name, reason, function):
    with pytest.raises(VideoReadError, match=f"{name}: {reason}") as caught:
        function(VIDEOS / name)
    assert caught.value.source == str(VIDEOS / name)


def run_python(code, *args):
    """Runs `code` in a process of its own, so that a crash of the interpreter is a failure and not the end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, args)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout[-500:]}\n{result.stderr[-2000:]}"
    return result.stdout


def test_no_cut_crashes():
    """Cut within the index a stream has no decoder, within the first frame no picture size or format."""
    output = run_python(
        """
        import sys, warnings
        from pathlib import Path
        from transformers_eilev.video_reading import ClipWindow, VideoReadError, probe_video, read_clip
        warnings.simplefilter("ignore")
        reasons = set()
        for path in map(Path, sys.argv[1:]):
            data = path.read_bytes()
            for cut in [*range(1, 6000, 127), *range(6000, 9000, 1000)]:
                print(path.name, cut, flush=True)
                for read in (lambda d: read_clip(d, ClipWindow(end=1, num_frames=2)), probe_video):
                    try:
                        read(data[:cut])
                    except VideoReadError as error:
                        reasons.add(str(error).split(": ", 1)[1][:25])
        try:
            read_clip(Path(sys.argv[1]).read_bytes().replace(b"avc1", b"none"))
        except VideoReadError as error:
            assert "no decoder" in str(error), error
        print(sorted(reasons))
        """,
        *(VIDEOS / name for name in ("faststart.mp4", "start_time_ts.ts", "start_time.mkv", "mjpeg.avi")),
    )
    assert "has no decoder for its vi" in output and "its first frames cannot b" in output


def test_random_damage_raises_nothing_but_read_errors():
    run_python(
        """
        import random, sys, warnings
        from pathlib import Path
        from transformers_eilev.video_reading import ClipWindow, ReadLimits, VideoReadError, probe_video, read_clips
        warnings.simplefilter("ignore")
        windows = [ClipWindow(0.5, 2, 4), ClipWindow(fps=1)]
        for path in map(Path, sys.argv[1:]):
            for seed in range(5):
                print(path.name, seed, flush=True)
                dice, data = random.Random(seed), bytearray(path.read_bytes())
                for _ in range(dice.choice([1, 10, 200])):
                    reach = dice.choice([len(data), 5000, -5000])
                    place = dice.randrange(len(data) + reach, len(data)) if reach < 0 else dice.randrange(reach)
                    data[place] = dice.randrange(256)
                if seed % 3 == 0:
                    del data[(start := dice.randrange(len(data))) : start + 2000]
                try:
                    read_clips(bytes(data), windows, on_error="return", limits=ReadLimits(max_seconds=20))
                    probe_video(bytes(data))
                except VideoReadError:
                    pass
        """,
        *(VIDEOS / name for name in ("faststart.mp4", "start_time_ts.ts", "start_time.mkv", "mjpeg.avi", "vp9.mp4")),
    )


# ------------------------------------------------------------------------------------------------------- many windows


def test_one_pass_equals_one_by_one_and_shares_frames():
    path = VIDEOS / "vid-long.mp4"
    windows = [ClipWindow(start=t, end=t + 8, num_frames=5) for t in (20, 0, 4, 2, 22, 2, 11.3)]
    together = read_clips(path, windows)
    alone = [read_clip(path, window) for window in windows]
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a.frames, b.frames) and a.frame_sec == b.frame_sec
    shown = {second for clip in together for second in clip.frame_sec}
    assert together[0].counts is together[-1].counts
    assert together[0].counts.converted == len(shown) < 35
    assert together[0].counts.decoded < sum(clip.counts.decoded for clip in alone) / 2


def test_only_what_is_needed_is_decoded():
    clip = read_clip(VIDEOS / "good_cfr_bframes.mp4", ClipWindow(end=8, num_frames=8))
    assert clip.counts.converted == 8
    assert clip.counts.decoded < 150  # of 240; most of the others are B-frames that nothing rests on
    late = read_clip(VIDEOS / "good_shortgop_nob.mp4", ClipWindow(start=8, num_frames=2))
    assert late.counts.decoded < 30  # of 300: it starts near


def test_clips_come_as_they_are_done():
    windows = [ClipWindow(t, t + 1, 2) for t in (8, 0, 4)]
    order = [index for index, clip in iter_clips(VIDEOS / "good_shortgop_nob.mp4", windows)]
    assert order == [1, 2, 0]


def test_no_windows():
    assert read_clips(VIDEOS / "faststart.mp4", []) == []
    with pytest.raises(ValueError, match="on_error must be .* got 'ignore'"):
        read_clips(VIDEOS / "faststart.mp4", [], on_error="ignore")


# ------------------------------------------------------------------------------------------------------------ sources


class Unseekable(io.RawIOBase):
    def __init__(self, data):
        self.buffer = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, target):
        return self.buffer.readinto(target)


def test_all_kinds_of_sources_agree(tmp_path):
    path = VIDEOS / "good_opengop.mp4"
    window = ClipWindow(start=2, end=6, num_frames=4)
    expected = read_clip(path, window)
    data = path.read_bytes()
    awkward = tmp_path / "uid with space|and pipe %d ü 12:30.txt"
    awkward.write_bytes(data)
    with open(path, "rb") as file:
        file.seek(1000)
        for source in (str(path), data, bytearray(data), io.BytesIO(data), file, Unseekable(data), awkward):
            clip = read_clip(source, window)
            assert torch.equal(clip.frames, expected.frames) and clip.frame_sec == expected.frame_sec
        assert not file.closed


def test_paths_that_are_no_files(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no_such.mp4"):
        read_clip(tmp_path / "no_such.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(IsADirectoryError, match="folder.mp4"):
        read_clip(tmp_path / "folder.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match="dangling.mp4"):
        read_clip(str(tmp_path / "dangling.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoReadError, match="pipe.mp4: not a regular file"):
        read_clip(tmp_path / "pipe.mp4")
    monkeypatch.chdir(VIDEOS)
    assert read_clip("five_frames.mp4").status == "complete"


@pytest.mark.parametrize("source", [5, None, io.StringIO("text"), ["a.mp4"]])
def test_no_source_at_all(source):
    with pytest.raises(TypeError, match="a video is read from a path"):
        read_clip(source)


@pytest.mark.parametrize("scheme", ["rtmp://host/live", "concat:{0}|{0}", "file://{0}", "file:{0}", "pipe:0"])
def test_other_schemes_are_refused_by_name(scheme):
    url = scheme.format(VIDEOS / "start_time_ts.ts")
    with pytest.raises(VideoReadError, match=f"the scheme '{scheme.split(':')[0]}' is not read"):
        read_clip(url)


PLAYLISTS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n",
    "concat.mp4": "ffconcat version 1.0\nfile {0}\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash.mp4": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        '<Representation id="1" bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_cannot_make_ffmpeg_open_another(tmp_path, name):
    (tmp_path / "other.ts").write_bytes((VIDEOS / "start_time_ts.ts").read_bytes())
    path = tmp_path / name
    path.write_text(PLAYLISTS[name].format("other.ts"))
    for source in (path, path.read_bytes()):
        with pytest.raises(VideoReadError, match="cannot be opened as a video"):
            read_clip(source)
    if name in ("playlist.m3u8", "concat.mp4"):  # the attack is real: left to itself FFmpeg follows
        assert next(av.open(str(path)).decode(video=0)).width == 320


@pytest.fixture
def server(monkeypatch):
    """The address of a server of the test videos."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(VIDEOS))

        def do_GET(self):
            if self.path.startswith("/away"):
                self.send_response(302)
                self.send_header("Location", f"file://{VIDEOS}/faststart.mp4")
                self.end_headers()
            else:
                with contextlib.suppress(ConnectionError):  # a client that hangs up is one of the tests
                    super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_url(server):
    url = f"{server}/good_opengop.mp4?signature=secret"
    clip = read_clip(url)
    assert torch.equal(clip.frames, read_clip(VIDEOS / "good_opengop.mp4").frames)
    assert "secret" not in clip.source
    with pytest.raises(VideoReadError, match="no_such.mp4: the server answered 404"):
        read_clip(f"{server}/no_such.mp4")
    with pytest.raises(VideoReadError, match="105989 bytes, more than max_source_bytes=1000"):
        read_clip(url, limits=ReadLimits(max_source_bytes=1000))
    with pytest.raises(VideoReadError, match="download failed: UnsupportedProtocol"):
        read_clip(f"{server}/away.mp4")
    with pytest.raises(VideoReadError, match="download failed"):
        read_clip("http://127.0.0.1:1/video.mp4")


# ---------------------------------------------------------------------------------------------- windows, limits, probe


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"start": -1}, "start must not be negative, got -1"),
        ({"start": 2, "end": 2}, "end must be after start=2, got 2"),
        ({"end": float("nan")}, "end must be finite, got nan"),
        ({"start": "0"}, "start must be a number, got '0'"),
        ({"start": None}, "start must be a number, got None"),
        ({"num_frames": 0}, "num_frames must be positive, got 0"),
        ({"num_frames": 2.0}, "num_frames must be an integer, got 2.0"),
        ({"num_frames": True}, "num_frames must be an integer, got True"),
        ({"fps": 0}, "fps must be positive, got 0"),
        ({"fps": 1, "num_frames": 8}, "give num_frames or fps, got num_frames=8 and fps=1"),
    ],
)
def test_windows_are_checked(fields, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ClipWindow(**fields)


@pytest.mark.parametrize(
    "limits, window, message",
    [
        ({"max_pixels": 320 * 240 - 1}, {}, "frames of 320x240, more than max_pixels=76799"),
        ({"max_frames": 7}, {"num_frames": 8}, "8 frames, more than max_frames=7"),
        ({"max_frames": 299}, {}, "300 frames, more than max_frames=299"),
        ({"max_frames": 100}, {"fps": 1e9}, "frames, more than max_frames=100"),
        (
            {"max_clip_bytes": 10**6},
            {"num_frames": 8},
            "8 frames take 1843200 bytes, more than max_clip_bytes=1000000",
        ),
        ({"max_seconds": 1e-6}, {}, "longer than max_seconds=1e-06"),
    ],
)
def test_limits(limits, window, message):
    with pytest.raises(VideoReadError, match=message):
        read_clip(VIDEOS / "faststart.mp4", ClipWindow(**window), limits=ReadLimits(**limits))


def test_frames_larger_than_the_header_says(tmp_path):
    """The bound holds in the decoder too."""
    data = bytearray((VIDEOS / "mjpeg.avi").read_bytes())
    start = data.index(b"strf") + 12
    assert int.from_bytes(data[start : start + 4], "little") == 320
    data[start : start + 8] = (16).to_bytes(4, "little") * 2
    with pytest.raises(VideoReadError):
        read_clip(bytes(data), limits=ReadLimits(max_pixels=1000))
    with pytest.raises(ValueError, match="max_pixels must be a positive number, got 0"):
        ReadLimits(max_pixels=0)


@pytest.mark.parametrize(
    "name, width, height, duration, fps, start",
    [
        ("faststart.mp4", 320, 240, 10.0, 30, 0.0),
        ("audio_longer.mp4", 320, 240, 10.0, 30, 0.0),
        ("odd_size_319x241.mp4", 319, 241, 4.0, 30, 0.0),
        ("start_time.mkv", 320, 240, 10.0, 30, 2.0),
        ("start_time_ts.ts", 320, 240, 10.0, 30, 4.9),
        ("editlist_cut.mp4", 320, 240, 5.0667, 30, 0.0),
        ("rotate90.mp4", 240, 320, 10.0, 30, 0.0),
        ("raw_annexb.h264", 320, 240, 4.8, 25, None),
    ],
)
def test_probe(name, width, height, duration, fps, start):
    info = probe_video(VIDEOS / name)
    assert (info.width, info.height) == (width, height)
    assert info.duration == pytest.approx(duration, abs=1e-3)
    assert info.fps == pytest.approx(fps)
    assert info.start == (start if start is None else pytest.approx(start))
    assert info.codec == "h264"


# --------------------------------------------------------------------------------------------- frames from elsewhere


def test_frames_to_tensor():
    frames = torch.randint(0, 256, (4, 3, 10, 12), dtype=torch.uint8)
    last = frames.permute(0, 2, 3, 1)
    for same in (
        frames,
        last,
        frames.numpy(),
        last.numpy(),
        last.numpy()[:, ::-1][:, ::-1],
        frames.float() / 255,
        list(frames),
        list(last.numpy()),
        [PIL.Image.fromarray(image.numpy()) for image in last],
    ):
        assert torch.equal(frames_to_tensor(same), frames)
    grey = frames[:, 0]
    for same in (grey, grey.numpy(), list(grey), [PIL.Image.fromarray(image.numpy()) for image in grey]):
        assert torch.equal(frames_to_tensor(same), grey[:, None].repeat(1, 3, 1, 1))


@pytest.mark.parametrize(
    "frames, message",
    [
        (torch.zeros(2, 3, 8, 3, dtype=torch.uint8), r"shape \(2, 3, 8, 3\) can be read two ways"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), r"got \(2, 4, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"got \(8, 8\)"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "are empty"),
        (torch.full((2, 3, 8, 8), 1.5), "from 0 to 1, got 1.5 to 1.5"),
        (torch.full((2, 3, 8, 8), float("nan")), "from 0 to 1"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "uint8 or floats from 0 to 1, got torch.int64"),
        ([], "frames is empty"),
        ("video.mp4", "got str"),
        (
            [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)],
            r"frames\[1\] is 9x8 pixels, frames\[0\] is 8x8",
        ),
        ([np.zeros((8, 8, 3), np.uint8), "x"], r"frames\[1\] must be a tensor, an array or a PIL image, got str"),
    ],
)
def test_frames_to_tensor_says_what_is_wrong(frames, message):
    with pytest.raises((TypeError, ValueError), match=message):
        frames_to_tensor(frames)


def test_import_is_cheap():
    output = run_python(
        """
        import importlib, sys, types
        package = sys.modules["package"] = types.ModuleType("package")
        package.__path__ = [sys.argv[1]]
        importlib.import_module("package.video_reading")
        print([name for name in ("av", "PIL", "huggingface_hub", "transformers") if name in sys.modules])
        """,
        Path(__file__).parents[1] / "src" / "transformers_eilev",
    )
    assert output.strip() == "[]"
