"""Clips of one's own, from a list to a clip store."""

import numpy as np
import pytest

from transformers_eilev import ClipWindow, VideoReadError, read_clip
from transformers_eilev.data import load_clip_store, load_narrated_clips
from transformers_eilev.data.own_clips import store_own_clips
from transformers_eilev.in_context import Demonstration, read_demonstrations


@pytest.fixture
def listed(tmp_path, videos_path):
    """A list of two stretches of a video, and another video whole."""
    (tmp_path / "cup.mp4").symlink_to(videos_path / "good_cfr_bframes.mp4")
    (tmp_path / "my door.mp4").symlink_to(videos_path / "good_cfr_bframes.mp4")
    (tmp_path / "mine.csv").write_text(
        "path,narration,start,end,verb,noun\n"
        "cup.mp4,The camera wearer washes a cup.,0.2,0.8,wash,cup\n"
        "cup.mp4,#C C dries a cup,0.5,1.0,dry,cup\n"
        "my door.mp4,The camera wearer opens a door.,,,,\n"
    )
    return read_demonstrations(tmp_path / "mine.csv")


def test_store(listed, tmp_path, videos_path):
    path = store_own_clips(listed, tmp_path / "clips", num_frames=3, size=32, encoding="png")
    assert path == tmp_path / "clips/data/train-00000.parquet"
    clips = load_narrated_clips(tmp_path / "clips")
    assert clips["narration_text"][:] == [own.narration for own in listed]
    assert clips["structured_verb"][:] == ["wash", "dry", ""]
    assert clips["structured_noun"][:] == ["cup", "cup", ""]
    assert clips["clip_index"][:] == [0, 1, 2]
    assert clips["video_uid"][:2] == ["cup", "cup"] and clips["video_uid"][2].startswith("my_door~")
    assert len(set(clips["frame_path"][:])) == 3
    for row, (start, end) in zip(clips, [(0.2, 0.8), (0.5, 1.0), (0.0, 8.0)]):
        clip = read_clip(videos_path / "good_cfr_bframes.mp4", ClipWindow(start, end, num_frames=3))
        assert row["frame_sec"] == pytest.approx(clip.frame_sec)
        assert row["narration_timestamp_sec"] == pytest.approx((clip.frame_sec[0] + clip.frame_sec[-1]) / 2)


def test_frames_are_those_of_the_stretch(listed, tmp_path, videos_path):
    """Stored as large as they are, without loss, they are the decoder's."""
    window = ClipWindow(0.2, 0.8, num_frames=3)
    frames = read_clip(videos_path / "good_cfr_bframes.mp4", window).frames
    side = 2 * max(frames.shape[2:])
    store_own_clips(listed[:1], tmp_path / "clips", num_frames=3, size=side, encoding="png")
    [row] = load_clip_store(tmp_path / "clips", split="train")
    assert [image.size for image in row["frames"]] == [(side, side)] * 3
    small = [np.asarray(image.resize(frames.shape[:1:-1]), int) for image in row["frames"]]
    differences = np.abs(np.stack(small) - frames.permute(0, 2, 3, 1).numpy().astype(int))
    assert differences.mean() < 3


def test_splits(listed, tmp_path):
    store_own_clips(listed[:2], tmp_path / "clips", num_frames=2, size=16)
    store_own_clips(listed[2:], tmp_path / "clips", split="val", num_frames=2, size=16)
    assert len(load_narrated_clips(tmp_path / "clips")) == 2
    assert len(load_narrated_clips(tmp_path / "clips", split="val")) == 1
    with pytest.raises(FileExistsError, match="has a split 'val' already"):
        store_own_clips(listed, tmp_path / "clips", split="val")


def test_bad_input_leaves_nothing(listed, tmp_path, videos_path):
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    for clip, error, match in (
        (tmp_path / "missing.mp4", FileNotFoundError, "missing.mp4"),
        (tmp_path / "no.mp4", VideoReadError, "no.mp4"),
        (frames, ValueError, "Clip 3 must be of a video file, but is frames of a ndarray"),
    ):
        with pytest.raises(error, match=match):
            store_own_clips([*listed, Demonstration(clip, "A cup.")], tmp_path / "clips", num_frames=2, size=16)
        assert not [path for path in (tmp_path / "clips").rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match="no clip to store"):
        store_own_clips([], tmp_path / "clips")
    with pytest.raises(ValueError, match="`num_frames` must be at least 1, but is 0"):
        store_own_clips(listed, tmp_path / "clips", num_frames=0)
    with pytest.raises(ValueError, match="split must be a word"):
        store_own_clips(listed, tmp_path / "clips", split="../train")
