"""The frames that were asked for, and no others; proved by the number in their pixels."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import torch
from video_frames import (
    GOLDEN,
    VIDEOS,
    decode_everything,
    expected_frames,
    frame_number,
    frame_numbers,
    run_python,
    to_image,
)

from transformers_eilev.video_reading import (
    ClipWindow,
    VideoReadError,
    frames_to_tensor,
    iter_clips,
    probe_video,
    read_clip,
    read_clips,
    sample_indices,
)


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
