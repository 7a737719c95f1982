"""The file that narrations are written to, and the journal by which a run that was stopped goes on."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ..data.files import sync_folder
from .subtitles import SubtitleFormatter, VideoNarration


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class NarrationFile:
    """
    Narrations on their way to a file.

    Each batch is on disk in a journal beside the file, `<name>.partial.jsonl`, before it is written to the file
    itself. The journal's first line says what was asked for; whoever asks for the same later goes on behind its last
    whole batch. It is gone when the file is complete, and while it is there, one process holds it locked.

    Args:
        path (`Path`): the file.
        format (`str`): of [`SubtitleFormatter`].
        request (`dict`): what decides the narrations, as JSON has it; its value for "video" is None if it can't be
            told whether the video is the same another time.
        num_stretches, batch_size (`int`): how many narrations there will be, and how many at a time.
        overwrite (`bool`): write over a file that is there, and start anew where a journal is of another request.

    Attributes:
        num_done (`int`): narrations that the journal has; the rest are to be given to `append`.

    Raises:
        FileExistsError: the file is there and no journal of it.
        ValueError: the journal is of another request; names what differs.
        BlockingIOError: another process is writing the file.
        OSError: it can't be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str,
        request: dict[str, Any],
        num_stretches: int,
        batch_size: int,
        overwrite: bool = False,
    ):
        self.path = path
        self.journal_path = journal_path(path)
        self._formatter = SubtitleFormatter(format)
        self._output = None
        self._journal = _open_locked(self.journal_path, path)
        try:
            with self._telling_where():
                self._start(request, overwrite)
                self.num_done = self._count_done(num_stretches, batch_size)
                self._output = open(path, "wb")  # noqa: SIM115
                self._output.write(self._formatter.beginning.encode())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "NarrationFile":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def stored(self) -> Iterator[VideoNarration]:
        """The narrations of earlier runs, written to the file anew. To be used up before `append`."""
        self._journal.seek(0)
        self._journal.readline()
        for _ in range(self.num_done):
            narration = VideoNarration(**json.loads(self._journal.readline()))
            with self._telling_where():
                self._output.write(self._encode(narration))
            yield narration
        self._journal.seek(0, os.SEEK_END)

    def append(self, narrations: Sequence[VideoNarration]) -> None:
        """Writes one batch."""
        with self._telling_where():
            lines = [json.dumps(asdict(narration)) + "\n" for narration in narrations]
            self._journal.write("".join(lines).encode())
            _sync(self._journal)
            self._output.write(b"".join(map(self._encode, narrations)))
            self._output.flush()

    def finish(self) -> None:
        """Ends the file, with which the journal goes."""
        with self._telling_where():
            _sync(self._output)
            sync_folder(self.path.parent)
            if fcntl is None:  # Windows removes no open file
                self._journal.close()
            self.journal_path.unlink()
            sync_folder(self.path.parent)

    def close(self) -> None:
        for file in (self._output, self._journal):
            if file is not None:
                with suppress(OSError):  # of what could not be written before; that has been told
                    file.close()

    def _encode(self, narration: VideoNarration) -> bytes:
        return self._formatter.add(narration).encode("utf-8", "replace")

    def _start(self, request: dict[str, Any], overwrite: bool) -> None:
        """Settles whether the journal is continued; if not, begins it."""
        before = _parse(self._journal.readline())
        if before is not None:
            differences = _differences(before, request)
            if not differences:
                return
            has_narrations = _parse(self._journal.readline()) is not None
            if has_narrations and not overwrite:
                raise ValueError(
                    f"{self.journal_path} is of another run, which differs in {'; '.join(differences)}: remove it, or "
                    "overwrite, to start anew"
                )
        elif self.path.exists() and not overwrite:
            self.journal_path.unlink()  # nothing was in it
            raise FileExistsError(f"{self.path} is there already: overwrite it, or give another name")
        self._journal.seek(0)
        self._journal.truncate()
        self._journal.write((json.dumps(request) + "\n").encode())
        _sync(self._journal)
        sync_folder(self.path.parent)

    def _count_done(self, num_stretches: int, batch_size: int) -> int:
        """How many narrations are kept; cuts off what comes after them: a torn line, a batch that is not whole.

        Whole batches only, so that those to come consist of the same clips as in a run that was not stopped: in
        another company a model may say something else.
        """
        self._journal.seek(0)
        self._journal.readline()
        num_done, ends = 0, {0: self._journal.tell()}
        while num_done < num_stretches and _parse(self._journal.readline()) is not None:
            num_done += 1
            ends[num_done] = self._journal.tell()
        if num_done < num_stretches:
            num_done -= num_done % batch_size
        self._journal.seek(ends[num_done])
        self._journal.truncate()
        return num_done

    @contextmanager
    def _telling_where(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno is None or error.filename is not None:  # it says so itself
                raise
            message = f"{error.strerror}, writing {self.path}; what is done is in {self.journal_path}, to go on from"
            raise OSError(error.errno, message) from error


def journal_path(path: Path) -> Path:
    """Where the journal of the file `path` lies."""
    return path.with_name(f"{path.name}.partial.jsonl")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raises what is known to go wrong with writing `path` before anything is done."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to write {path.name!r} to")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if path.exists() and not overwrite and not journal_path(path).exists():
        raise FileExistsError(f"{path} is there already: overwrite it, or give another name")


def _open_locked(path: Path, output: Path) -> BinaryIO:
    """The journal, opened for reading and writing and locked, at its beginning."""
    while True:
        file = open(path, "a+b")  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise BlockingIOError(error.errno, f"{output} is being written by another process") from error
        except BaseException:
            file.close()
            raise
        # Whoever held it may have removed it since it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                file.seek(0)
                return file
        file.close()


def _parse(line: bytes) -> dict | None:
    """A line of the journal, None if it is torn or missing."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    if now["video"] is None:
        return ["the video, which can't be recognized unless it is a file or its bytes"]
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [f"{name} ({before.get(name)!r}, now {now.get(name)!r})" for name in names]


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


__all__ = ["NarrationFile", "check_output", "journal_path"]
