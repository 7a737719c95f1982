"""Reading clips out of video files: choose frames by the time they are displayed, decode those, and little else.

`read_clip` reads one clip, `read_clips` and `iter_clips` read many clips of one file in one pass over it,
`probe_video` says what a file holds, and `frames_to_tensor` brings frames that were decoded elsewhere into the same
form. Knows no model and no data set.
"""

import math
import warnings
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch

from .video_decoding import DecodeCounts, Timeline, VideoFile
from .video_sources import ReadLimits, VideoReadError, VideoReadWarning, VideoSource, open_source, source_name


__all__ = [
    "Clip",
    "ClipWindow",
    "DecodeCounts",
    "ReadLimits",
    "VideoInfo",
    "VideoReadError",
    "VideoReadWarning",
    "VideoSource",
    "frames_to_tensor",
    "iter_clips",
    "probe_video",
    "read_clip",
    "read_clips",
    "sample_indices",
]

# Windows less than this apart are demuxed and decoded in one run ...
RUN_GAP_SEC = 2
# ... up to a length at which the second look at a run's bytes still finds them in the page cache.
MAX_RUN_SEC = 120


@dataclass(frozen=True)
class ClipWindow:
    """Which frames of a video make a clip.

    Args:
        start (`float` or `Fraction`, defaults to 0): seconds from the video's first displayed frame.
        end (`float` or `Fraction`, *optional*): seconds; the first moment that is no longer part of the clip. None, or
            a time past the end of the video, is the end of the video.
        num_frames (`int`, *optional*): so many frames, uniformly from first to last of those displayed from `start`
            on and before `end` (see `sample_indices`). A window of fewer frames repeats some.
        fps (`float` or `Fraction`, *optional*): instead of `num_frames`, the frame on display at `start` and every
            `1 / fps` seconds after it, before `end`.

    With neither `num_frames` nor `fps`, every frame of the window. Times are compared exactly, as fractions.

    Raises:
        TypeError, ValueError: a field that is not such a value, by name; `num_frames` and `fps` both given.
    """

    start: float | Fraction = 0.0
    end: float | Fraction | None = None
    num_frames: int | None = None
    fps: float | Fraction | None = None

    def __post_init__(self):
        for name in ("start", "end", "fps"):
            value = getattr(self, name)
            if value is None and name != "start":
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}")
        if self.start < 0:
            raise ValueError(f"start must not be negative, got {self.start!r}")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end must be after start={self.start!r}, got {self.end!r}")
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps!r}")
        if self.num_frames is not None:
            if self.fps is not None:
                raise ValueError(f"give num_frames or fps, got num_frames={self.num_frames!r} and fps={self.fps!r}")
            if isinstance(self.num_frames, bool) or not isinstance(self.num_frames, Integral):
                raise TypeError(f"num_frames must be an integer, got {self.num_frames!r}")
            if self.num_frames < 1:
                raise ValueError(f"num_frames must be positive, got {self.num_frames!r}")

    def __str__(self) -> str:
        end = "the end" if self.end is None else f"{float(self.end):.3f} s"
        return f"{float(self.start):.3f} s to {end}"


@dataclass
class Clip:
    """Frames read from a video.

    Attributes:
        frames (`torch.Tensor`): uint8, of shape (num_frames, 3, height, width), RGB, turned upright. Pixels are as
            stored: a sample aspect ratio other than 1:1 is not undone.
        frame_sec (`list[float]`): when each frame goes on display, seconds from the video's first displayed frame.
        status (`str`): "complete", or "partial" if frames that belong to the window are missing from the file or
            damaged, so that others were taken.
        message (`str`): what is missing from a partial clip, else empty.
        source (`str`): file, URL or kind of object the clip was read from.
        window (`ClipWindow`): what was asked for.
        counts (`DecodeCounts`): frames decoded and converted by the call that read the clip, over all its clips.
    """

    frames: torch.Tensor
    frame_sec: list[float]
    status: Literal["complete", "partial"]
    message: str
    source: str
    window: ClipWindow
    counts: DecodeCounts


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width, height (`int`): pixels of a frame, upright.
        duration (`float`): seconds from the first displayed frame to the end of the last, as found in the file and
            not as its header says.
        fps (`float`, *optional*): average frame rate, None if unknown.
        codec (`str`): name of the decoder.
        rotation (`int`): degrees counter-clockwise by which stored frames are turned upright.
        start (`float`, *optional*): time of the first displayed frame by the file's own clock; None without a clock.
    """

    width: int
    height: int
    duration: float
    fps: float | None
    codec: str
    rotation: int
    start: float | None


def sample_indices(n: int, num_frames: int) -> list[int]:
    """Indices of `num_frames` frames out of `n`, uniform and with both ends: float32 `linspace`, truncated.

    Args:
        n (`int`): frames that there are.
        num_frames (`int`): frames to choose. If there are fewer, some are chosen more than once; of one frame to
            choose it is the first.

    Returns:
        `list[int]`: `num_frames` indices from 0 to `n - 1`, in ascending order.

    Raises:
        ValueError: `n` or `num_frames` less than 1.
    """
    if n < 1 or num_frames < 1:
        raise ValueError(f"n and num_frames must be positive, got n={n!r} and num_frames={num_frames!r}")
    # Above 2**24 float32 skips integers and may round past the last one.
    return torch.linspace(0, n - 1, num_frames, dtype=torch.float32).long().clamp(0, n - 1).tolist()


def probe_video(source: VideoSource, *, limits: ReadLimits = ReadLimits()) -> VideoInfo:
    """Looks a video over: decodes its first frame and demuxes its end.

    Args:
        source: path, http(s) URL, bytes or binary file object, as for `read_clip`.
        limits (`ReadLimits`): bounds on size and time.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as `open` does, naming the path.
        VideoReadError: not a video, one whose first frames cannot be decoded, or one beyond `limits`.
    """
    with _open_video(source, limits) as video:
        line = video.timeline(video.origin, video.origin + video.frame_ticks)
        frame = next((frame for _, frame, _ in video.frames(line.entry, skipping=False)), None)
        if frame is None:
            raise VideoReadError(video.name, "its first frames cannot be decoded")
        _, height, width = video.to_rgb(frame).shape
        rate = None if video.untimed else video.average_rate
        return VideoInfo(
            width=width,
            height=height,
            duration=video.to_seconds(video.find_end()),
            fps=float(1 / video.time_base) if video.untimed else rate and float(rate),
            codec=video.codec,
            rotation=frame.rotation % 360,
            start=None if video.untimed else float(video.origin * video.time_base),
        )


def read_clip(
    source: VideoSource, window: ClipWindow = ClipWindow(end=8.0, num_frames=8), *, limits: ReadLimits = ReadLimits()
) -> Clip:
    """Reads one clip.

    Args:
        source: path, http(s) URL, bytes or binary file object. A file object is read from its beginning and left
            open; an unseekable one is copied to a temporary file first, as a URL is.
        window (`ClipWindow`): which frames.
        limits (`ReadLimits`): bounds on size and time.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as `open` does, naming the path.
        VideoReadError: anything else that keeps the clip from being read, among it a window past the video's end.

    Warns:
        VideoReadWarning: once for a clip with status "partial".
    """
    return read_clips(source, [window], limits=limits)[0]


def read_clips(
    source: VideoSource,
    windows: Sequence[ClipWindow],
    *,
    on_error: Literal["raise", "return"] = "raise",
    limits: ReadLimits = ReadLimits(),
) -> list[Clip | VideoReadError]:
    """Reads many clips of one video, in one pass over it; windows may overlap and come in any order.

    Args:
        on_error (`str`): with "raise" the first clip that fails, in the order asked for, raises. With "return" its
            `VideoReadError` stands in its place and the other clips are unharmed. What keeps the whole file from
            being opened raises either way.

    Returns:
        `list[Clip | VideoReadError]`: in the order of `windows`. All are held at once: see `iter_clips`.

    Raises, warns: as `read_clip`.
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error must be 'raise' or 'return', got {on_error!r}")
    windows = list(windows)
    results = dict(iter_clips(source, windows, limits=limits))
    clips = [results[index] for index in range(len(windows))]
    errors = [clip for clip in clips if isinstance(clip, VideoReadError)]
    if errors and on_error == "raise":
        raise errors[0]
    return clips


def iter_clips(
    source: VideoSource,
    windows: Sequence[ClipWindow],
    *,
    transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    limits: ReadLimits = ReadLimits(),
) -> Iterator[tuple[int, Clip | VideoReadError]]:
    """`read_clips` one clip at a time, as they are done, so that only clips under way are held in memory.

    Args:
        transform (`Callable`, *optional*): what becomes of each frame once it is decoded, such as resizing: from uint8
            of shape (3, height, width), not contiguous, to uint8 of shape (3, new height, new width). Clips under way
            hold what it gives and no more.

    Yields:
        `tuple[int, Clip | VideoReadError]`: the index in `windows` and the clip, or why it could not be read; roughly
        in the order of time.

    Raises, warns: as `read_clip`, but for what concerns one clip alone.
    """
    windows = list(windows)
    with _open_video(source, limits) as video:
        for run in _runs(windows):
            jobs = [_ClipJob(index, windows[index], video) for index in run]
            for job in _read_run(jobs, video, transform):
                result = job.hand_over()
                if isinstance(result, Clip) and result.status == "partial":
                    message = f"{video.name}: clip {job.window}: {result.message}"
                    warnings.warn(message, VideoReadWarning, stacklevel=2)
                yield job.index, result
                del result  # not held while the next one is read
                video.touch()  # who asks for clips may take its time


@contextmanager
def _open_video(source: VideoSource, limits: ReadLimits) -> Iterator[VideoFile]:
    with ExitStack() as stack:
        file = open_source(source, limits=limits, stack=stack)
        yield stack.enter_context(VideoFile(file, name=source_name(source), limits=limits))


def _runs(windows: list[ClipWindow]) -> Iterator[list[int]]:
    """Indices of windows, sorted by time and cut into runs of neighbours."""
    run, start, end = [], 0.0, 0.0
    for index in sorted(range(len(windows)), key=lambda i: windows[i].start):
        window = windows[index]
        if run and (window.start - end >= RUN_GAP_SEC or window.start - start >= MAX_RUN_SEC):
            yield run
            run = []
        if not run:
            start, end = window.start, 0.0
        run.append(index)
        end = max(end, math.inf if window.end is None else window.end)
    if run:
        yield run


# -------------------------------------------------------------------------------------------------- reading one run


class _ClipJob:
    """A clip in the making."""

    def __init__(self, index: int, window: ClipWindow, video: VideoFile):
        self.index = index
        self.window = window
        self.video = video
        self.start = video.to_tick(window.start)
        self.end = None if window.end is None else video.to_tick(window.end)
        self.done = False
        self.result: Clip | VideoReadError | None = None
        self.choose([])

    def choose(self, ticks: list[int]) -> None:
        """Sets the frames to read."""
        self.ticks = ticks
        self.positions = defaultdict(list)  # frame -> its places in the clip
        for position, tick in enumerate(ticks):
            self.positions[tick].append(position)
        self.missing = set(ticks)
        self.frames = None

    def put(self, tick: int, image: torch.Tensor) -> None:
        """Copies a decoded frame of shape (3, height, width) to its places."""
        if self.frames is None:
            num_bytes = len(self.ticks) * image.numel()
            if num_bytes > self.video.limits.max_clip_bytes:
                bound = f"max_clip_bytes={self.video.limits.max_clip_bytes}"
                return self.fail(f"{len(self.ticks)} frames take {num_bytes} bytes, more than {bound}")
            self.frames = torch.empty((len(self.ticks), *image.shape), dtype=torch.uint8)
        if self.frames.shape[1:] != image.shape:
            sizes = [f"{shape[-1]}x{shape[-2]}" for shape in (self.frames.shape, image.shape)]
            return self.fail(f"the frames change from {sizes[0]} to {sizes[1]} pixels")
        for position in self.positions[tick]:
            self.frames[position] = image
        self.missing.discard(tick)

    def finish(self, message: str = "") -> None:
        frame_sec = [self.video.to_seconds(tick) for tick in self.ticks]
        status = "partial" if message else "complete"
        name, counts = self.video.name, self.video.counts
        self._end_with(Clip(self.frames, frame_sec, status, message, name, self.window, counts))

    def fail(self, reason: str) -> None:
        self._end_with(VideoReadError(self.video.name, f"clip {self.window}: {reason}", self.window))

    def _end_with(self, result: Clip | VideoReadError) -> None:
        self.done, self.result, self.frames = True, result, None

    def hand_over(self) -> Clip | VideoReadError:
        """The result, no longer held here: the job itself lives as long as its run."""
        result, self.result = self.result, None
        return result


def _read_run(jobs: list[_ClipJob], video: VideoFile, transform: Callable | None) -> Iterator[_ClipJob]:
    """Reads the clips of one run; yields each as soon as it is done."""
    start = video.to_display_tick(min(job.window.start for job in jobs))
    end = None if any(job.end is None for job in jobs) else max(job.end for job in jobs)
    line = video.timeline(start, end)
    wanting = defaultdict(list)  # frame -> the jobs that need it
    for job in jobs:
        _choose_frames(job, line, line.between(job.start, job.end))
        for tick in job.positions:
            wanting[tick].append(job)
    yield from (job for job in jobs if job.done)

    for tick, frame, damaged in video.frames({tick: line.entry[tick] for tick in wanting}):
        needy = [job for job in wanting[tick] if not job.done and tick in job.missing]
        if damaged or not needy:
            continue
        image = _to_image(frame, video, transform)
        for job in needy:
            job.put(tick, image)
            if not job.done and not job.missing:
                job.finish(_missing_tail(job, line))
            if job.done:
                yield job
    for job in jobs:
        if not job.done:
            _reread(job, line, transform)
            yield job


def _to_image(frame: Any, video: VideoFile, transform: Callable | None) -> torch.Tensor:
    image = video.to_rgb(frame)
    return image if transform is None else transform(image)


def _choose_frames(job: _ClipJob, line: Timeline, ticks: list[int]) -> None:
    """Chooses among `ticks`, the frames of the window; fails the job if it can have none."""
    window, video = job.window, job.video
    if window.fps is not None:
        chosen = _on_display(job, line, ticks)
    elif window.num_frames is not None:
        bound = min(window.num_frames, video.limits.max_frames + 1)
        chosen = [ticks[i] for i in sample_indices(len(ticks), bound)] if ticks else []
    else:
        chosen = ticks
    if not chosen:
        tail = video.missing_tail(line.end) if line.reached_end else ""
        length = video.to_seconds(line.end if line.reached_end and line.ticks else video.find_end())
        return job.fail(f"no frames in it, {tail or f'the video is {length:.2f} s long'}")
    if len(chosen) > video.limits.max_frames:
        num_frames = window.num_frames or len(chosen)
        return job.fail(f"{num_frames} frames, more than max_frames={video.limits.max_frames}")
    job.choose(chosen)


def _on_display(job: _ClipJob, line: Timeline, ticks: list[int]) -> list[int]:
    """The frames on display every 1 / fps seconds."""
    # The one on display at the start may have been put there before it.
    if not ticks or ticks[0] > job.video.to_display_tick(job.window.start):
        ticks = [*line.between(job.video.origin, job.start)[-1:], *ticks]
    start, step = Fraction(job.window.start), 1 / Fraction(job.window.fps)
    end = line.end if job.end is None else min(job.end, line.end)
    chosen = []
    while ticks and len(chosen) <= job.video.limits.max_frames:
        now = start + len(chosen) * step
        if job.video.to_tick(now) >= end:
            break
        chosen.append(ticks[max(0, bisect_right(ticks, job.video.to_display_tick(now)) - 1)])
    return chosen


def _missing_tail(job: _ClipJob, line: Timeline) -> str:
    """What to say if the file was cut off within the window."""
    if not line.reached_end or (job.end is not None and job.end <= line.end + job.video.frame_ticks):
        return ""
    return job.video.missing_tail(line.end)


def _reread(job: _ClipJob, line: Timeline, transform: Callable | None) -> None:
    """Reads a clip of which wanted frames did not come: decodes all of its window, then chooses among what came."""
    video = job.video
    expected = line.between(job.start, job.end)
    if job.window.fps is not None:
        expected = sorted({*job.ticks, *expected})
    # One keyframe earlier than needed: the one at hand may be the damaged one, or no true one.
    entry = dict.fromkeys(expected, line.keyframe_before(line.entry[expected[0]] - 1))
    errors = video.num_errors
    whole, damaged = set(), set()
    for tick, _, is_damaged in video.frames(entry, skipping=False):
        (damaged if is_damaged else whole).add(tick)
    usable = sorted(whole or damaged)
    if not usable:
        return job.fail(f"none of its {len(expected)} frames can be decoded")
    _choose_frames(job, line, usable)
    for tick, frame, _ in video.frames({tick: entry[tick] for tick in job.positions}, skipping=False):
        if tick in job.missing and not job.done:
            job.put(tick, _to_image(frame, video, transform))
    if job.done:
        return
    if job.missing:
        return job.fail(f"{len(job.missing)} of its frames decode only now and then")
    # Without a sign of damage, what did not come was never to be shown.
    lost = ""
    if damaged or video.num_errors > errors:
        lost = f"{len(expected) - len(whole)} of its {len(expected)} frames are damaged or rest on damaged ones"
    job.finish("; ".join(filter(None, (lost, _missing_tail(job, line)))))


# --------------------------------------------------------------------------------------------- frames from elsewhere


def frames_to_tensor(frames: Any) -> torch.Tensor:
    """Frames that are decoded already, in the form that `read_clip` gives.

    Args:
        frames: one torch tensor or NumPy array of shape (num_frames, 3, height, width),
            (num_frames, height, width, 3) or, in grey, (num_frames, height, width); or a sequence of equally large
            PIL images, arrays or tensors, one a frame, of shape (3, height, width), (height, width, 3) or
            (height, width). Either uint8, or floats from 0 to 1, which are scaled to 255 and rounded.

    Returns:
        `torch.Tensor`: uint8 of shape (num_frames, 3, height, width).

    Raises:
        TypeError: no frames of such a kind, or values of another type.
        ValueError: no frames at all, a shape that is not such a one or could be read two ways, frames of different
            sizes, floats outside 0 to 1.
    """
    if isinstance(frames, torch.Tensor | np.ndarray):
        return _channels_first(_to_uint8(_as_tensor(frames, "frames")), first_dims="num_frames, ")
    if isinstance(frames, str | bytes) or not isinstance(frames, Sequence):
        raise TypeError(f"frames must be a tensor, an array or a sequence of images, got {type(frames).__name__}")
    if not frames:
        raise ValueError("frames is empty")
    images = []
    for index, frame in enumerate(frames):
        tensor = _to_uint8(_as_tensor(frame, f"frames[{index}]"))
        image = _channels_first(tensor[None], first_dims="")[0]
        if images and image.shape != images[0].shape:
            sizes = [f"{shape[2]}x{shape[1]}" for shape in (image.shape, images[0].shape)]
            raise ValueError(f"frames[{index}] is {sizes[0]} pixels, frames[0] is {sizes[1]}")
        images.append(image)
    return torch.stack(images)


def _as_tensor(value: Any, name: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if hasattr(value, "convert") and hasattr(value, "getbands"):  # a PIL image; PIL itself is not needed here
        value = np.array(value.convert("RGB"))
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a tensor, an array or a PIL image, got {type(value).__name__}")
    return torch.from_numpy(np.ascontiguousarray(value))


def _to_uint8(frames: torch.Tensor) -> torch.Tensor:
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise TypeError(f"frames must be uint8 or floats from 0 to 1, got {frames.dtype}")
    low, high = (frames.min().item(), frames.max().item()) if frames.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # nan too
        raise ValueError(f"frames of floats must be from 0 to 1, got {low:g} to {high:g}")
    return (frames.float() * 255).round().to(torch.uint8)


def _channels_first(frames: torch.Tensor, *, first_dims: str) -> torch.Tensor:
    """(T, 3, H, W) from that, (T, H, W, 3) or (T, H, W)."""
    given = tuple(frames.shape) if first_dims else tuple(frames.shape[1:])
    first = frames.ndim == 4 and frames.shape[1] == 3
    last = frames.ndim == 4 and frames.shape[3] == 3
    shapes = " or ".join(f"({first_dims}{rest})" for rest in ("3, height, width", "height, width, 3", "height, width"))
    if first and last:
        raise ValueError(f"frames of shape {given} can be read two ways, as {shapes}")
    if not (first or last or frames.ndim == 3):
        raise ValueError(f"frames must be of shape {shapes}, got {given}")
    if 0 in given:
        raise ValueError(f"frames of shape {given} are empty")
    if frames.ndim == 3:
        return frames[:, None].repeat(1, 3, 1, 1)
    return frames.contiguous() if first else frames.permute(0, 3, 1, 2).contiguous()
