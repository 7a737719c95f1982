"""Narrations of a video as subtitles and tables."""

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class VideoNarration:
    """
    What is said of one stretch of a video.

    Attributes:
        start, end (`float`): the stretch, in seconds from the video's first frame; `end` is no longer part of it. What
            was looked at is a window around its middle, which may be longer: see `plan_windows`.
        text (`str`): the narration; empty if there is none.
        score (`float`, *optional*): the mean log-likelihood of its tokens.
        error (`str`): why there is no narration, or what was missing from the frames that were narrated; else empty.
    """

    start: float
    end: float
    text: str
    score: float | None = None
    error: str = ""


COLUMNS = ("start", "end", "text", "score", "error")


def subtitle_format(path: str | Path, format: str | None = None) -> str:
    """
    The format to write `path` in: `format`, or what its suffix says.

    Raises:
        ValueError: if it is none of the known ones, which it names.
    """
    known = ", ".join(_FORMATS)
    if format is not None:
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {known}, got {format!r}")
        return format
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in _FORMATS:
        raise ValueError(f"{str(path)!r} must end with one of {', '.join(f'.{name}' for name in _FORMATS)}")
    return suffix


class SubtitleFormatter:
    """
    Turns one narration after the other into the text of a file.

    In a subtitle format a narration without text has no cue, its lines can't end the cue, and times are rounded to
    milliseconds. Tables keep everything as it is.

    Args:
        format (`str`): "srt", "vtt", "csv" or "jsonl".
    """

    def __init__(self, format: str):
        self.beginning, self._write = _FORMATS[format]
        self._num_cues = 0
        self._shows_cues = format in ("srt", "vtt")

    def add(self, narration: VideoNarration) -> str:
        """What `narration` adds to the file; empty for one without a cue."""
        if self._shows_cues:
            if not _lines(narration.text):
                return ""
            self._num_cues += 1
        return self._write(narration, self._num_cues)


def _srt(narration: VideoNarration, number: int) -> str:
    # There is no escape for an arrow, by which some readers know the line of a cue's times.
    text = "\n".join(_lines(narration.text)).replace("-->", "->")
    return f"{number}\n{_times(narration, ',')}\n{text}\n\n"


def _vtt(narration: VideoNarration, number: int) -> str:
    text = "\n".join(_lines(narration.text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_times(narration, '.')}\n{text}\n\n"


def _csv(narration: VideoNarration, number: int) -> str:
    return _csv_line([getattr(narration, column) for column in COLUMNS])


def _jsonl(narration: VideoNarration, number: int) -> str:
    return json.dumps(asdict(narration), ensure_ascii=False) + "\n"


def _csv_line(values) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _lines(text: str) -> list[str]:
    """Its lines, without empty ones and control characters."""
    lines = ("".join(" " if unicodedata.category(c) == "Cc" else c for c in line) for line in text.splitlines())
    return [line.strip() for line in lines if line.strip()]


def _times(narration: VideoNarration, point: str) -> str:
    start = round(narration.start * 1000)
    end = max(round(narration.end * 1000), start + 1)  # a cue of no length is none
    return f"{_clock(start, point)} --> {_clock(end, point)}"


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


# How a file begins, and what a narration adds.
_FORMATS: dict[str, tuple[str, Callable[[VideoNarration, int], str]]] = {
    "srt": ("", _srt),
    "vtt": ("WEBVTT\n\n", _vtt),
    "csv": (_csv_line(COLUMNS), _csv),
    "jsonl": ("", _jsonl),
}


__all__ = ["COLUMNS", "SubtitleFormatter", "VideoNarration", "subtitle_format"]
