"""What a page takes of what is uploaded, and what the model sees of it."""

import numpy as np
import pytest
import torch
from clip_files import UploadLimits, see_clip, what_is_read
from pages import CLIPS
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_eilev import embedded_checkpoint
from transformers_eilev.in_context import ClipEncoder


CLIP = CLIPS / "wams_the_fedan.mp4"


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(embedded_checkpoint()).video_processor


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng([1]).integers(0, 256, (60, 90, 3), np.uint8)).save(path)
    return path


def test_a_clip_is_what_the_processor_reads_of_the_file(processor):
    clip = see_clip(str(CLIP), processor)
    inputs = processor(str(CLIP), return_metadata=True)
    assert torch.equal(processor.normalize_frames(clip.frames), inputs["pixel_values"][0])
    assert clip.frame_sec == inputs["video_metadata"][0]["frame_sec"] and not clip.is_partial


def test_a_picture_repeated_is_the_same_to_the_model(processor, picture):
    """As the page says of it."""
    clip = see_clip(str(picture), processor)
    assert clip.frames.shape == (1, 3, 40, 40) and clip.frame_sec is None
    model = AutoModelForImageTextToText.from_pretrained(embedded_checkpoint()).float()
    once, often = ClipEncoder(model, processor).encode([clip.frames, clip.frames.repeat(4, 1, 1, 1)])
    torch.testing.assert_close(once.video_hidden_states, often.video_hidden_states, rtol=0, atol=1e-4)
    other = see_clip(str(CLIP), processor).frames[:1]
    other = ClipEncoder(model, processor).encode([other])[0]
    assert (once.video_hidden_states - other.video_hidden_states).abs().max() > 0.1


def test_a_partial_clip_says_so(processor, videos_path):
    clip = see_clip(str(videos_path / "corrupt_middle.mp4"), processor)
    assert clip.is_partial and "a part of it is missing" in clip.shown("What?").title


def test_bad_files_are_refused_by_name_and_reason(processor, bad_files, picture, tmp_path):
    def fault(path, **limits):
        with pytest.raises(ValueError) as error:
            see_clip(str(path), processor, UploadLimits(**limits))
        assert str(error.value).startswith(path.name)  # and not with a folder of the server
        return str(error.value)

    assert "cannot be opened as a video" in fault(bad_files["text"])
    assert "0.1 MB; at most 0.05 MB" in fault(bad_files["large"], max_bytes=50_000)
    assert "lasts 25.0 s; at most 20 s" in fault(bad_files["long"], max_sec=20)
    assert "90x60 pixels; at most 0.0 million" in fault(picture, max_pixels=90 * 60 - 1)
    assert "more than" in fault(CLIP, max_pixels=80 * 80 - 1)
    assert "upload it again" in fault(tmp_path / "gone.mp4")
    assert "a clip must be one of .avi" in fault(picture.rename(tmp_path / "picture.gif"))
    gif = tmp_path / "gif.png"
    Image.new("RGB", (8, 8)).save(gif, format="GIF")
    assert "cannot be opened as a picture" in fault(gif)


def test_words_of_what_is_read(processor):
    assert what_is_read(processor) == "The model sees 4 frames, evenly spaced, of the first 8 s."
    by_time = type(processor)(fps=1, end=10.0)
    assert what_is_read(by_time) == "The model sees 1 frame a second of the first 10 s."
