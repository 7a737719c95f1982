"""Clips to `pixel_values`: reading, choosing frames, resizing, normalizing. Needs no torchvision."""

import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, validate_kwargs
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .frame_resizing import resize_frames
from .legacy_checkpoints import read_legacy_checkpoint
from .video_reading import ClipWindow, VideoSource, frames_to_tensor, read_clip, sample_indices


@dataclass(frozen=True)
class ClipSpan:
    """
    A stretch of a video, as a clip: `ClipSpan("kitchen.mp4", start=12.0, end=20.0)`.

    Attributes:
        source (`str`, `bytes` or file object): path, URL, bytes or binary file of a video.
        start (`float`, *optional*): seconds from the video's first frame; by default what the call says, or the
            processor.
        end (`float`, *optional*): likewise. If neither the span nor the call says where the clip ends, `start` moves
            the processor's own end along: a clip as long as any other, later.
    """

    source: VideoSource
    start: float | None = None
    end: float | None = None

    @property
    def times(self) -> dict[str, float]:
        """Those of its times that are said."""
        return {name: value for name, value in (("start", self.start), ("end", self.end)) if value is not None}


class VideoBlip2VideosKwargs(VideosKwargs, total=False):
    """
    start (`float`, *optional*): where the clip starts in its file, in seconds from the first frame.
    end (`float`, *optional*): where it ends; the end of the video if `None` or later.
    """

    start: float | int | None
    end: float | int | None


# What decides the pixels of frames, whichever they are.
PIXEL_SETTINGS = (
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
_SETTINGS = ("num_frames", "fps", "start", "end", *PIXEL_SETTINGS)

_INTERPOLATION = {
    PILImageResampling.NEAREST: "nearest-exact",
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}


class VideoBlip2VideoProcessor(VideoProcessorMixin):
    r"""
    Turns video clips into `pixel_values` of shape `(num_videos, num_frames, 3, height, width)`.

    A clip is a path, a URL, `bytes` or a binary file object of a video (or `{"path": ..., "bytes": ...}` with one of
    them, as `datasets` has it), a [`ClipSpan`] of one, or its frames: a uint8 array or tensor of
    shape `(num_frames, height, width, 3)` or `(num_frames, 3, height, width)`, or a list of PIL images. Of a file only
    the frames that are asked for are decoded. Frames given as such are taken as they are, unless the call asks for
    `num_frames` of them.

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of a file, uniformly from `start` to `end` (EILEV).
        fps (`float`, *optional*): Instead of `num_frames`: so many frames a second (VideoBLIP: 1).
        start (`float`, *optional*, defaults to 0): Seconds from the video's first frame.
        end (`float`, *optional*, defaults to 8): Seconds; a shorter video is taken to its end. A call that gives
            `start` alone moves the end along.
        do_resize, size, resample, do_rescale, rescale_factor, do_normalize, image_mean, image_std:
            As in [`~transformers.BlipImageProcessor`]. Neither rescaled nor normalized, frames stay uint8.

    Raises:
        VideoReadError: if a file can't be read as a video, naming the file and why.
        FileNotFoundError: if there is no such file.
        ValueError: if something else is given as a clip, or a setting doesn't fit.
    """

    valid_kwargs = VideoBlip2VideosKwargs
    model_input_names = ["pixel_values", "frame_mask"]

    num_frames = 8
    fps = None
    start = 0.0
    end = 8.0
    do_resize = True
    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BICUBIC
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD

    def __init__(self, **kwargs: Unpack[VideoBlip2VideosKwargs]):
        if kwargs.get("fps") is not None:
            kwargs.setdefault("num_frames", None)
        _check_settings(kwargs)
        # Each as an attribute of its own, so that what is saved says everything.
        settings = {name: kwargs.get(name, getattr(type(self), name)) for name in _SETTINGS}
        super().__init__(**{**kwargs, **settings})

    @classmethod
    def get_video_processor_dict(cls, pretrained_model_name_or_path, **kwargs):
        config, unused_kwargs = super().get_video_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "video_processor_type" not in config:
            # A BLIP-2 image processor's: its sizes and means are ours; of frames it says nothing.
            legacy = read_legacy_checkpoint(pretrained_model_name_or_path, **kwargs)
            known = cls.valid_kwargs.__annotations__
            config = {key: value for key, value in config.items() if key in known and value is not None}
            config = {**(legacy.clip_defaults if legacy is not None else {}), **config}
        return config, unused_kwargs

    def preprocess(self, videos, **kwargs: Unpack[VideoBlip2VideosKwargs]) -> BatchFeature:
        """
        Args:
            videos: One clip, a list of clips, or a list of lists of clips (one for each text), as said above.
            kwargs: Any setting of the processor, for this call alone.

        Returns:
            `pixel_values` of shape `(num_videos, num_frames, 3, height, width)`, in reading order, float32, or uint8
            if they are to be neither rescaled nor normalized; if the clips have unequal numbers of frames,
            `frame_mask` of shape `(num_videos, num_frames)`, False where the shorter ones are filled up with zeros;
            with `return_metadata`, `video_metadata`, for each clip a dict with its "source",
            its "status" ("partial" if frames are missing from the file) and the times of its frames, "frame_sec".
        """
        validate_kwargs(
            captured_kwargs=kwargs.keys(),
            valid_processor_keys=[*self.valid_kwargs.__annotations__, "return_tensors"],
        )
        validate_typed_dict(self.valid_kwargs, kwargs)
        return_tensors = kwargs.pop("return_tensors", None)
        settings = self._settings(kwargs)
        pixel_values, metadata = [], []
        for clip in flatten_clips(videos):
            frames, clip_metadata = self._read(clip, kwargs, settings)
            pixel_values.append(self._to_pixel_values(frames, settings))
            metadata.append(clip_metadata)
        if not pixel_values:
            raise ValueError(f"There is no clip in `videos`, which is {videos!r}")
        features = self.pad_frames(pixel_values)
        if settings["return_metadata"]:
            features["video_metadata"] = metadata
        return BatchFeature(features, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"])

    def normalize_frames(self, frames: torch.Tensor) -> torch.FloatTensor:
        """
        What `preprocess` does last, on any device: frames that it gave with `do_rescale=False, do_normalize=False`
        become the `pixel_values` that it would have given, to the bit on a CPU. As uint8 they are a quarter of the
        bytes to hand from process to process and to a device.

        Args:
            frames (`torch.Tensor`): uint8, of shape `(..., 3, height, width)`.

        Returns:
            `torch.FloatTensor`: float32, of the same shape and on the same device.

        Raises:
            ValueError: if `frames` are of another type or shape.
        """
        if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-3] != 3:
            raise ValueError(
                "`frames` must be uint8 and of shape (..., 3, height, width), but are "
                f"{frames.dtype} and of shape {tuple(frames.shape)}"
            )
        return _normalize(frames, self._settings({})).float()

    @staticmethod
    def pad_frames(clips: list[torch.Tensor], name: str = "pixel_values") -> dict[str, torch.Tensor]:
        """
        Stacks clips of unequal lengths.

        Args:
            clips (`list[torch.Tensor]`): each of shape `(num_frames, ...)`, such as `(num_frames, 3, height, width)`.
            name (`str`, *optional*, defaults to "pixel_values"): of what comes of them.

        Returns:
            `pixel_values` and, if they are unequal, `frame_mask`, as `preprocess` does.

        Raises:
            ValueError: if they differ in more than the number of frames.
        """
        sizes = {tuple(clip.shape[1:]) for clip in clips}
        if len(sizes) > 1:
            hint = "; set `do_resize`" if name == "pixel_values" else ""
            raise ValueError(f"Frames of one batch must have one size, but here are {sorted(sizes)}{hint}")
        lengths = torch.tensor([len(clip) for clip in clips])
        longest = int(lengths.max())
        if (lengths == longest).all():
            return {name: torch.stack(clips)}
        padded = [F.pad(clip, (0, 0) * (clip.ndim - 1) + (0, longest - len(clip))) for clip in clips]
        return {name: torch.stack(padded), "frame_mask": torch.arange(longest) < lengths.unsqueeze(1)}

    def clip_window(self, **kwargs: Unpack[VideoBlip2VideosKwargs]) -> ClipWindow:
        """Which frames of a file a call with these settings takes."""
        return _window_of(self._settings(kwargs))

    def frame_resizing(self) -> dict:
        """
        How frames are resized, to do it while they are decoded: `size`, height and width, and `mode`, as
        [`resize_frames`] takes them; empty if they aren't.
        """
        settings = self._settings({})
        return _resizing_of(settings) if settings["do_resize"] else {}

    def _settings(self, kwargs) -> dict:
        """Every setting: the call's, then the processor's own."""
        _check_settings(kwargs)
        settings = {name: kwargs.get(name, getattr(self, name, None)) for name in self.valid_kwargs.__annotations__}
        # The two ways to choose frames exclude each other: the one that the call names wins.
        if kwargs.get("fps") is not None and kwargs.get("num_frames") is None:
            settings["num_frames"] = None
        elif kwargs.get("num_frames") is not None and kwargs.get("fps") is None:
            settings["fps"] = None
        if kwargs.get("start") is not None and "end" not in kwargs and settings["end"] is not None:
            settings["end"] += kwargs["start"] - (self.start or 0)  # as long a clip, later
        return self._standardize_kwargs(**settings)

    def _read(self, clip, kwargs, settings) -> tuple[torch.Tensor, dict]:
        """A clip's frames, uint8, of shape (num_frames, 3, height, width), and where they are from."""
        if _is_span(clip):
            kwargs = {**kwargs, **clip.times}
            clip, settings = clip.source, self._settings(kwargs)
        if isinstance(clip, dict):
            clip = clip.get("bytes") or clip["path"]
        if _is_file(clip):
            clip = read_clip(clip, _window_of(settings))
            return clip.frames, {"source": clip.source, "frame_sec": clip.frame_sec, "status": clip.status}
        timed = [name for name in ("fps", "start", "end") if kwargs.get(name) is not None]
        if timed:
            raise ValueError(f"Frames given without their file have no times, so {timed} can't be applied to them")
        frames = frames_to_tensor(clip)
        num_frames = settings["num_frames"] if settings["do_sample_frames"] else kwargs.get("num_frames")
        if num_frames is not None:
            frames = frames[sample_indices(len(frames), num_frames)]
        return frames, {"source": type(clip).__name__, "frame_sec": None, "status": "complete"}

    @staticmethod
    def _to_pixel_values(frames, settings) -> torch.Tensor:
        if settings["do_resize"]:
            frames = resize_frames(frames, **_resizing_of(settings))
        # Not before: only on a CPU is there the kernel for uint8.
        return _normalize(frames.to(settings["device"]), settings)


def _resizing_of(settings: dict) -> dict:
    size = settings["size"]
    if not (size.height and size.width):
        raise ValueError(f"`size` must have a `height` and a `width`, but is {dict(size)}")
    mode = _INTERPOLATION.get(settings["resample"])
    if mode is None:
        known = [int(resample) for resample in _INTERPOLATION]
        raise ValueError(f"`resample` is {settings['resample']!r}, but must be one of {known}")
    return {"size": (size.height, size.width), "mode": mode}


def _window_of(settings: dict) -> ClipWindow:
    every_frame = settings["do_sample_frames"] is False
    return ClipWindow(
        start=settings["start"] or 0.0,
        end=settings["end"],
        num_frames=None if every_frame else settings["num_frames"],
        fps=None if every_frame else settings["fps"],
    )


def _normalize(frames: torch.Tensor, settings: dict) -> torch.Tensor:
    """Rescales and normalizes uint8 frames, of shape (..., 3, height, width)."""
    if not (settings["do_rescale"] or settings["do_normalize"]):
        return frames
    pixel_values = frames.float()
    if settings["do_rescale"]:
        pixel_values = pixel_values * settings["rescale_factor"]
    if settings["do_normalize"]:
        mean, std = (
            torch.tensor(settings[name], device=frames.device).view(-1, 1, 1) for name in ("image_mean", "image_std")
        )
        pixel_values = (pixel_values - mean) / std
    return pixel_values


def flatten_clips(videos) -> list:
    """One clip, a list of clips, or a list of lists of clips, as a list of clips in reading order."""
    if is_clip(videos):
        return [videos]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 5:
            return list(videos)
        raise ValueError(
            "A clip's frames are of shape (num_frames, height, width, 3) or (num_frames, 3, height, width), several "
            f"clips' of one dimension more, but here is an array of shape {tuple(videos.shape)}"
        )
    if isinstance(videos, (list, tuple)):
        return [clip for video in videos for clip in flatten_clips(video)]
    raise ValueError(
        "A clip is a path, a URL, bytes, a binary file object, a ClipSpan, an array of frames or a list of PIL "
        f"images, not {videos!r} of type {type(videos).__name__}"
    )


def is_clip(video) -> bool:
    """Whether this is one clip, rather than a list of clips or no clip at all."""
    if _is_span(video):
        return is_clip(video.source)
    if _is_file(video):
        return True
    if isinstance(video, dict):
        return {"path", "bytes"} >= video.keys() and any(_is_file(value) for value in video.values())
    if isinstance(video, (np.ndarray, torch.Tensor)):
        return video.ndim == 4
    return isinstance(video, (list, tuple)) and len(video) > 0 and all(_is_frame(frame) for frame in video)


def _is_span(video) -> bool:
    # By name: that of remote code is of another class.
    return type(video).__name__ == ClipSpan.__name__


def _is_file(video) -> bool:
    return isinstance(video, (str, os.PathLike, bytes, bytearray)) or hasattr(video, "read")


def _is_frame(frame) -> bool:
    if isinstance(frame, (np.ndarray, torch.Tensor)):
        return frame.ndim in (2, 3)
    return hasattr(frame, "convert") and hasattr(frame, "size")  # a PIL image


def _check_settings(settings: dict):
    for name in ("do_center_crop", "do_pad"):
        if settings.get(name):
            raise ValueError(f"`{name}=True` is not supported: frames are resized to `size` whole")


__all__ = ["ClipSpan", "VideoBlip2VideoProcessor"]
