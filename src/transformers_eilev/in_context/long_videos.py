"""Narrating videos of any length: windows over all of them, decoded in one pass while the model is at work."""

import hashlib
import math
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..data.windows import place_window
from ..frame_resizing import resize_frames
from ..video_decoding import VideoFile
from ..video_reading import Clip, ClipWindow, iter_clips
from ..video_sources import ReadLimits, VideoReadError, VideoReadWarning, VideoSource, open_source, source_name
from .narration_journal import NarrationFile, check_output
from .subtitles import VideoNarration, subtitle_format


# Stretches of one video.
MAX_STRETCHES = 1_000_000

Narrate = Callable[[list[torch.Tensor], list[tuple[float, float]]], Sequence[tuple[str, float | None]]]


@dataclass(frozen=True)
class Stretch:
    """A part of a video that gets one narration, and the window that is looked at for it; exact, in seconds."""

    start: Fraction
    end: Fraction
    window_start: Fraction
    window_end: Fraction


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What decides the clips."""

    every: float | Fraction
    clip_sec: float | Fraction
    num_frames: int | None
    fps: float | Fraction | None
    start: float | Fraction
    end: float | Fraction | None
    size: tuple[int, int] | None
    resample: str

    def window(self, stretch: Stretch) -> ClipWindow:
        return ClipWindow(stretch.window_start, stretch.window_end, num_frames=self.num_frames, fps=self.fps)


def plan_windows(
    duration: float | Fraction,
    *,
    every: float | Fraction,
    clip_sec: float | Fraction = 8.0,
    start: float | Fraction = 0.0,
    end: float | Fraction | None = None,
) -> list[Stretch]:
    """
    Cuts a video into stretches and lays a window around the middle of each.

    Stretches follow each other without gap from `start` on; the last one is shorter where `every` does not go into
    what there is. A window has its stretch's middle in its own, and is moved into the video at either end as
    `place_window` does; so it may reach beyond `start` and `end`, but not beyond the video. Windows overlap if
    `clip_sec` is more than `every`, and leave parts of the video out if it is less.

    Args:
        duration (`float` or `Fraction`): the video's length in seconds.
        every (`float` or `Fraction`): seconds of a stretch.
        clip_sec (`float` or `Fraction`, defaults to 8): seconds of a window.
        start, end (`float` or `Fraction`, *optional*): the part of the video to narrate, in seconds from its first
            frame; all of it by default.

    Returns:
        `list[Stretch]`: in order, at least one.

    Raises:
        TypeError, ValueError: a value that can't be, by name; a `start` past the end of the video; more than
            1,000,000 stretches.
    """
    if isinstance(every, bool) or not isinstance(every, Real):
        raise TypeError(f"every must be a number, got {every!r}")
    if not (math.isfinite(every) and every > 0):
        raise ValueError(f"every must be a positive number of seconds, got {every!r}")
    ClipWindow(start, end)  # which checks them
    place_window(0, duration, clip_sec)  # and so on
    every, start, duration = Fraction(every), Fraction(start), Fraction(duration)
    end = duration if end is None else min(Fraction(end), duration)
    if start >= end:
        raise ValueError(f"start is {float(start):g}, but the video is {float(duration):.3f} s long")
    number = math.ceil((end - start) / every)
    if number > MAX_STRETCHES:
        raise ValueError(f"every={float(every):g} gives {number} stretches, more than {MAX_STRETCHES}")
    stretches = []
    for index in range(number):
        first, last = start + index * every, min(start + (index + 1) * every, end)
        window_start, window_end = place_window((first + last) / 2, duration, clip_sec)
        stretches.append(Stretch(first, last, max(Fraction(0), window_start), window_end))
    return stretches


def narrate_video(
    source: VideoSource,
    narrate: Narrate,
    *,
    every: float | Fraction = 4.0,
    clip_sec: float | Fraction = 8.0,
    num_frames: int | None = 8,
    fps: float | Fraction | None = None,
    start: float | Fraction = 0.0,
    end: float | Fraction | None = None,
    size: tuple[int, int] | None = None,
    resample: str = "bicubic",
    batch_size: int = 8,
    output: str | os.PathLike | None = None,
    format: str | None = None,
    identity: str | Mapping[str, str] = "",
    overwrite: bool = False,
    progress: bool = True,
    read_ahead: int = 2,
    limits: ReadLimits = ReadLimits(),
) -> Iterator[VideoNarration]:
    r"""
    Narrates a video from start to end, stretch by stretch, in one pass over its file.

    A thread decodes `read_ahead` batches ahead of the model. In memory are the clips of these, the batch at hand, and
    those that the decoder is at: with `size`, 1.2 MB for 8 frames of 224x224; never more for a longer video.

    With `output` the narrations are written to a file as they come, and a run that was stopped, however it was, is
    taken up where it stood by the same call: the file will be that of a run that was not stopped.

    A stretch whose clip can't be read has an error instead of a text, and of one whose frames are damaged in part the
    rest is narrated; the others are as ever.

    Args:
        source: path, http(s) URL, bytes or binary file object. For a run to be taken up, a path or bytes. A path is
            known again by the size and the time of change of its file: to read hours of video for a hash of its
            content would take as long as the copying of them.
        narrate (`Callable`): called with a list of clips, uint8 tensors of shape (num_frames, 3, height, width), and
            a list of the seconds that each is cut from, (start, end), rounded to floats; returns for each a text and
            the mean log-likelihood of its tokens, or None. A score that is no finite number counts as None.
        every, clip_sec, start, end: which stretches and windows, see `plan_windows`.
        num_frames (`int`, *optional*, defaults to 8): frames of each clip.
        fps (`float`, *optional*): frames a second instead.
        size (`tuple[int, int]`, *optional*): height and width that frames are resized to once they are decoded, as the
            video processor does it; by default they stay as large as they are.
        resample (`str`, defaults to "bicubic"): how; see `resize_frames`.
        batch_size (`int`, defaults to 8): clips in a call of `narrate`. May be another one when a run is taken up, if
            memory was short, say; what the model says may then differ as it does between batches.
        output (`str` or `PathLike`, *optional*): the file to write.
        format (`str`, *optional*): "srt", "vtt", "csv" or "jsonl"; by default what the suffix of `output` says.
        identity (`str` or `Mapping[str, str]`, *optional*): what else decides the narrations, in any form, such as
            hashes by name: model, demonstrations, settings of generation. A stopped run is not taken up by one of
            another identity.
        overwrite (`bool`, defaults to `False`): write over an `output` that is there, and start anew where a stopped
            run had asked for something else.
        progress (`bool`, defaults to `True`): show a bar with the time left.
        read_ahead (`int`, defaults to 2): batches.
        limits (`ReadLimits`): bounds on what the video may cost.

    Yields:
        `VideoNarration`: one for each stretch, in order; those of a run that is taken up first.

    Raises:
        FileExistsError: `output` is there, complete or of unknown origin.
        BlockingIOError: another process is writing `output`.
        FileNotFoundError, IsADirectoryError, PermissionError: as `open` does.
        VideoReadError: what keeps the whole file from being read.
        TypeError, ValueError: a setting that can't be, by name; a stopped run asked for something else.
        Whatever `narrate` raises.

    Warns:
        VideoReadWarning: for each stretch that can't be read as a whole, naming file and times; for a file that was
            cut off.
        UserWarning: at the end, if narrations are empty.

    Example:

    ```python
    >>> def narrate(clips, spans):
    ...     return session.narrate(clips, return_scores=True, num_beams=5)

    >>> for narration in narrate_video("hour.mp4", narrate, every=4, size=(224, 224), output="hour.srt"):
    ...     print(narration.start, narration.text)
    ```
    """
    if fps is not None:
        num_frames = None
    elif num_frames is None:
        raise ValueError("give num_frames or fps")
    ClipWindow(start, end, num_frames, fps)  # which checks them
    if size is not None and (not isinstance(size, Sequence) or len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be a height and a width, got {size!r}")
    for name, value in (("batch_size", batch_size), ("read_ahead", read_ahead)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    size = None if size is None else (int(size[0]), int(size[1]))
    reading = _Reading(
        every=every,
        clip_sec=clip_sec,
        num_frames=num_frames,
        fps=fps,
        start=start,
        end=end,
        size=size,
        resample=resample,
    )
    # Of any length, for what is wrong to show now and not when the first narration is asked for.
    plan_windows(Fraction(start) + 1, every=every, clip_sec=clip_sec, start=start, end=end)
    file_settings = None
    if output is not None:
        output = Path(output)
        file_settings = {"path": output, "format": subtitle_format(output, format), "overwrite": overwrite}
        check_output(output, overwrite=overwrite)
    return _narrations(source, narrate, reading, batch_size, file_settings, identity, progress, read_ahead, limits)


def _narrations(
    source: VideoSource,
    narrate: Narrate,
    reading: _Reading,
    batch_size: int,
    file_settings: dict[str, Any] | None,
    identity: str,
    progress: bool,
    read_ahead: int,
    limits: ReadLimits,
) -> Iterator[VideoNarration]:
    with ExitStack() as stack:
        video = _NamedFile(open_source(source, limits=limits, stack=stack), source_name(source))
        duration = _measure(video, limits)
        settings = {name: getattr(reading, name) for name in ("every", "clip_sec", "start", "end")}
        stretches = plan_windows(duration, **settings)
        file, num_done = None, 0
        if file_settings is not None:
            request = _request(source, video, reading, identity)
            file = NarrationFile(**file_settings, request=request, num_stretches=len(stretches), batch_size=batch_size)
            stack.enter_context(file)
            num_done = file.num_done
        bar = stack.enter_context(_progress_bar(len(stretches), num_done, shown=progress))
        num_empty = 0
        for narration in file.stored() if file is not None else ():
            num_empty += not (narration.text.strip() or narration.error)
            yield narration
        if num_done == len(stretches):
            file.finish()  # the run was stopped just before
        else:
            batches = _read_batches(video, stretches, reading, first=num_done, batch_size=batch_size, limits=limits)
            for batch in stack.enter_context(closing(_ReadAhead(batches, read_ahead))):
                narrations = _narrate_batch(batch, narrate)
                del batch  # not held while the next one is waited for
                num_done += len(narrations)
                if file is not None:
                    file.append(narrations)
                    if num_done == len(stretches):  # whether or not somebody asks for more
                        file.finish()
                bar.update(len(narrations))
                num_empty += sum(not (narration.text.strip() or narration.error) for narration in narrations)
                yield from narrations
    if num_empty:
        warnings.warn(f"{source_name(source)}: {num_empty} of {len(stretches)} narrations are empty", stacklevel=2)


# A stretch, its window and its clip, or why it could not be read.
_Item = tuple[Stretch, ClipWindow, Clip | VideoReadError]


def _narrate_batch(batch: list[_Item], narrate: Narrate) -> list[VideoNarration]:
    """Narrates the clips of a batch that could be read; warns of the others."""
    readable = [(window, clip) for _, window, clip in batch if isinstance(clip, Clip)]
    said = []
    if readable:
        spans = [(float(window.start), float(window.end)) for window, _ in readable]
        said = list(narrate([clip.frames for _, clip in readable], spans))
        if len(said) != len(readable):
            raise ValueError(f"narrate returned {len(said)} narrations for {len(readable)} clips")
    said = iter(said)
    narrations = []
    for stretch, _, clip in batch:
        times = float(stretch.start), float(stretch.end)
        if isinstance(clip, VideoReadError):
            warnings.warn(f"{clip}; it is not narrated", VideoReadWarning, stacklevel=4)
            narrations.append(VideoNarration(*times, "", None, clip.reason))
        else:
            narrations.append(VideoNarration(*times, *_check_said(next(said)), clip.message))
    return narrations


def _check_said(said: Any) -> tuple[str, float | None]:
    is_pair = isinstance(said, tuple | list) and len(said) == 2 and isinstance(said[0], str)
    if not (is_pair and (said[1] is None or isinstance(said[1], Real))):
        raise TypeError(f"narrate must return pairs of a text and a score, got {said!r}")
    text, score = said
    return text, None if score is None or not math.isfinite(score) else float(score)


def _progress_bar(total: int, done: int, *, shown: bool):
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="clip", desc="Narrating", disable=not shown)


# ---------------------------------------------------------------------------------------------------------- the video


class _NamedFile:
    """An open file under the name of what it was opened from."""

    def __init__(self, file: BinaryIO, name: str):
        self._file = file
        self.name = name

    def __getattr__(self, name):
        return getattr(self._file, name)


def _measure(file: _NamedFile, limits: ReadLimits) -> Fraction:
    """Seconds, exact, from the first displayed frame to the end of the last, as found in the file.

    Not as its header says, which may promise years.
    """
    with VideoFile(file, name=file.name, limits=limits) as video:
        end = video.find_end()
        if end <= video.origin:
            raise VideoReadError(file.name, "has no frames")
        if tail := video.missing_tail(end):
            warnings.warn(f"{file.name}: {tail}; what there is of it is narrated", VideoReadWarning, stacklevel=4)
        return Fraction(end - video.origin) * video.time_base


def _request(source: VideoSource, file: _NamedFile, reading: _Reading, identity: str) -> dict[str, Any]:
    """What decides the narrations, as the journal has it."""
    settings = {name: _as_json(value) for name, value in asdict(reading).items()}
    identity = {"identity": identity} if isinstance(identity, str) else dict(identity)
    return {"version": 1, **settings, "video": _recognize(source, file), **identity}


def _as_json(value: Any) -> Any:
    """The same for equal values, and exact."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Real):
        return float(value) if Fraction(float(value)) == Fraction(value) else str(Fraction(value))
    return value


def _recognize(source: VideoSource, file: _NamedFile) -> str | None:
    """What tells the video from another one; None where nothing does that is at hand."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"sha256 {hashlib.sha256(source).hexdigest()}"
    if isinstance(source, str | os.PathLike) and os.path.isfile(source):
        stat = os.fstat(file.fileno())
        return f"{stat.st_size} bytes, changed at {stat.st_mtime_ns} ns"
    return None


# ----------------------------------------------------------------------------------------------------- reading ahead


class _Stopped(Exception):
    """Nobody waits for the clips any more."""


def _read_batches(
    video: _NamedFile, stretches: list[Stretch], reading: _Reading, *, first: int, batch_size: int, limits: ReadLimits
) -> Callable[[threading.Event], Iterator[list[_Item]]]:
    """A function that reads the stretches from the `first` on, in their order, until the event that it is given."""

    def read(stop: threading.Event) -> Iterator[list[_Item]]:
        def on_frame(image):
            if stop.is_set():
                raise _Stopped
            return image if reading.size is None else resize_frames(image[None], reading.size, reading.resample)[0]

        windows = [reading.window(stretch) for stretch in stretches[first:]]
        clips = iter_clips(video, windows, transform=on_frame, limits=limits)
        # Clips are done roughly in order: those that are early wait here, for no longer than a run of windows.
        waiting, batch, index = {}, [], 0
        with closing(clips):
            for done, clip in clips:
                waiting[done] = clip
                del clip
                while index in waiting:
                    batch.append((stretches[first + index], windows[index], waiting.pop(index)))
                    index += 1
                    if len(batch) == batch_size:
                        yield batch
                        batch = []
        if batch:
            yield batch

    return read


class _ReadAhead:
    """
    What a function gives, made by a thread of its own that is so many items ahead.

    Args:
        make (`Callable`): called in the thread with an event; returns an iterator, which should end, or raise
            `_Stopped`, soon after the event is set. What else it raises is raised to who iterates.
        num_items (`int`): made and not asked for yet.
    """

    def __init__(self, make: Callable[[threading.Event], Iterator], num_items: int):
        self._make = make
        self._queue = queue.Queue(maxsize=num_items)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator:
        while True:
            kind, value = self._queue.get()
            if kind == "item":
                yield value
                del value
            elif kind == "error":
                raise value
            else:
                return

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._stop.set()
        # Makes room for the one item that it may be waiting to hand over; it looks at the event before the next.
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        self._thread.join()

    def _run(self) -> None:
        last = ("end", None)
        try:
            with closing(self._make(self._stop)) as items:
                for item in items:
                    if self._stop.is_set():
                        return
                    self._queue.put(("item", item))
                    del item
        except _Stopped:
            return
        except BaseException as error:  # whatever it is, who waits is to know
            last = ("error", error)
        if not self._stop.is_set():
            self._queue.put(last)


__all__ = ["Stretch", "VideoNarration", "narrate_video", "plan_windows"]
