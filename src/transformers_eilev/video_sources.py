"""Where videos come from: paths, URLs, bytes and file objects, each as a seekable file, within bounds."""

import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit


VideoSource = str | os.PathLike | bytes | BinaryIO

HTTP_TIMEOUT_SEC = 30.0


class VideoReadError(ValueError):
    """A video, or a stretch of it, that cannot be read.

    Attributes:
        source (`str`): the file, URL or kind of object that was read.
        reason (`str`): what is wrong with it.
        window (`ClipWindow`, *optional*): the clip asked for, when the failure is that clip's alone.
    """

    # `source` alone is a whole message: an error of a DataLoader's worker is built anew from its text.
    def __init__(self, source: str, reason: str = "", window: Any = None):
        super().__init__(source, reason, window)  # all of them, so that the error survives pickling
        self.source = source
        self.reason = reason
        self.window = window

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" if self.reason else self.source


class VideoReadWarning(UserWarning):
    """A clip was read, but some of its frames are missing from the file."""


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Bounds on what one video may cost. Beyond any of them reading ends in a `VideoReadError`.

    Raises:
        ValueError: a bound that is not a positive number, by name.
    """

    max_pixels: int = field(default=8192 * 8192, metadata={"help": "Width times height of a frame."})
    max_frames: int = field(default=8192, metadata={"help": "Frames in one clip."})
    max_clip_bytes: int = field(default=8 << 30, metadata={"help": "Bytes of one clip's frames, decoded."})
    max_source_bytes: int = field(default=8 << 30, metadata={"help": "Bytes copied from a URL or an unseekable file."})
    max_seconds: float = field(default=600.0, metadata={"help": "Seconds of work without a clip being finished."})

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} must be a positive number, got {value!r}")


def source_name(source: VideoSource) -> str:
    """What errors call `source`: its path or URL (without query, which may hold a signature), or its kind."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"<{len(source)} bytes>"
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        return urlunsplit(urlsplit(name)._replace(query="", fragment="")) if _url_scheme(name) else name
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<file object>"


def open_source(source: VideoSource, *, limits: ReadLimits, stack: ExitStack) -> BinaryIO:
    """`source` as a seekable binary file; what is opened here is closed with `stack`.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as `open` does, naming the path.
        VideoReadError: a URL of another scheme than http(s) or that fails, a device or pipe, too many bytes.
        TypeError: not a source at all.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        scheme = _url_scheme(name)
        if scheme in ("http", "https"):
            return _download(name, limits=limits, stack=stack)
        if scheme and ("://" in name or not os.path.lexists(name)):
            raise VideoReadError(source_name(source), f"the scheme {scheme!r} is not read, only files, http and https")
        # Opened here and not by FFmpeg, for which ':', '|' and '%' in a name have meanings of their own.
        if os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name):
            raise VideoReadError(name, "not a regular file")  # a pipe would wait, /dev/zero never end
        return stack.enter_context(open(name, "rb"))
    if isinstance(source, io.TextIOBase) or not hasattr(source, "read"):
        raise TypeError(f"a video is read from a path, a URL, bytes or a binary file, got {type(source).__name__}")
    seekable = getattr(source, "seekable", None)
    if hasattr(source, "seek") and (seekable is None or seekable()):
        return source
    chunks = iter(lambda: source.read(1 << 20), b"")
    return _spool(chunks, name=source_name(source), limits=limits, stack=stack)


def _url_scheme(name: str) -> str | None:
    # Two letters at least: one is a Windows drive.
    match = re.match(r"([A-Za-z][A-Za-z0-9+.,-]+):", name)
    return match.group(1).lower() if match else None


def _spool(chunks: Iterator[bytes], *, name: str, limits: ReadLimits, stack: ExitStack) -> BinaryIO:
    spooled = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=64 << 20))  # noqa: SIM115
    for chunk in chunks:
        spooled.write(chunk)
        if spooled.tell() > limits.max_source_bytes:
            raise VideoReadError(name, f"more than max_source_bytes={limits.max_source_bytes} bytes")
    spooled.seek(0)
    return spooled


def _download(url: str, *, limits: ReadLimits, stack: ExitStack) -> BinaryIO:
    from huggingface_hub.utils import get_session, httpx

    name = source_name(url)
    try:
        with get_session().stream("GET", url, follow_redirects=True, timeout=HTTP_TIMEOUT_SEC) as response:
            response.raise_for_status()
            size = response.headers.get("content-length", "")
            if size.isdigit() and int(size) > limits.max_source_bytes:
                raise VideoReadError(name, f"{size} bytes, more than max_source_bytes={limits.max_source_bytes}")
            return _spool(response.iter_bytes(1 << 20), name=name, limits=limits, stack=stack)
    except httpx.HTTPStatusError as error:
        raise VideoReadError(name, f"the server answered {error.response.status_code}") from error
    except (httpx.HTTPError, httpx.InvalidURL, ConnectionError) as error:
        raise VideoReadError(name, f"download failed: {type(error).__name__}: {error}") from error
