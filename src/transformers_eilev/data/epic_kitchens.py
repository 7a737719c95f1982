"""
EPIC-KITCHENS-100's annotations (`EPIC_100_train.csv`, `EPIC_100_validation.csv`), joined to the videos on disk.

The rows get what Ego4D's have: a time of narration, where it is missing the middle of the segment; a full sentence,
from a column of the file or by rule; the keys of the verb and noun classes as labels.
"""

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .actions import (
    ACTION_COLUMNS,
    ActionReport,
    InvalidActionError,
    NarratedAction,
    check_text,
    check_time,
    check_video_uid,
    shorten,
)
from .narrations import phrase_to_sentence


# The columns of EPIC-KITCHENS' actions and their Arrow types, in order.
EPIC_ACTION_COLUMNS = {
    **ACTION_COLUMNS,
    "narration_id": "string",
    "participant_id": "string",
    "narration": "string",
    "start_sec": "float64",
    "stop_sec": "float64",
    "verb_class": "int32",
    "noun_class": "int32",
}
ANNOTATION_FILES = ("EPIC_100_train.csv", "EPIC_100_validation.csv")
VERB_CLASSES_FILE = "EPIC_100_verb_classes.csv"
NOUN_CLASSES_FILE = "EPIC_100_noun_classes.csv"
VIDEO_INFO_FILE = "EPIC_100_video_info.csv"
SENTENCE_COLUMN = "full_sent_narration"

# Where a video may be under a folder: EPIC-KITCHENS-55's layout, which knows train and test, and EPIC-KITCHENS-100's,
# each also under the name that the official downloads give them, then folders of somebody's own.
VIDEO_LAYOUTS = (
    "{participant}/videos/{video}",
    "EPIC-KITCHENS/{participant}/videos/{video}",
    "videos/train/{participant}/{video}",
    "videos/test/{participant}/{video}",
    "EPIC_KITCHENS_2018/videos/train/{participant}/{video}",
    "EPIC_KITCHENS_2018/videos/test/{participant}/{video}",
    "{participant}/{video}",
    "videos/{participant}/{video}",
    "videos/{video}",
    "{video}",
)
VIDEO_EXTENSIONS = (".MP4", ".mp4")

_NEEDED = (
    "narration_id",
    "video_id",
    "narration_timestamp",
    "start_timestamp",
    "stop_timestamp",
    "narration",
    "verb",
    "verb_class",
    "noun",
    "noun_class",
)
_LIST_ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicKitchensAction(NarratedAction):
    """A narrated action of EPIC-KITCHENS: `narration_text` is a sentence, the labels are keys of classes.

    Attributes:
        narration_id (`str`), participant_id (`str`), narration (`str`): as annotated.
        start_sec, stop_sec (`float`): the action's segment, in seconds of the video.
        verb_class, noun_class (`int`): the numbers of the classes, -1 where there is none.

    Raises:
        InvalidActionError: a field that is none of this, or none of a [`NarratedAction`]'s, by name.
    """

    narration_id: str = ""
    participant_id: str = ""
    narration: str = ""
    start_sec: float = 0.0
    stop_sec: float = 0.0
    verb_class: int = -1
    noun_class: int = -1

    def __post_init__(self):
        NarratedAction.__post_init__(self)  # slots make another class of this one, which super() does not know
        for name in ("narration_id", "narration"):
            check_text(getattr(self, name), name)
        if self.participant_id != "":
            check_video_uid(self.participant_id, "participant_id")
        for name in ("start_sec", "stop_sec"):
            object.__setattr__(self, name, check_time(getattr(self, name), name))
        for name in ("verb_class", "noun_class"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or not -1 <= number < 2**31:
                raise InvalidActionError(f"{name} is not the number of a class", number)


@dataclass
class EpicKitchensReport(ActionReport):
    """What became of the lines of EPIC-KITCHENS' files, and of their videos.

    Attributes:
        num_videos (`int`): videos in the annotation files.
        missing_videos (`list[str]`): those that are not on disk.
    """

    num_videos: int = 0
    missing_videos: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report, a line each."""
        found = super().lines()
        found.append(f"videos: {self.num_videos - len(self.missing_videos):,} of {self.num_videos:,} on disk")
        if self.missing_videos:
            found.append(f"videos: not on disk: {len(self.missing_videos):,} (first: {self.missing_videos[0]})")
        return found


def parse_timestamp(timestamp: str) -> float:
    """Seconds of a timestamp such as "00:06:50.039".

    Raises:
        ValueError: it has not three parts, or they are no numbers. Unlike the original, which takes them: also if it
            is negative or not finite.
    """
    parts = timestamp.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"timestamp must be hours:minutes:seconds, got {shorten(timestamp)}") from None
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 <= min(hours, minutes, seconds) <= total < math.inf:
        raise ValueError(f"timestamp must be finite and not negative, got {shorten(timestamp)}")
    return total


def read_class_keys(path: str | os.PathLike) -> tuple[dict[int, str], set[str]]:
    """Reads `EPIC_100_verb_classes.csv` or `EPIC_100_noun_classes.csv`.

    Returns:
        `tuple[dict[int, str], set[str]]`: the classes' keys by number, and the first words of all their instances.

    Raises:
        ValueError: not such a file; it names the file, the line and the value.
    """
    keys, words = {}, set()
    for number, row in _rows(path, ("id", "key", "instances")):
        if row is None or None in row or not re.fullmatch(r"\d{1,6}", row["id"]) or not row["key"]:
            raise ValueError(f"{os.fspath(path)}, line {number}: not a class: {shorten(row and row.get('id'))}")
        keys[int(row["id"])] = row["key"]
        words.update(item.split("-")[0] for item in _list_of(row["instances"]))
    return keys, words


def _list_of(text: str | None) -> list[str]:
    """The items of a column such as "['knife', 'board:chopping']"."""
    return [single or double for single, double in _LIST_ITEM.findall(text or "")]


def _rows(path: str | os.PathLike, needed: Sequence[str]) -> Iterator[tuple[int, dict[str | None, Any] | None]]:
    """The lines of a CSV as dictionaries with their numbers, None for one that is no CSV.

    Bytes that are not UTF-8 come as surrogates, so that only the line they stand in is lost.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise ValueError(f"{os.fspath(path)}: not a CSV: {error}") from None
        missing = [name for name in needed if name not in header]
        if missing:
            raise ValueError(f"{os.fspath(path)}: no column {', '.join(missing)}, but {shorten(','.join(header))}")
        while True:
            number = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error:
                # A quote that is not closed takes the lines behind it along: each of them counts.
                yield from ((line, None) for line in range(number, reader.line_num + 1))
                continue
            if values is None:
                return
            if values:
                row = dict(zip(header, values))
                if len(values) != len(header):
                    row[None] = len(values)  # told apart from the right ones by `_checked_row`
                yield number, row


@dataclass(frozen=True, kw_only=True)
class _Classes:
    verbs: Mapping[int, str]
    nouns: Mapping[int, str]
    known_verbs: frozenset[str]


def find_epic_video(video_dirs: Sequence[str | os.PathLike], video_id: str) -> str:
    """The file of a video in one of `VIDEO_LAYOUTS` under one of some folders, "" if it is in none.

    Raises:
        InvalidActionError: a `video_id` that is not safe as a file name.
    """
    check_video_uid(video_id, "video_id")
    participant = video_id.split("_")[0]
    for folder in video_dirs:
        for layout in VIDEO_LAYOUTS:
            for extension in VIDEO_EXTENSIONS:
                relative = layout.format(participant=participant, video=video_id + extension)
                path = os.path.join(folder, *relative.split("/"))
                if os.path.isfile(path):
                    return path
    return ""


def iter_epic_kitchens_actions(
    annotation_files: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    video_dirs: Sequence[str | os.PathLike] = (),
    classes_dir: str | os.PathLike | None = None,
    video_info_file: str | os.PathLike | None = None,
    labels: str = "class",
    sentence_column: str | None = None,
    max_sec_outside: float | None = None,
    keep_missing_videos: bool = False,
    report: EpicKitchensReport | None = None,
) -> Iterator[EpicKitchensAction]:
    """EPIC-KITCHENS' narrated actions in the order of their files, one at a time.

    `clip_index` counts a video's lines, as in the original; one that is skipped keeps its number. A narration without
    a timestamp, or stamped after its video's end, is placed in the middle of its segment, and counted.

    Args:
        annotation_files: a CSV, several, or a folder with `EPIC_100_train.csv` and `EPIC_100_validation.csv`, of
            which one may be missing.
        video_dirs (`Sequence`): folders to look for videos in, see `VIDEO_LAYOUTS`.
        classes_dir (`str` or `os.PathLike`, *optional*): where `EPIC_100_verb_classes.csv` and
            `EPIC_100_noun_classes.csv` are, if not beside the (first) annotation file.
        video_info_file (`str` or `os.PathLike`, *optional*): `EPIC_100_video_info.csv`, which tells when videos end,
            if not beside the annotation file; without it none ends.
        labels (`str`): "class" for the classes' keys, "annotated" for the annotators' verb and noun, as the original.
        sentence_column (`str`, *optional*): the column with narrations as sentences; else `full_sent_narration` if
            there is one, and by rule if not, or where it is empty.
        max_sec_outside (`float`, *optional*): a narration stamped farther outside its segment than this is placed in
            the middle, too; 4 keeps every action within its clip of 8 s. The original has no such bound.
        keep_missing_videos (`bool`): keep actions whose video is not on disk, with an empty `video_path`.
        report (`EpicKitchensReport`, *optional*): where to count; complete when the iterator is at its end.

    Raises:
        FileNotFoundError: an annotation or class file that is not there, or no `video_dirs` although wanted.
        ValueError: an option that is none, or a file without the columns it should have.
    """
    if labels not in ("class", "annotated"):
        raise ValueError(f'labels must be "class" or "annotated", got {labels!r}')
    if max_sec_outside is not None and not max_sec_outside >= 0:
        raise ValueError(f"max_sec_outside must be a number from 0 on, got {max_sec_outside!r}")
    video_dirs = [video_dirs] if isinstance(video_dirs, str | os.PathLike) else list(video_dirs)
    for folder in video_dirs:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{os.fspath(folder)}: there is no such folder of videos")
    if not video_dirs and not keep_missing_videos:
        raise FileNotFoundError("video_dirs is empty; with keep_missing_videos the annotations are read alone")
    paths = _annotation_paths(annotation_files)
    beside = paths[0].parent
    reader = _Reader(
        paths=paths,
        video_dirs=video_dirs,
        classes=_read_classes(Path(classes_dir or beside), required=labels == "class"),
        ends=_read_ends(video_info_file, beside),
        labels=labels,
        sentence_column=sentence_column,
        max_sec_outside=math.inf if max_sec_outside is None else max_sec_outside,
        keep_missing_videos=keep_missing_videos,
        report=EpicKitchensReport() if report is None else report,
    )
    return reader.actions()


def read_epic_kitchens_actions(
    annotation_files: str | os.PathLike | Sequence[str | os.PathLike], **kwargs
) -> tuple[list[EpicKitchensAction], EpicKitchensReport]:
    """EPIC-KITCHENS' narrated actions, and what became of the others.

    Args:
        annotation_files: a CSV, several, or the folder of `EPIC_100_train.csv` and `EPIC_100_validation.csv`.
        kwargs: options of [`iter_epic_kitchens_actions`].

    Returns:
        `tuple[list[EpicKitchensAction], EpicKitchensReport]`: the actions in the order of their files; `report`, if
        it was given, or a new one.

    Raises:
        FileNotFoundError, ValueError: as `iter_epic_kitchens_actions`.
    """
    report = kwargs.pop("report", None) or EpicKitchensReport()
    return list(iter_epic_kitchens_actions(annotation_files, report=report, **kwargs)), report


def _annotation_paths(given: str | os.PathLike | Sequence[str | os.PathLike]) -> list[Path]:
    paths = [Path(given)] if isinstance(given, str | os.PathLike) else [Path(path) for path in given]
    found = []
    for path in paths:
        inside = [path / name for name in ANNOTATION_FILES if (path / name).is_file()] if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            wanted = "" if path.suffix else f", nor {' or '.join(ANNOTATION_FILES)} in it"
            raise FileNotFoundError(f"{path}: there is no such annotation file{wanted}")
        found += inside
    if not found:
        raise FileNotFoundError("annotation_files is empty")
    return found


def _read_classes(folder: Path, *, required: bool) -> _Classes:
    keys: list[dict[int, str]] = []
    known_verbs: set[str] = set()
    for name in (VERB_CLASSES_FILE, NOUN_CLASSES_FILE):
        path = folder / name
        if not path.is_file():
            if required:
                raise FileNotFoundError(f'{path}: there is no such file of classes; labels="annotated" needs none')
            keys.append({})
            continue
        found, words = read_class_keys(path)
        keys.append(found)
        if name == VERB_CLASSES_FILE:
            known_verbs = words
    return _Classes(verbs=keys[0], nouns=keys[1], known_verbs=frozenset(known_verbs))


def _read_ends(video_info_file: str | os.PathLike | None, beside: Path) -> dict[str, float]:
    path = beside / VIDEO_INFO_FILE if video_info_file is None else Path(video_info_file)
    if video_info_file is None and not path.is_file():
        return {}
    ends = {}
    for number, row in _rows(path, ("video_id", "duration")):
        try:
            ends[row["video_id"]] = check_time(float(row["duration"]), "duration")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: duration is no number of seconds: {error}") from None
    return ends


@dataclass
class _Reader:
    """One pass over annotation files."""

    paths: list[Path]
    video_dirs: list[str | os.PathLike]
    classes: _Classes
    ends: dict[str, float]
    labels: str
    sentence_column: str | None
    max_sec_outside: float
    keep_missing_videos: bool
    report: EpicKitchensReport
    next_index: dict[str, int] = field(default_factory=dict)
    videos: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def actions(self) -> Iterator[EpicKitchensAction]:
        self.report.source = ", ".join(map(str, self.paths))
        needed = _NEEDED if self.sentence_column is None else (*_NEEDED, self.sentence_column)
        for path in self.paths:
            for number, row in _rows(path, needed):
                self.report.total += 1
                where = f"{path.name} line {number}"
                try:
                    action = self._action(row, where)
                except InvalidActionError as error:
                    self.report.skip(error, where)
                    continue
                self.report.kept += 1
                yield action

    def _action(self, row: dict[str, Any] | None, where: str) -> EpicKitchensAction:
        row = _checked_row(row)
        uid = check_video_uid(row["video_id"], "video_id")
        clip_index = self.next_index.get(uid, 0)
        self.next_index[uid] = clip_index + 1
        for name in _NEEDED:
            check_text(row[name], name)
        if row["narration_id"] in self.seen:
            raise InvalidActionError("narration_id is there twice", row["narration_id"])
        start, stop = _seconds(row, "start_timestamp"), _seconds(row, "stop_timestamp")
        if stop < start:
            raise InvalidActionError("stop_timestamp is before start_timestamp", row["stop_timestamp"])
        action = EpicKitchensAction(
            video_uid=uid,
            clip_index=clip_index,
            narration_timestamp_sec=self._narration_sec(
                row, uid, start, stop, f"{where}, {shorten(row['narration_id'])}"
            ),
            narration_text=self._sentence(row),
            structured_verb=self._label(row, "verb", self.classes.verbs),
            structured_noun=self._label(row, "noun", self.classes.nouns),
            video_path=self._video_path(uid),
            narration_id=row["narration_id"],
            participant_id=row.get("participant_id") or uid.split("_")[0],
            narration=row["narration"],
            start_sec=start,
            stop_sec=stop,
            verb_class=_class_number(row, "verb_class"),
            noun_class=_class_number(row, "noun_class"),
        )
        self.seen.add(row["narration_id"])
        if not action.video_path and not self.keep_missing_videos:
            raise InvalidActionError("the video is not on disk")
        return action

    def _narration_sec(self, row: dict[str, Any], uid: str, start: float, stop: float, where: str) -> float:
        middle, end = (start + stop) / 2, self.ends.get(uid, math.inf)
        stamped = _seconds(row, "narration_timestamp") if row["narration_timestamp"] else None
        if stamped is None:
            fault = "narration_timestamp is missing"
        elif stamped > end:
            fault = "narration_timestamp is after the end of the video"
        elif not start - self.max_sec_outside <= stamped <= stop + self.max_sec_outside:
            fault = f"narration_timestamp is more than {self.max_sec_outside:g} s outside the segment"
        else:
            return stamped
        if middle > end:
            raise InvalidActionError("the segment is after the end of the video", row["start_timestamp"])
        self.report.repair(f"{fault}, the middle of the segment is taken", where)
        return middle

    def _sentence(self, row: dict[str, Any]) -> str:
        column = self.sentence_column or SENTENCE_COLUMN
        sentence = (row.get(column) or "").strip()
        if not sentence:
            nouns = _list_of(row.get("all_nouns")) or [row["noun"]] * bool(row["noun"])
            known_verbs = self.classes.known_verbs
            sentence = phrase_to_sentence(row["narration"], verb=row["verb"], nouns=nouns, known_verbs=known_verbs)
        if not sentence:
            raise InvalidActionError("narration is empty", row["narration_id"])
        return sentence

    def _label(self, row: dict[str, Any], name: str, keys: Mapping[int, str]) -> str:
        if self.labels == "annotated":
            return row[name]
        number = _class_number(row, f"{name}_class")
        if number not in keys:
            raise InvalidActionError(f"{name}_class is not among the classes", number)
        return keys[number]

    def _video_path(self, uid: str) -> str:
        if uid not in self.videos:
            self.videos[uid] = find_epic_video(self.video_dirs, uid)
            self.report.num_videos += 1
            if not self.videos[uid]:
                self.report.missing_videos.append(uid)
        return self.videos[uid]


def _checked_row(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise InvalidActionError("the line is not CSV, or torn")
    if None in row:
        raise InvalidActionError("the line has more or fewer fields than the header, or is torn", row[None])
    for name in ("all_nouns", "all_noun_classes"):
        # These come last: a file torn in the middle of a line may end in one of them.
        if row.get(name) and not (row[name].startswith("[") and row[name].endswith("]")):
            raise InvalidActionError(f"{name} is not a list, or the line is torn", row[name])
    return row


def _seconds(row: dict[str, Any], name: str) -> float:
    try:
        seconds = parse_timestamp(row[name])
    except ValueError:
        raise InvalidActionError(f"{name} is not hours:minutes:seconds", row[name]) from None
    return check_time(seconds, name)


def _class_number(row: dict[str, Any], name: str) -> int:
    if not re.fullmatch(r"\d{1,6}", row[name], flags=re.ASCII):
        raise InvalidActionError(f"{name} is not the number of a class", row[name])
    return int(row[name])
