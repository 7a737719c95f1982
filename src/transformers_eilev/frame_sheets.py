"""What a model saw, as a picture: the frames of each clip of a prompt, with their times and the clip's text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from .processing_video_blip_2 import VIDEO_TOKEN


# Frames less high than this are enlarged, by a whole number, so that every pixel stays as it is.
MIN_FRAME_HEIGHT = 128
MAX_COLUMNS = 8
MIN_WIDTH = 480
MARGIN = 12
_GAP = 4
_TEXT_SIZE, _LINE_HEIGHT = 15, 20
_PAPER, _INK, _PALE, _ANSWER = "white", "black", "dimgrey", "firebrick"


@dataclass(frozen=True)
class ShownClip:
    """One clip of a prompt.

    Attributes:
        frames (`torch.Tensor`): uint8, of shape (num_frames, 3, height, width).
        title (`str`): such as the clip's file.
        frame_sec (`Sequence[float]`, *optional*): the time of each frame in its file, in seconds, if it is known.
        text (`str`): what the prompt says to it.
        narration (`str`): what the model said.
    """

    frames: torch.Tensor
    title: str
    frame_sec: Sequence[float] | None = None
    text: str = ""
    narration: str = ""


@dataclass(frozen=True)
class FrameSheet:
    """A picture of clips.

    Attributes:
        image (`PIL.Image.Image`): RGB; one clip below the other.
        boxes (`list[list[tuple[int, int, int, int]]]`): for each clip, where in the image each of its frames lies:
            left, top, right, bottom.
    """

    image: Image.Image
    boxes: list[list[tuple[int, int, int, int]]]


def frames_of(pixel_values: torch.Tensor, video_processor) -> torch.Tensor:
    """
    The frames that `pixel_values` were made from, after resizing: rescaling and normalizing undone.

    Args:
        pixel_values (`torch.Tensor`): of shape (..., 3, height, width), as the video processor gave them.
        video_processor ([`VideoBlip2VideoProcessor`]): which did.

    Returns:
        `torch.Tensor`: uint8, of the same shape.
    """
    if pixel_values.dtype == torch.uint8:
        return pixel_values.cpu()
    pixels = pixel_values.float().cpu()
    if video_processor.do_normalize:
        mean, std = (
            torch.tensor(values).view(-1, 1, 1) for values in (video_processor.image_mean, video_processor.image_std)
        )
        pixels = pixels * std + mean
    if video_processor.do_rescale:
        pixels = pixels / video_processor.rescale_factor
    return pixels.round().clamp(0, 255).to(torch.uint8)


def show_clips(inputs: Mapping, metadata: Sequence[dict], blocks: Sequence[str], video_processor) -> list[ShownClip]:
    """
    The clips of one prompt as the model gets them.

    Args:
        inputs (`Mapping`): with the `pixel_values` of the prompt's clips, of shape (num_videos, num_frames, 3, height,
            width), and, if these are of unequal lengths, their `frame_mask`, as a [`VideoBlip2Processor`] gives them.
        metadata (`Sequence[dict]`): the `video_metadata` that it gives with `return_metadata=True`.
        blocks (`Sequence[str]`): the prompt, in blocks of any number of `<video>` and the text after them. The text
            goes with the last clip of its block, or, if it has none, before that of the next clip, or after the last.
        video_processor ([`VideoBlip2VideoProcessor`]): the processor's.

    Returns:
        `list[ShownClip]`: in the order of the prompt.

    Raises:
        ValueError: if the blocks have another number of `<video>` than there are clips.
    """
    before, texts = [], []
    for block in blocks:
        *videos, text = block.split(VIDEO_TOKEN)
        if videos:
            first, *others = [""] * (len(videos) - 1) + [text]
            texts += ["\n".join([*before, first]), *others]
            before = []
        else:
            before.append(text)
    if before and texts:
        texts[-1] = "\n".join([texts[-1], *before])
    clips = inputs["pixel_values"]
    if not len(texts) == len(clips) == len(metadata):
        raise ValueError(f"{len(texts)} `<video>` in the blocks, {len(clips)} clips, {len(metadata)} times metadata")
    masks = inputs.get("frame_mask")
    shown = []
    for index, (clip, about, text) in enumerate(zip(clips, metadata, texts)):
        frames = frames_of(clip if masks is None else clip[masks[index]], video_processor)
        part = " (a part of it is missing)" if about["status"] == "partial" else ""
        shown.append(ShownClip(frames, Path(about["source"]).name + part, about["frame_sec"], text))
    return shown


def make_frame_sheet(clips: Sequence[ShownClip]) -> FrameSheet:
    """
    Draws clips one below the other, in the order of a prompt: title, frames, the time of each, and the text.

    Args:
        clips (`Sequence[ShownClip]`): with frames of one size. More than 8 frames go on in a further line.

    Raises:
        ValueError: if there is no clip, or frames are of unequal sizes.
    """
    sizes = {tuple(clip.frames.shape[2:]) for clip in clips}
    if len(sizes) != 1:
        raise ValueError(f"A sheet needs clips with frames of one size, but here are {sorted(sizes) or 'no clips'}")
    height, width = sizes.pop()
    scale = max(1, -(-MIN_FRAME_HEIGHT // height))
    columns = min(MAX_COLUMNS, max(len(clip.frames) for clip in clips))
    writer = _Writer(max(MIN_WIDTH, 2 * MARGIN + columns * (width * scale + _GAP) - _GAP))
    boxes = [_draw_clip(writer, index, clip, (width * scale, height * scale)) for index, clip in enumerate(clips, 1)]
    return FrameSheet(writer.finish(), boxes)


def _draw_clip(writer: "_Writer", index: int, clip: ShownClip, size: tuple[int, int]):
    """Draws a clip below what is there; returns the boxes of its frames."""
    writer.write(f"{index}. {clip.title}", _INK)
    boxes = []
    for first in range(0, len(clip.frames), MAX_COLUMNS):
        for column, frame in enumerate(clip.frames[first : first + MAX_COLUMNS]):
            image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
            left, top = MARGIN + column * (size[0] + _GAP), writer.bottom
            writer.paste(image.resize(size, Image.Resampling.NEAREST), (left, top))
            boxes.append((left, top, left + size[0], top + size[1]))
            if clip.frame_sec is not None:
                seconds = clip.frame_sec[first + column]
                writer.label(f"{seconds:.2f} s", (left, top + size[1]), size[0])
        writer.bottom += size[1] + (_LINE_HEIGHT if clip.frame_sec is not None else _GAP)
    for text, colour in ((clip.text, _INK), (clip.narration, _ANSWER)):
        for line in text.splitlines():
            writer.write(line, colour)
    writer.bottom += MARGIN
    return boxes


class _Writer:
    """A page of a fixed width that grows downwards."""

    def __init__(self, width: int):
        self.width = width
        self.bottom = MARGIN
        self.items = []  # (what draws it, ...), done when the height is known
        self.font = ImageFont.load_default(_TEXT_SIZE)
        self.small = ImageFont.load_default(_TEXT_SIZE - 3)

    def write(self, text: str, colour: str):
        """Text, broken into lines that fit."""
        room = self.width - 2 * MARGIN
        line = ""
        for word in text.split():
            while line and self.font.getlength(f"{line} {word}") > room:
                self._put(line, colour)
                line = ""
            line = f"{line} {word}".strip()
            while self.font.getlength(line) > room:  # a long path, say
                fits = next(n for n in range(len(line) - 1, 0, -1) if self.font.getlength(line[:n]) <= room)
                self._put(line[:fits], colour)
                line = line[fits:]
        self._put(line, colour)

    def _put(self, line: str, colour: str):
        position = (MARGIN, self.bottom)
        self.items.append(lambda image, draw: draw.text(position, line, fill=colour, font=self.font))
        self.bottom += _LINE_HEIGHT

    def label(self, text: str, position: tuple[int, int], width: int):
        """A small text in the middle below a frame."""
        left = position[0] + (width - self.small.getlength(text)) / 2
        place = (left, position[1] + 2)
        self.items.append(lambda image, draw: draw.text(place, text, fill=_PALE, font=self.small))

    def paste(self, picture: Image.Image, position: tuple[int, int]):
        """A picture, left and top."""
        self.items.append(lambda image, draw: image.paste(picture, position))

    def finish(self) -> Image.Image:
        """The page."""
        image = Image.new("RGB", (self.width, self.bottom), _PAPER)
        draw = ImageDraw.Draw(image)
        for item in self.items:
            item(image, draw)
        return image


__all__ = ["FrameSheet", "ShownClip", "frames_of", "make_frame_sheet", "show_clips"]
