"""The picture of what the model saw."""

import numpy as np
import pytest
import torch
from PIL import Image

from transformers_eilev.frame_sheets import (
    MAX_COLUMNS,
    MIN_FRAME_HEIGHT,
    ShownClip,
    frames_of,
    make_frame_sheet,
    show_clips,
)


PIXELS_AS_THEY_ARE = {"do_rescale": False, "do_normalize": False}


def some_frames(num_frames=3, height=40, width=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator)


def cut_out(image, box, frame):
    """What lies in a box, every enlarged pixel checked, at the frame's own size."""
    pixels = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1)
    scale, rest = divmod(pixels.shape[1], frame.shape[1])
    assert rest == 0 and pixels.shape[2] == frame.shape[2] * scale
    small = pixels[:, ::scale, ::scale]
    assert torch.equal(small.repeat_interleave(scale, 1).repeat_interleave(scale, 2), pixels)
    return small


def assert_shows(sheet, clips):
    assert len(sheet.boxes) == len(clips)
    for boxes, clip in zip(sheet.boxes, clips):
        assert len(boxes) == len(clip.frames)
        for box, frame in zip(boxes, clip.frames):
            assert torch.equal(cut_out(sheet.image, box, frame), frame)


def ink(image, box):
    """The number of pixels that are not white."""
    return int((np.array(image.crop(box)) != 255).any(-1).sum())


def test_frames_lie_in_rows_as_they_are():
    clips = [
        ShownClip(some_frames(4), "a.mp4", [0, 1, 2, 3]),
        ShownClip(some_frames(2, seed=1), "b.mp4", text="What?"),
    ]
    sheet = make_frame_sheet(clips)
    assert_shows(sheet, clips)
    (first, *_), (second, *_) = sheet.boxes
    assert first[3] - first[1] == 160 == 40 * 4 >= MIN_FRAME_HEIGHT
    assert first[3] < second[1], "one row for each clip"
    for boxes in sheet.boxes:
        assert len({(top, bottom) for _, top, _, bottom in boxes}) == 1
        assert all(left[2] < right[0] for left, right in zip(boxes, boxes[1:])), "from left to right"
    assert max(box[2] for boxes in sheet.boxes for box in boxes) < sheet.image.width


@pytest.mark.parametrize("height, scale", [(28, 5), (128, 1), (224, 1)])
def test_only_small_frames_are_enlarged(height, scale):
    clips = [ShownClip(some_frames(1, height, height), "a.mp4")]
    sheet = make_frame_sheet(clips)
    left, top, right, bottom = sheet.boxes[0][0]
    assert bottom - top == right - left == height * scale
    assert_shows(sheet, clips)


def test_many_frames_go_on_below():
    clips = [ShownClip(some_frames(MAX_COLUMNS + 3), "a.mp4", list(range(MAX_COLUMNS + 3)))]
    sheet = make_frame_sheet(clips)
    assert_shows(sheet, clips)
    assert [box[1] > sheet.boxes[0][0][3] for box in sheet.boxes[0]] == [False] * MAX_COLUMNS + [True] * 3


def test_times_and_texts_are_written():
    frames = some_frames(2)
    plain = make_frame_sheet([ShownClip(frames, "a.mp4")])
    left, _, right, bottom = plain.boxes[0][1]
    assert ink(plain.image, (0, bottom, plain.image.width, plain.image.height)) == 0
    timed = make_frame_sheet([ShownClip(frames, "a.mp4", [0.0, 1.25])])
    below = [ink(timed.image, (box[0], box[3], box[2], box[3] + 20)) for box in timed.boxes[0]]
    assert min(below) > 0 and ink(timed.image, (right, bottom, timed.image.width, timed.image.height)) == 0
    other = make_frame_sheet([ShownClip(frames, "a.mp4", [0.0, 2.5])])
    assert (
        timed.image.crop((0, 0, left, bottom + 20)).tobytes() == other.image.crop((0, 0, left, bottom + 20)).tobytes()
    )
    assert timed.image.tobytes() != other.image.tobytes()
    texts = ["", "What?", "What? " * 60, "x" * 500, "What?\nNo."]
    heights = [make_frame_sheet([ShownClip(frames, "a.mp4", text=text)]).image.height for text in texts]
    assert heights[0] < heights[1] < heights[4] < heights[2] and heights[4] < heights[3], "it is broken into lines"
    for narration in ("", "She."):
        image = np.array(make_frame_sheet([ShownClip(frames, "a.mp4", narration=narration)]).image)[bottom:]
        assert bool((image[..., 0] > image[..., 1].astype(int) + 60).any()) is bool(narration), (
            "in a colour of its own"
        )


def test_what_makes_no_sheet():
    with pytest.raises(ValueError, match="no clips"):
        make_frame_sheet([])
    with pytest.raises(ValueError, match="one size"):
        make_frame_sheet([ShownClip(some_frames(1, 40), "a"), ShownClip(some_frames(1, 50), "b")])


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_normalize": False}, {"do_rescale": False}, PIXELS_AS_THEY_ARE, {"rescale_factor": 1 / 127.5}],
    ids=str,
)
def test_normalizing_is_undone(golden_t5, settings):
    processor = golden_t5.interleaved.video_processor
    frames = some_frames(4)
    pixels = processor.preprocess(frames, do_resize=False, **settings)["pixel_values"]
    used = type(processor)(**{**processor.to_dict(), **settings})
    assert torch.equal(frames_of(pixels[0], used), frames)


def shown_for(golden, clips, blocks, **settings):
    inputs = golden.interleaved(text=[blocks], videos=[clips], return_metadata=True, **settings)
    return show_clips(inputs, inputs.pop("video_metadata"), blocks, golden.interleaved.video_processor)


def test_clips_of_a_prompt(golden_t5, videos_path):
    paths = [str(videos_path / name) for name in ("good_cfr_bframes.mp4", "short_2s.mp4", "rotate90.mp4")]
    shown = shown_for(golden_t5, paths, ["You see clips.", "<video><video>Two.", "<video>What?"])
    assert [clip.title for clip in shown] == ["good_cfr_bframes.mp4", "short_2s.mp4", "rotate90.mp4"]
    assert [clip.text for clip in shown] == ["You see clips.\n", "Two.", "What?"]
    process = golden_t5.interleaved.video_processor
    for clip, path in zip(shown, paths):
        expected = process(path, return_metadata=True, **PIXELS_AS_THEY_ARE)
        assert torch.equal(clip.frames, expected["pixel_values"][0])
        assert clip.frame_sec == expected["video_metadata"][0]["frame_sec"] and clip.frame_sec[0] == 0
    # Of unequal lengths: what they are filled up with is no frame.
    shown = shown_for(golden_t5, paths[:2], ["<video>One.", "<video>"], fps=1, end=10)
    lengths = [len(clip.frames) for clip in shown]
    assert lengths == [len(clip.frame_sec) for clip in shown] and lengths[0] > lengths[1] == 2
    assert_shows(make_frame_sheet(shown), shown)


def test_a_clip_of_which_a_part_is_missing_says_so(golden_t5, videos_path):
    with pytest.warns(UserWarning):
        (clip,) = shown_for(golden_t5, [str(videos_path / "zeroed_hole.mp4")], ["<video>What?"])
    assert "missing" in clip.title


def test_frames_without_a_file_have_no_times(golden_t5):
    (clip,) = shown_for(golden_t5, [golden_t5.videos[0]], ["<video>What?"])
    assert clip.frame_sec is None
    images = [Image.new("RGB", (56, 56))] * 2
    with pytest.raises(ValueError, match="2 `<video>`"):
        shown = golden_t5.interleaved(text="<video>What?", videos=[images], return_metadata=True)
        show_clips(shown, shown["video_metadata"], ["<video><video>"], golden_t5.interleaved.video_processor)
