"""Damaged, cut and hostile files: what there is, or one error that names file and reason; never a crash."""

import pickle
import warnings

import pytest
import torch
from video_frames import VIDEOS, decode_everything, frame_numbers, run_python, to_image

from transformers_eilev.video_reading import (
    ClipWindow,
    VideoReadError,
    VideoReadWarning,
    probe_video,
    read_clip,
    read_clips,
)


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
