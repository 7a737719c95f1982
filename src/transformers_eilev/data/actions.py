"""
Narrated actions: the rows that Ego4D, EPIC-KITCHENS and the synthetic set have in common, and what makes one valid.

Annotation files are not to be trusted: their ids become names of files and folders, and their times become seeks.
`NarratedAction` refuses what it cannot vouch for, by the name of the field; readers skip such rows and count them in
an `ActionReport`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


# The columns of one narrated action and their Arrow types, in order.
ACTION_COLUMNS = {
    "video_uid": "string",
    "clip_index": "int32",
    "frame_path": "string",
    "narration_timestamp_sec": "float64",
    "narration_text": "string",
    "structured_verb": "string",
    "structured_noun": "string",
    "video_path": "string",
}

MAX_TEXT_LENGTH = 10_000
MAX_CLIP_INDEX = 2**31 - 1
# No single recording of either set comes near a week.
MAX_TIMESTAMP_SEC = 7 * 24 * 3600.0

# Safe as a file name, as a folder name and in front of the "|" of frame_path, on every system.
_VIDEO_UID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class InvalidActionError(ValueError):
    """An annotation that cannot be used.

    Attributes:
        reason (`str`): what is wrong, the same words for the same fault: what reports count by.
        value (`Any`): what was found, `...` where that says nothing.
    """

    def __init__(self, reason: str, value: Any = ...):
        super().__init__(reason, value)  # both, so that the error survives pickling
        self.reason = reason
        self.value = value

    def __str__(self) -> str:
        return self.reason if self.value is ... else f"{self.reason}, got {shorten(self.value)}"


def shorten(value: Any, length: int = 60) -> str:
    """`repr` of a value, cut to `length` characters: annotations may hold megabytes where a word is due."""
    if isinstance(value, str | bytes):
        value = value[:length]
    elif isinstance(value, int) and abs(value) >= 10**length:
        return "an integer of thousands of bits" if value.bit_length() > 1000 else f"{float(value):g}"
    elif isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= length else shown[: length - 3] + "..."


def required(record: Any, name: str, kinds: type | tuple[type, ...], what: str) -> Any:
    """`record[name]`, which must be there and be one of `kinds`; `what` says in words what was wanted.

    Raises:
        InvalidActionError: `record` is no mapping, has no such field, or holds something else there.
    """
    if not isinstance(record, Mapping):
        raise InvalidActionError("a record is not an object", record)
    if name not in record:
        raise InvalidActionError(f"{name} is missing", sorted(map(str, record))[:10])
    value = record[name]
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & {*kinds}):  # bool is an int
        raise InvalidActionError(f"{name} is not {what}", value)
    return value


def check_video_uid(value: Any, name: str = "video_uid") -> str:
    """`value` if it can be the name of a file: letters, digits, "_", "-" and "." after the first character.

    Raises:
        InvalidActionError: anything else: separators, "..", "|", control characters, nothing, too long, no text.
    """
    if not isinstance(value, str):
        raise InvalidActionError(f"{name} is not text", value)
    if not _VIDEO_UID.fullmatch(value) or value.endswith("."):
        raise InvalidActionError(f"{name} is not a safe file name", value)
    return value


def check_time(value: Any, name: str) -> float:
    """`value` as seconds from the start of a video: a number, finite, not negative, below a week.

    Raises:
        InvalidActionError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidActionError(f"{name} is not a number", value)
    if not -math.inf < value < math.inf:
        raise InvalidActionError(f"{name} is not finite", value)
    if value < 0:
        raise InvalidActionError(f"{name} is negative", value)
    if value > MAX_TIMESTAMP_SEC:
        raise InvalidActionError(f"{name} is more than a week", value)
    return float(value)


def check_text(value: Any, name: str) -> str:
    """`value` if it is text that UTF-8 and Arrow can hold, of at most `MAX_TEXT_LENGTH` characters.

    Raises:
        InvalidActionError: anything else.
    """
    if not isinstance(value, str):
        raise InvalidActionError(f"{name} is not text", value)
    if len(value) > MAX_TEXT_LENGTH:
        raise InvalidActionError(f"{name} is longer than {MAX_TEXT_LENGTH} characters", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidActionError(f"{name} is not valid Unicode", value) from None
    if "\0" in value:
        raise InvalidActionError(f"{name} holds a NUL character", value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class NarratedAction:
    """One narrated action of a video.

    Attributes:
        video_uid (`str`): the video, also the name of its file; safe as such.
        clip_index (`int`): its number among the valid actions of its video, counted as the original does, so that
            existing extractions and their file names stay right.
        narration_timestamp_sec (`float`): when it was narrated, seconds from the start of the video.
        narration_text (`str`): as annotated.
        structured_verb, structured_noun (`str`): its labels, "" where there is none.
        video_path (`str`): the file, "" where it is not on disk.

    Raises:
        InvalidActionError: a field that is none of this.
    """

    video_uid: str
    clip_index: int
    narration_timestamp_sec: float
    narration_text: str
    structured_verb: str = ""
    structured_noun: str = ""
    video_path: str = ""

    def __post_init__(self):
        check_video_uid(self.video_uid)
        index = self.clip_index
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= MAX_CLIP_INDEX:
            raise InvalidActionError("clip_index is not an integer from 0 on", index)
        # A frozen dataclass's own way to set what it has converted.
        seconds = check_time(self.narration_timestamp_sec, "narration_timestamp_sec")
        object.__setattr__(self, "narration_timestamp_sec", seconds)
        for name in ("narration_text", "structured_verb", "structured_noun", "video_path"):
            check_text(getattr(self, name), name)

    @property
    def frame_path(self) -> str:
        """The name of its folder of frames in the original's layout."""
        return f"{self.video_uid}|{self.clip_index}"

    def to_row(self) -> dict[str, Any]:
        """The row: `ACTION_COLUMNS` in order, then whatever a subclass adds."""
        row = {name: getattr(self, name) for name in ACTION_COLUMNS}
        row.update({item.name: getattr(self, item.name) for item in fields(self) if item.name not in row})
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "NarratedAction":
        """The action of a row of `to_row`, or of a line of a CSV such as the original's `narrated_actions.csv`, where
        every value is text, and labels and `video_path` may be missing.

        Raises:
            InvalidActionError: a field that is missing or wrong, or a `frame_path` that does not fit the rest.
        """
        values = {item.name: row[item.name] for item in fields(cls) if row.get(item.name) is not None}
        for name in ("video_uid", "clip_index", "narration_timestamp_sec", "narration_text"):
            required(row, name, object, "")
            if row[name] is None:  # what csv.DictReader gives for a torn line
                raise InvalidActionError(f"{name} is missing", dict(row).get("frame_path"))
        for item in fields(cls):
            if item.type in (int, float) and isinstance(values.get(item.name), str):
                values[item.name] = _parsed(values[item.name], item.type, item.name)
        action = cls(**values)
        if row.get("frame_path") not in (None, action.frame_path):
            raise InvalidActionError("frame_path is not video_uid|clip_index", row["frame_path"])
        return action


def _parsed(text: str, kind: type, name: str) -> int | float:
    if len(text) > 64 or not text.isascii() or "_" in text:
        raise InvalidActionError(f"{name} is not a number", text)
    try:
        return kind(text)
    except ValueError:
        raise InvalidActionError(f"{name} is not a number", text) from None


@dataclass
class Tally:
    """How often something was met, and where first."""

    count: int = 0
    first: str = ""

    def add(self, where: str, count: int = 1):
        """Counts it; `where` is kept the first time."""
        self.first = self.first or where
        self.count += count


@dataclass
class ActionReport:
    """What became of the rows of an annotation file. Printed, it says `kept N of M` and why the others are not there.

    Attributes:
        source (`str`): the file.
        total (`int`), kept (`int`): rows read, and rows handed on.
        filtered (`dict[str, Tally]`): rows that the set's own rules leave out, by rule.
        skipped (`dict[str, Tally]`): rows that are faulty or that nothing can be done with, by reason.
        repaired (`dict[str, Tally]`): rows kept with something set right, by what.
    """

    source: str = ""
    total: int = 0
    kept: int = 0
    filtered: dict[str, Tally] = field(default_factory=dict)
    skipped: dict[str, Tally] = field(default_factory=dict)
    repaired: dict[str, Tally] = field(default_factory=dict)

    def filter(self, rule: str, where: str):
        """Counts a row that a rule of the set leaves out."""
        self.filtered.setdefault(rule, Tally()).add(where)

    def skip(self, error: InvalidActionError, where: str, count: int = 1):
        """Counts rows that are left out because of `error`."""
        self.skipped.setdefault(error.reason, Tally()).add(where if error.value is ... else f"{where}: {error}", count)

    def repair(self, what: str, where: str):
        """Counts a row that is kept, but not as it was found."""
        self.repaired.setdefault(what, Tally()).add(where)

    def lines(self) -> list[str]:
        """The report, a line each."""
        found = [f"{self.source}: kept {self.kept:,} of {self.total:,} actions"]
        for title in ("filtered", "skipped", "repaired"):
            tallies = sorted(getattr(self, title).items(), key=lambda item: (-item[1].count, item[0]))
            found += [f"{title}: {reason}: {tally.count:,} (first: {tally.first})" for reason, tally in tallies]
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())
