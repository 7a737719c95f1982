"""The clips of one video, in one pass over it, and processes that do so for many videos."""

import hashlib
import json
import multiprocessing
import os
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..video_sources import ReadLimits, VideoReadError, VideoReadWarning
from .clip_format import ClipStoreWriter
from .files import write_json
from .windows import place_window


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """What decides a clip's content."""

    num_frames: int
    size: int
    clip_duration: float
    encoding: str
    row_group_size: int
    extra_columns: dict[str, str]
    limits: ReadLimits


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """The actions of one video, and where their clips go."""

    name: str  # of its files in `folder`
    folder: Path
    video_uid: str
    video_path: str
    rows: list[dict]

    @property
    def part(self) -> Path:
        return self.folder / f"{self.name}.parquet"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.failed.json"

    @property
    def digest(self) -> str:
        """Tells other rows from these."""
        rows = [{key: value for key, value in row.items() if key != "video_path"} for row in self.rows]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def extract_video(task: VideoTask, settings: ExtractionSettings, on_clip: Callable[[], None]) -> dict[str, Any]:
    """Writes the part file of one video, and after it the record that says that the video is done.

    Args:
        task, settings: what to do.
        on_clip (`Callable`): called after each action, whether it gave a clip or not.

    Returns:
        `dict`: the record as written (see `new_record`). What cannot be read is in it; nothing of that raises.

    Raises:
        OSError: the part or the record cannot be written.
    """
    record = new_record(task)
    windows = _windows(task, settings, record)
    with ClipStoreWriter(
        task.part,
        encoding=settings.encoding,
        extra_columns=settings.extra_columns,
        row_group_size=settings.row_group_size,
    ) as writer:
        todo = set(range(len(task.rows)))
        for index, clip in _clips(task, windows, settings, record):
            row = task.rows[index]
            if isinstance(clip, VideoReadError):
                record["failed"].append(_entry(row, clip.reason))
            else:
                writer.write(row, clip.frames, frame_sec=clip.frame_sec, status=clip.status)
                if clip.status == "partial":
                    record["partial"].append(_entry(row, clip.message))
            todo.discard(index)
            on_clip()
        record["failed"] += [_entry(task.rows[index], record["error"]) for index in sorted(todo)]
        for _ in todo:
            on_clip()
    record["num_clips"] = writer.num_clips
    if not writer.num_clips:
        task.part.unlink(missing_ok=True)
    write_json(task.record, record)
    return record


def new_record(task: VideoTask) -> dict[str, Any]:
    """What is known of a video before it is read.

    "failed" and "partial" will name each such clip with the reason, "moved" those whose narration is not within the
    video; "error" is what kept the file as a whole from being read to its end, and "retry" says that the reason may
    be gone another time (a disk that was not mounted, a worker that was killed).
    """
    return {
        "video_uid": task.video_uid,
        "video_path": task.video_path,
        "rows_sha256": task.digest,
        "num_actions": len(task.rows),
        "num_clips": 0,
        "error": "",
        "retry": False,
        "failed": [],
        "partial": [],
        "moved": [],
    }


def crashed_record(task: VideoTask, reason: str) -> dict[str, Any]:
    """The record of a video over which its worker died."""
    failed = [_entry(row, reason) for row in task.rows]
    return {**new_record(task), "error": reason, "retry": True, "failed": failed}


def _entry(row: dict, reason: str) -> dict[str, Any]:
    keys = ("frame_path", "clip_index", "narration_timestamp_sec")
    return {**{key: row[key] for key in keys}, "reason": reason}


def _windows(task: VideoTask, settings: ExtractionSettings, record: dict[str, Any]) -> list:
    """The windows of the actions; none if the file cannot be opened, which the record then says."""
    from ..video_reading import ClipWindow

    try:
        duration = measure_duration(task.video_path, limits=settings.limits)
        windows = []
        for row in task.rows:
            timestamp = row["narration_timestamp_sec"]
            start, end = place_window(timestamp, duration, Fraction(settings.clip_duration))
            if not 0 <= timestamp <= duration:
                reason = f"narrated at {timestamp!r} s of a video of {float(duration):.3f} s"
                record["moved"].append(_entry(row, reason))
            windows.append(ClipWindow(max(Fraction(0), start), end, settings.num_frames))
        return windows
    except Exception as error:
        _note_error(error, record)
        return []


def measure_duration(source: str, *, limits: ReadLimits) -> Fraction:
    """Seconds, exact, from the first displayed frame to the end of the last.

    As found in the file; but where the file was cut off, as its header promises, so that windows stay where they would
    be in the whole file, and those past the cut fail instead of showing something else.
    """
    from ..video_decoding import VideoFile
    from ..video_sources import open_source

    with ExitStack() as stack:
        file = open_source(source, limits=limits, stack=stack)
        video = stack.enter_context(VideoFile(file, name=source, limits=limits))
        end = video.find_end()
        if video.missing_tail(end):
            end = video.header_end
        if end <= video.origin:
            raise VideoReadError(source, "has no frames")
        return Fraction(end - video.origin) * video.time_base


def _clips(task: VideoTask, windows: list, settings: ExtractionSettings, record: dict[str, Any]) -> Iterator:
    """`iter_clips` of the video; ends early if the file fails as a whole, which the record then says."""
    from ..frame_resizing import resize_frames
    from ..video_reading import iter_clips

    if not windows:
        return

    def shrink(image):
        return resize_frames(image[None], (settings.size, settings.size))[0]

    clips = iter_clips(task.video_path, windows, transform=shrink, limits=settings.limits)
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VideoReadWarning)  # they are in the record
                index, clip = next(clips)
        except StopIteration:
            return
        except Exception as error:  # whatever a hostile file brings about: the other videos are not to be lost
            return _note_error(error, record)
        yield index, clip


def _note_error(error: Exception, record: dict[str, Any]) -> None:
    readable = isinstance(error, VideoReadError)
    record["error"] = error.reason if readable else f"{type(error).__name__}: {error}"
    record["retry"] = not readable


# ---------------------------------------------------------------------------------------------------------- processes


def run_tasks(
    tasks: list[VideoTask], settings: ExtractionSettings, *, num_workers: int, on_clip: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Extracts the videos, in `num_workers` processes or, with 0, in this one; yields their records as they are done.

    A worker that dies costs the video that it was at: its record says so, and another worker takes its place.

    Raises:
        OSError: clips cannot be written.
        RuntimeError: workers cannot be started, or one failed by a fault of its own.
    """
    if num_workers == 0:
        for task in tasks:
            yield extract_video(task, settings, on_clip)
        return
    waiting = deque(tasks)
    workers = [_Worker(settings) for _ in range(min(num_workers, len(tasks)))]
    try:
        while workers:
            by_connection = {worker.connection: worker for worker in workers}
            for connection in wait(list(by_connection)):
                worker = by_connection[connection]
                kind, value = worker.receive()
                if kind == "clip":
                    worker.num_clips += 1
                    on_clip()
                    continue
                if kind == "failed":
                    raise value
                if kind == "died":
                    workers.remove(worker)
                    if worker.task is None:
                        raise RuntimeError(
                            f"a worker process {value} before its first video; a script that extracts with workers "
                            'must call it below `if __name__ == "__main__":`'
                        )
                    record = crashed_record(worker.task, f"the worker process {value}")
                    write_json(worker.task.record, record)
                    for _ in range(len(worker.task.rows) - worker.num_clips):
                        on_clip()
                    yield record
                    if waiting:
                        workers.append(_Worker(settings))
                    continue
                if kind == "done":
                    yield value
                if waiting:
                    worker.start(waiting.popleft())
                else:
                    workers.remove(worker)
                    worker.stop()
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process that takes one video after the other."""

    def __init__(self, settings: ExtractionSettings):
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, settings, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        self.task: VideoTask | None = None
        self.num_clips = 0

    def start(self, task: VideoTask) -> None:
        self.task, self.num_clips = task, 0
        with suppress(ConnectionError):  # it died; `receive` will say so
            self.connection.send(task)

    def receive(self) -> tuple[str, Any]:
        """ "ready", "clip", "done" with a record, "failed" with an error, or "died" with what happened."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            return "died", f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def stop(self) -> None:
        self.connection.close()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.stop()


def become_worker() -> None:
    """Makes this process do with one core and little memory."""
    import pyarrow
    import torch

    torch.set_num_threads(1)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others keep what they were given once


def _work(connection: Connection, settings: ExtractionSettings, parent: int) -> None:
    become_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers

    def on_clip() -> None:
        if os.getppid() != parent:  # it was killed: another run may be at this video already
            os._exit(1)
        connection.send(("clip", None))

    try:
        connection.send(("ready", None))
        while True:
            task = connection.recv()
            connection.send(("done", extract_video(task, settings, on_clip)))
    except (EOFError, ConnectionError):
        return  # nothing more to do
    except OSError as error:
        connection.send(("failed", error))
    except BaseException:
        connection.send(("failed", RuntimeError(f"a worker process failed\n{traceback.format_exc()}")))
