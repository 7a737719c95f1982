"""Files that strangers upload: looked over first, then only the frames that the model sees are decoded."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image, ImageOps

from transformers_eilev.frame_sheets import ShownClip
from transformers_eilev.video_reading import ReadLimits, VideoReadError, probe_video


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
# What each of these may hold; Pillow is told, so that no other of its decoders is tried.
IMAGE_FORMATS = {".jpeg": "JPEG", ".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_FORMATS)


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """What one uploaded file may cost."""

    max_bytes: int = field(default=64_000_000, metadata={"help": "Size of a file."})
    max_sec: float = field(default=120.0, metadata={"help": "Length of a clip."})
    max_pixels: int = field(default=3840 * 2160, metadata={"help": "Width times height of a frame."})


@dataclass(frozen=True, eq=False)
class SeenClip:
    """
    A clip as the model sees it.

    Attributes:
        path (`str`): of the file, to show it.
        frames (`torch.Tensor`): uint8, of shape (num_frames, 3, height, width), as the video processor resized them.
        frame_sec (`list[float]`, *optional*): the time of each in the file, in seconds; `None` for a picture.
        is_partial (`bool`): whether frames are missing from the file.
    """

    path: str
    frames: torch.Tensor
    frame_sec: list[float] | None
    is_partial: bool

    def shown(self, text: str, narration: str = "") -> ShownClip:
        """For a sheet of frames, with what was asked of it and what the model said."""
        title = Path(self.path).name + (" (a part of it is missing)" if self.is_partial else "")
        return ShownClip(self.frames, title, self.frame_sec, text, narration)


def see_clip(path: str, video_processor, limits: UploadLimits = UploadLimits()) -> SeenClip:
    """
    Reads the frames of a clip that a model sees. A picture is a clip of one frame.

    Args:
        path (`str`): of a file that was uploaded.
        video_processor ([`VideoBlip2VideoProcessor`]): the model's.
        limits ([`UploadLimits`]): what is refused before it is decoded.

    Raises:
        ValueError: what is wrong with the file, by its name without the folder: gone, kind, size, length, content.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{file.name}: a clip must be one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise ValueError(f"{file.name} was deleted meanwhile: upload it again")
    size = file.stat().st_size
    if size > limits.max_bytes:
        raise ValueError(f"{file.name} has {size / 1e6:.1f} MB; at most {limits.max_bytes / 1e6:g} MB are taken")
    if suffix in IMAGE_FORMATS:
        source = [_read_image(file, limits)]
    else:
        _check_video(file, limits)
        source = path
    try:
        inputs = video_processor(source, do_rescale=False, do_normalize=False, return_metadata=True)
    except VideoReadError as error:
        raise ValueError(f"{file.name}: {error.reason}") from error
    about = inputs["video_metadata"][0]
    return SeenClip(path, inputs["pixel_values"][0], about["frame_sec"], about["status"] == "partial")


def what_is_read(video_processor) -> str:
    """In words, which frames of a file the model sees."""
    start, end = video_processor.start or 0.0, video_processor.end
    if video_processor.fps is not None:
        frames = f"{video_processor.fps:g} frame{'s' * (video_processor.fps != 1)} a second"
    else:
        frames = f"{video_processor.num_frames} frames, evenly spaced,"
    part = "the whole clip" if end is None else f"the first {end:g} s" if not start else f"{start:g} to {end:g} s"
    return f"The model sees {frames} of {part}."


def _check_video(file: Path, limits: UploadLimits):
    try:
        info = probe_video(file, limits=ReadLimits(max_pixels=limits.max_pixels, max_seconds=30.0))
    except VideoReadError as error:
        raise ValueError(f"{file.name}: {error.reason}") from error
    if info.duration > limits.max_sec:
        raise ValueError(f"{file.name} lasts {info.duration:.1f} s; at most {limits.max_sec:g} s are taken")


def _read_image(file: Path, limits: UploadLimits) -> Image.Image:
    try:
        with Image.open(file, formats=[IMAGE_FORMATS[file.suffix.lower()]]) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ValueError(
                    f"{file.name} has {width}x{height} pixels; at most {limits.max_pixels / 1e6:.1f} million are taken"
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file.name}: cannot be opened as a picture") from error
