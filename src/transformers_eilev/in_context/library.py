"""Narrated clips to learn from in a prompt: from a list of one's own, from a clip store, or given one by one."""

import csv
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.narrations import clean_narration_text
from ..processing_video_blip_2 import VIDEO_TOKEN
from ..video_processing_video_blip_2 import ClipSpan, is_clip
from ..video_reading import probe_video
from ..video_sources import ReadLimits, open_source, source_name


logger = logging.getLogger(__name__)

_REQUIRED = ("path", "narration")
_COLUMNS = (*_REQUIRED, "start", "end", "verb", "noun")
_NAMED_FAULTS = 10


@dataclass(frozen=True)
class Demonstration:
    """
    A narrated clip.

    Attributes:
        clip (`Any`): a path, or whatever else the video processor takes.
        narration (`str`): what is done in it, in one line.
        start, end (`float`, *optional*): seconds from the video's first frame; by default the processor's own.
        verb, noun (`str`, *optional*): the action, to choose demonstrations by.
        where (`str`, *optional*): what errors call it, such as "mine.csv:3". Demonstrations are compared without.
    """

    clip: Any
    narration: str
    start: float | None = None
    end: float | None = None
    verb: str = ""
    noun: str = ""
    where: str = field(default="", compare=False, repr=False)


def span_of(demonstration: Demonstration) -> Any:
    """A demonstration's clip, or the stretch of it that is narrated, as a [`ClipEncoder`] takes it."""
    if demonstration.start is None and demonstration.end is None:
        return demonstration.clip
    return ClipSpan(demonstration.clip, demonstration.start, demonstration.end)


def read_demonstrations(path: str | os.PathLike) -> list[Demonstration]:
    """
    Reads a list of narrated clips. No video is opened: see [`check_demonstrations`].

    Args:
        path (`str` or `os.PathLike`): of a `.csv` file with a header, or a `.jsonl` file with an object a line, in
            UTF-8. Columns: `path` (relative to the list's folder, absolute, or a URL), `narration`, and optionally
            `start`, `end` (seconds), `verb`, `noun`. Others are left aside, with a note in the log.

    Raises:
        FileNotFoundError: if there is no such list.
        ValueError: if it is no such list, has no row, or rows that can't be used: file, line, column and value of the
            first ten.
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: a list of demonstrations is a .csv or a .jsonl file")
    demonstrations, faults, unknown = [], [], {}
    try:
        for line, row in readers[path.suffix.lower()](path):
            unknown.update(dict.fromkeys(row.keys() - set(_COLUMNS)))
            where = f"{path}:{line}"
            try:
                demonstration = _parse(row, path.parent, where)
            except ValueError as error:
                faults.append(f"{where}: {error}")
                continue
            demonstrations.append(demonstration)
            faults += [f"{where}: {fault}" for fault in _faults_of(demonstration)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from None
    _raise(faults)
    if not demonstrations:
        raise ValueError(f"{path} has no demonstrations")
    if unknown:
        logger.info("%s: the columns %s are not used", path, ", ".join(sorted(unknown)))
    return demonstrations


def demonstrations_of(clips: Iterable[dict]) -> list[Demonstration]:
    """
    The narrated clips of a clip store, with their narrations cleaned as for training. Their frames are in memory: of
    a large store, take a part (`store.select(...)`).

    Args:
        clips (`Iterable[dict]`): rows with `frames`, `narration_text` and, as they have them, `structured_verb`,
            `structured_noun`, `frame_path`.

    Raises:
        ValueError: for a row without frames or narration, by its number and name.
    """
    demonstrations = []
    for number, row in enumerate(clips):
        where = f"row {number}" + (f" ({row['frame_path']})" if row.get("frame_path") else "")
        for name in ("frames", "narration_text"):
            if row.get(name) is None:
                raise ValueError(f"{where} has no `{name}`")
        demonstrations.append(
            Demonstration(
                row["frames"],
                clean_narration_text(row["narration_text"]),
                verb=row.get("structured_verb") or "",
                noun=row.get("structured_noun") or "",
                where=where,
            )
        )
    check_words(demonstrations)
    return demonstrations


def as_demonstrations(items: Iterable) -> list[Demonstration]:
    """
    Demonstrations as they are, and pairs of a clip and its narration as such.

    Raises:
        ValueError: for anything else, by its place.
    """
    if isinstance(items, Demonstration | str | bytes | dict):
        raise ValueError(f"Demonstrations must be a list, but are {items!r}")
    demonstrations = []
    for index, item in enumerate(items):
        if isinstance(item, Demonstration):
            demonstrations.append(item)
        elif isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], str):
            demonstrations.append(Demonstration(*item))
        else:
            raise ValueError(
                f"demonstrations[{index}] must be a Demonstration or a pair of a clip and its narration, but is a "
                f"{type(item).__name__}: {str(item)[:80]}"
            )
    return demonstrations


def check_demonstrations(demonstrations: Sequence[Demonstration]) -> None:
    """
    Looks over all that can be wrong with demonstrations, before any work is done: words, times, and whether each file
    is there and opens as a video. What is behind a URL, or in a file object, shows when it is read.

    Args:
        demonstrations (`Sequence[Demonstration]`): errors call each by its `where`, or else by its place.

    Raises:
        ValueError: which ones can't be used and why, the first ten by name.
    """
    faults, videos = [], {}
    for index, demonstration in enumerate(demonstrations):
        where = demonstration.where or f"demonstrations[{index}]"
        own = _faults_of(demonstration) or _video_faults(demonstration, videos)
        faults += [f"{where}: {fault}" for fault in own]
    _raise(faults)


def check_words(demonstrations: Sequence[Demonstration]) -> None:
    """
    Looks over narrations and times alone.

    Raises:
        ValueError: as [`check_demonstrations`].
    """
    _raise(
        [
            f"{own.where or f'demonstrations[{index}]'}: {fault}"
            for index, own in enumerate(demonstrations)
            for fault in _faults_of(own)
        ]
    )


def held(demonstration: Demonstration) -> Demonstration:
    """A demonstration whose clip is at hand: what is behind a URL or in a file object is read, once."""
    clip = demonstration.clip
    source = clip.source if isinstance(clip, ClipSpan) else clip
    if not (hasattr(source, "read") or (isinstance(source, str) and _is_url(source))):
        return demonstration
    with ExitStack() as stack:
        content = open_source(source, limits=ReadLimits(), stack=stack).read()
    return replace(demonstration, clip=replace(clip, source=content) if isinstance(clip, ClipSpan) else content)


# ------------------------------------------------------------------------------------------------------------ details


def _raise(faults: list[str]) -> None:
    if faults:
        more = len(faults) - _NAMED_FAULTS
        lines = faults[:_NAMED_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        raise ValueError("\n".join(lines))


def _faults_of(demonstration: Demonstration) -> list[str]:
    """What is wrong with the words and times of a demonstration."""
    faults = []
    narration, start, end = demonstration.narration, demonstration.start, demonstration.end
    if not isinstance(narration, str) or not any(letter.isalnum() for letter in narration):
        faults.append(f"`narration` has no words: {narration!r}")
    elif VIDEO_TOKEN in narration:
        faults.append(f"`narration` may not contain {VIDEO_TOKEN!r}, which stands for a clip: {narration!r}")
    elif len(narration.splitlines()) > 1:
        faults.append(f"`narration` must be one line: {narration!r}")
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            faults.append(f"`{name}` must be seconds from the video's beginning, but is {value}")
    if not faults and start is not None and end is not None and start >= end:
        faults.append(f"`start` must be before `end`, but they are {start} and {end}")
    return faults


def _video_faults(demonstration: Demonstration, videos: dict[str, Any]) -> list[str]:
    """What is wrong with its video; `videos` holds what is known of paths."""
    span = span_of(demonstration)
    source, start = (span.source, span.start) if isinstance(span, ClipSpan) else (span, None)
    if isinstance(source, ClipSpan):
        return ["`start` and `end` are given twice: here and in a ClipSpan"]
    if not is_clip(source):
        return [f"`clip` is no clip, but a {type(source).__name__}: {str(source)[:80]}"]
    if isinstance(source, str | os.PathLike):
        name = os.fsdecode(source)
        if _is_url(name):
            return []
        if name not in videos:
            videos[name] = _probe(source)
        info = videos[name]
    elif isinstance(source, bytes | bytearray):
        info = _probe(source)
    else:
        return []
    if isinstance(info, str):
        return [info]
    if start is not None and info.duration is not None and start >= info.duration:
        return [f"`start` is {start}, but {source_name(source)} lasts {info.duration:g} s"]
    return []


def _probe(source) -> Any:
    """A video's info, or why it can't be read."""
    try:
        return probe_video(source)
    except FileNotFoundError:
        return f"there is no file {source_name(source)}"
    except (OSError, ValueError) as error:
        return str(error)


def _is_url(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict]]:
    # Spreadsheets write a byte order mark and CRLF.
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = None
        line = 1
        try:
            for values in reader:
                if any(value.strip() for value in values):
                    if header is None:
                        header = _check_header([value.strip() for value in values], path)
                    elif len(values) > len(header):
                        raise ValueError(
                            f"{path}:{line}: {len(values)} values for {len(header)} columns; a value with a comma "
                            f"needs quotes: {values[-1]!r}"
                        )
                    else:
                        yield line, dict(zip(header, values))
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}:{line}: not CSV ({error})") from None


def _check_header(header: list[str], path: Path) -> list[str]:
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}: its header is {','.join(header)[:200]!r}")
    twice = sorted({name for name in header if name in _COLUMNS and header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column {', '.join(twice)}")
    return header


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}:{number}: no JSON ({error}): {line[:80]!r}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}:{number}: must be an object, but is {line[:80]!r}")
                yield number, row


def _parse(row: dict, folder: Path, where: str) -> Demonstration:
    words = {}
    for name in ("path", "narration", "verb", "noun"):
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"`{name}` must be a text, but is {value!r}")
        words[name] = (value or "").strip()
    path = words.pop("path")
    if not path:
        raise ValueError("`path` is empty")
    clip = path if _is_url(path) else os.fspath(folder / path)
    times = {name: _seconds(row.get(name), name) for name in ("start", "end")}
    return Demonstration(clip, **words, **times, where=where)


def _seconds(value: Any, name: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"`{name}` must be a number of seconds, but is {value!r}")


__all__ = ["Demonstration", "as_demonstrations", "check_demonstrations", "demonstrations_of", "read_demonstrations"]
