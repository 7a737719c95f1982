"""
Ego4D's forecasting, hands and objects annotations (`fho_main.json`), read video by video and joined to the videos on
disk.

The file is hundreds of MB of JSON. A window of a few MB moves over it, so memory is bounded by the largest video's
annotations, whatever the file's size.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .actions import ActionReport, InvalidActionError, NarratedAction, check_time, check_video_uid, required, shorten
from .narrations import CAMERA_WEARER
from .splits import read_split_file


# Where a release keeps its videos, the best first.
VIDEO_KINDS = ("full_scale", "video_540ss")
ANNOTATION_FILE = "fho_main.json"

_VERSION = re.compile(r"v\d{1,4}(_\d{1,4})*")
_SPACE = re.compile(r"[ \t\r\n]*")
# A clip reaches so far to either side of its narration.
_HALF_CLIP_SEC = 4.0


@dataclass
class Ego4dReport(ActionReport):
    """What became of the actions of `fho_main.json`, and of its videos.

    Attributes:
        num_videos (`int`): videos in the annotation file, or of them those in the split file.
        missing_videos (`list[str]`): those that are not on disk.
        unknown_videos (`list[str]`): those that are in the split file and not in the annotation file.
        num_by_folder (`dict[str, int]`): videos found in each folder.
    """

    num_videos: int = 0
    missing_videos: list[str] = field(default_factory=list)
    unknown_videos: list[str] = field(default_factory=list)
    num_by_folder: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report, a line each."""
        found = super().lines()
        on_disk = self.num_videos - len(self.missing_videos)
        folders = "".join(f", {count:,} in {folder}" for folder, count in self.num_by_folder.items())
        found.append(f"videos: {on_disk:,} of {self.num_videos:,} on disk{folders}")
        for title, uids in (("not on disk", self.missing_videos), ("not annotated", self.unknown_videos)):
            if uids:
                found.append(f"videos: {title}: {len(uids):,} (first: {uids[0]})")
        return found


class _JsonWindow:
    """The text of a JSON file, a stretch at a time."""

    def __init__(self, path: str | os.PathLike, *, chunk_chars: int, max_value_chars: int):
        self._name = os.fspath(path)
        self._file = open(path, encoding="utf-8-sig")  # noqa: SIM115
        self._chunk_chars = chunk_chars
        self._max_value_chars = max_value_chars
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._passed, self._ended = "", 0, 0, False

    def close(self):
        self._file.close()

    def error(self, what: str) -> ValueError:
        return ValueError(f"{self._name}: {what} at character {self._passed + self._at:,}")

    def _more(self) -> bool:
        """Reads on, as much again as is there unread; False at the end of the file."""
        unread = len(self._text) - self._at
        if unread > self._max_value_chars:
            raise self.error(f"a value of more than {self._max_value_chars:,} characters")
        try:
            chunk = self._file.read(max(self._chunk_chars, unread))
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._name}: not UTF-8: {error}") from None
        self._text, self._passed, self._at = self._text[self._at :] + chunk, self._passed + self._at, 0
        self._ended = not chunk
        return not self._ended

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> str:
        """Passes the next character, which must be one of `wanted`, and returns it."""
        found = self.peek()
        if not found:
            raise self.error("the file ends early, it is not complete")
        if found not in wanted:
            raise self.error(f"{' or '.join(map(repr, wanted))} expected, {found!r} found")
        self._at += 1
        return found

    def value(self) -> Any:
        """Parses the next value and passes it."""
        if not self.peek():
            raise self.error("the file ends early, it is not complete")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unterminated = error.msg.startswith("Unterminated")
                # Near the end of the window it may be cut off, elsewhere it is wrong.
                if not self._ended and (unterminated or error.pos >= len(self._text) - 64):
                    self._more()
                    continue
                if unterminated or error.pos >= len(self._text.rstrip()):
                    raise self.error("the file ends early, it is not complete: in the value") from None
                self._at = error.pos
                raise self.error(error.msg) from None
            except (ValueError, RecursionError) as error:  # integers of thousands of digits, thousands of brackets
                raise self.error(f"{type(error).__name__}: {shorten(str(error))}, in the value") from None
            if not self._ended and len(self._text) - end < 8:
                self._more()  # a number may go on: "1", "1.", "1.5e", "1.5e+"
                continue
            self._at = end
            return value


def stream_json_array(
    path: str | os.PathLike, key: str, *, chunk_chars: int = 4 << 20, max_value_chars: int = 1 << 28
) -> Iterator[Any]:
    """The elements of the array `key` of the object that a JSON file holds, one after the other.

    Args:
        path (`str` or `os.PathLike`): the file, UTF-8.
        key (`str`): the array's name in the outermost object; the other names are passed over.
        chunk_chars (`int`): characters read at a time.
        max_value_chars (`int`): characters of one element, at most.

    Raises:
        ValueError: not UTF-8, not JSON, incomplete, no such array; it names the file and the place.
    """
    window = _JsonWindow(path, chunk_chars=chunk_chars, max_value_chars=max_value_chars)
    try:
        found, closing = False, window.take("{")
        while closing != "}":
            if window.peek() == "}" and closing == "{":
                break
            name = window.value()
            window.take(":")
            if name != key:
                window.value()
            else:
                found = True
                yield from _elements(window)
            closing = window.take(",}")
        if not found:
            raise ValueError(f"{os.fspath(path)}: {key} is missing, there is no such array in it")
    finally:
        window.close()


def _elements(window: _JsonWindow) -> Iterator[Any]:
    window.take("[")
    if window.peek() == "]":
        window.take("]")
        return
    closing = ","
    while closing == ",":
        yield window.value()
        closing = window.take(",]")


def filter_rule(action: Any) -> str | None:
    """Why the original leaves out an action, or None if it uses it: it must not be rejected, must be valid, and its
    narration must begin "#C C".

    Raises:
        InvalidActionError: a field that this takes is missing or of the wrong type.
    """
    if required(action, "is_rejected", (bool, int, type(None)), "true or false"):
        return "rejected"
    if not required(action, "is_valid_action", (bool, int, type(None)), "true or false"):
        return "no valid action"
    if not CAMERA_WEARER.match(required(action, "narration_text", str, "text")):
        return "not about the camera wearer"
    return None


def find_structured_noun(action: Any) -> str:
    """The object of an action as the original finds it: the first object of change with a structured noun in a
    `pnr_frame`, "" if there is none.

    Raises:
        InvalidActionError: a field that this takes is missing or of the wrong type.
    """
    for frame in required(action, "frames", (list, type(None)), "a list") or []:
        if required(frame, "frame_type", (str, type(None)), "text") != "pnr_frame":
            continue
        for box in required(frame, "boxes", list, "a list"):
            if required(box, "object_type", (str, type(None)), "text") == "object_of_change":
                noun = required(box, "structured_noun", (str, type(None)), "text")
                if noun is not None:
                    return noun
    return ""


@dataclass(frozen=True, kw_only=True)
class Ego4dFiles:
    """Where a download of Ego4D keeps what is read here.

    Attributes:
        annotation_file (`Path`, *optional*): its `fho_main.json`, None if there is none.
        video_dirs (`tuple[Path, ...]`): folders of `<video_uid>.mp4`, the one to prefer first.
    """

    annotation_file: Path | None
    video_dirs: tuple[Path, ...]


def find_ego4d_files(
    data_dir: str | os.PathLike, *, version: str | None = None, video_kind: str | None = None
) -> Ego4dFiles:
    """Finds annotations and videos under the folder that `ego4d -o` was given, or under one of its `v2` or `v2_1`.

    Args:
        data_dir (`str` or `os.PathLike`): the folder.
        version (`str`, *optional*): the release, such as "v2_1"; else the newest that has annotations, and the videos
            of all, the newest first.
        video_kind (`str`, *optional*): "full_scale" or "video_540ss"; else both, "full_scale" first.

    Raises:
        FileNotFoundError: there is no such folder, or no such release in it.
        ValueError: a `video_kind` that is neither.
    """
    root = Path(data_dir)
    if video_kind is not None and video_kind not in VIDEO_KINDS:
        raise ValueError(f"video_kind must be one of {', '.join(VIDEO_KINDS)}, got {video_kind!r}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder of Ego4D")
    names = [name for name in os.listdir(root) if _VERSION.fullmatch(name) and (root / name).is_dir()]
    names.sort(key=lambda name: [int(part) for part in name[1:].split("_")], reverse=True)
    if version is not None and version not in names and root.name != version:
        raise FileNotFoundError(f"{root}: there is no release {version}, but {', '.join(names) or 'none'}")
    bases = [root / version] if version in names else [root, *(root / name for name in names)]
    annotation_files = [base / folder / ANNOTATION_FILE for base in bases for folder in ("annotations", "")]
    return Ego4dFiles(
        annotation_file=next((path for path in annotation_files if path.is_file()), None),
        video_dirs=tuple(
            base / kind
            for kind in VIDEO_KINDS
            for base in bases
            if video_kind in (None, kind) and (base / kind).is_dir()
        ),
    )


def find_videos(video_dirs: Sequence[str | os.PathLike]) -> dict[str, str]:
    """The video files in some folders by uid; a folder goes before those after it.

    Each folder is listed once: to ask a network drive for thousands of files one by one takes minutes.
    """
    found: dict[str, str] = {}
    for folder in video_dirs:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                uid, extension = os.path.splitext(entry.name)
                if extension.lower() == ".mp4" and entry.is_file():
                    found.setdefault(uid, os.path.join(folder, entry.name))
    return found


def iter_ego4d_actions(
    data_dir: str | os.PathLike | None = None,
    *,
    annotation_file: str | os.PathLike | None = None,
    video_dirs: Sequence[str | os.PathLike] | None = None,
    version: str | None = None,
    video_kind: str | None = None,
    split_file: str | os.PathLike | None = None,
    keep_missing_videos: bool = False,
    report: Ego4dReport | None = None,
) -> Iterator[NarratedAction]:
    """The narrated actions that the original uses, in the order of the annotation file, one at a time.

    Rows that cannot be used are skipped by name and counted in `report`. As in the original, `clip_index` counts the
    actions of a video that pass its filter; one that is then skipped keeps its number. Unlike the original, of a video
    or an action that is there twice only the first is used.

    Args:
        data_dir (`str` or `os.PathLike`, *optional*): the folder of the download, see `find_ego4d_files`.
        annotation_file (`str` or `os.PathLike`, *optional*): `fho_main.json`, if it is elsewhere.
        video_dirs (`Sequence`, *optional*): folders of videos, if they are elsewhere, the one to prefer first.
        version, video_kind (`str`, *optional*): as in `find_ego4d_files`.
        split_file (`str` or `os.PathLike`, *optional*): the original's `fho_main_train.json` or another such file;
            only its videos are read.
        keep_missing_videos (`bool`): keep actions whose video is not on disk, with an empty `video_path`.
        report (`Ego4dReport`, *optional*): where to count; complete when the iterator is at its end.

    Raises:
        FileNotFoundError: no annotation file or no folder of videos.
        ValueError: an annotation or split file that is no such file; it names the file and the place.
    """
    files = Ego4dFiles(annotation_file=None, video_dirs=())
    if data_dir is not None:
        files = find_ego4d_files(data_dir, version=version, video_kind=video_kind)
    annotation_file = annotation_file or files.annotation_file
    if annotation_file is None:
        raise FileNotFoundError(f"{data_dir}: there is no {ANNOTATION_FILE} in it, nor in its annotations/")
    if isinstance(video_dirs, str | os.PathLike):
        video_dirs = [video_dirs]
    video_dirs = list(files.video_dirs if video_dirs is None else video_dirs)
    if not video_dirs and not keep_missing_videos:
        raise FileNotFoundError(
            f"{data_dir}: there is no folder {' or '.join(VIDEO_KINDS)} of videos in it; "
            "with keep_missing_videos the annotations are read alone"
        )
    if not os.path.isfile(annotation_file):
        raise FileNotFoundError(f"{os.fspath(annotation_file)}: there is no such annotation file")
    reader = _Reader(
        annotation_file=os.fspath(annotation_file),
        videos=find_videos(video_dirs),
        wanted=None if split_file is None else set(read_split_file(split_file)[1]),
        keep_missing_videos=keep_missing_videos,
        report=Ego4dReport() if report is None else report,
    )
    return reader.actions()


def read_ego4d_actions(
    data_dir: str | os.PathLike | None = None, **kwargs
) -> tuple[list[NarratedAction], Ego4dReport]:
    """The narrated actions that the original uses, and what became of the others.

    Args:
        data_dir (`str` or `os.PathLike`, *optional*): the folder of the download.
        kwargs: options of [`iter_ego4d_actions`].

    Returns:
        `tuple[list[NarratedAction], Ego4dReport]`: the actions in the order of the annotation file; `report`, if it
        was given, or a new one.

    Raises:
        FileNotFoundError, ValueError: as `iter_ego4d_actions`.
    """
    report = kwargs.pop("report", None) or Ego4dReport()
    return list(iter_ego4d_actions(data_dir, report=report, **kwargs)), report


@dataclass
class _Reader:
    """One pass over an annotation file."""

    annotation_file: str
    videos: dict[str, str]
    wanted: set[str] | None
    keep_missing_videos: bool
    report: Ego4dReport
    seen_videos: set[str] = field(default_factory=set)
    seen_actions: set[str] = field(default_factory=set)

    def actions(self) -> Iterator[NarratedAction]:
        self.report.source = self.annotation_file
        for number, video in enumerate(stream_json_array(self.annotation_file, "videos")):
            try:
                uid = check_video_uid(required(video, "video_uid", object, ""))
            except InvalidActionError as error:
                self._skip_video(error, f"videos[{number}]", video)
                continue
            if self.wanted is not None and uid not in self.wanted:
                continue
            if uid in self.seen_videos:
                self._skip_video(InvalidActionError("video_uid is there twice"), uid, video)
                continue
            self.seen_videos.add(uid)
            self._count_video(uid)
            yield from self._actions_of(video, uid)
        self.report.unknown_videos = sorted((self.wanted or set()) - self.seen_videos)

    def _skip_video(self, error: InvalidActionError, where: str, video: Any):
        """Counts what a video that cannot be used holds, as far as it can be told, and at least one."""
        count = 0
        for interval in video.get("annotated_intervals") or [] if isinstance(video, dict) else []:
            actions = interval.get("narrated_actions") if isinstance(interval, dict) else None
            count += len(actions) if isinstance(actions, list) else 0
        self.report.total += max(count, 1)
        self.report.skip(error, where, max(count, 1))

    def _count_video(self, uid: str):
        self.report.num_videos += 1
        if uid in self.videos:
            folder = os.path.dirname(self.videos[uid])
            self.report.num_by_folder[folder] = self.report.num_by_folder.get(folder, 0) + 1
        else:
            self.report.missing_videos.append(uid)

    def _actions_of(self, video: dict, uid: str) -> Iterator[NarratedAction]:
        end_sec, clip_index = _end_sec(video), 0
        for where, record in self._records_of(video, uid):
            self.report.total += 1
            try:
                rule = filter_rule(record)
                if rule:
                    self.report.filter(rule, where)
                    continue
                clip_index += 1
                action = self._action(record, uid, clip_index - 1, end_sec)
            except InvalidActionError as error:
                self.report.skip(error, where)
                continue
            self.report.kept += 1
            yield action

    def _records_of(self, video: dict, uid: str) -> Iterator[tuple[str, Any]]:
        """The action records of all intervals, and where each stands."""
        try:
            intervals = required(video, "annotated_intervals", list, "a list")
        except InvalidActionError as error:
            self._skip_video(error, uid, None)
            return
        for number, interval in enumerate(intervals):
            where = f"{uid} annotated_intervals[{number}]"
            try:
                records = required(interval, "narrated_actions", list, "a list")
            except InvalidActionError as error:
                self._skip_video(error, where, None)
                continue
            for index, record in enumerate(records):
                yield f"{where} narrated_actions[{index}]", record

    def _action(self, record: dict, uid: str, clip_index: int, end_sec: float) -> NarratedAction:
        timestamp = check_time(required(record, "narration_timestamp_sec", object, ""), "narration_timestamp_sec")
        if timestamp > end_sec + _HALF_CLIP_SEC:
            raise InvalidActionError("narration_timestamp_sec is after the end of the video", timestamp)
        action = NarratedAction(
            video_uid=uid,
            clip_index=clip_index,
            narration_timestamp_sec=timestamp,
            narration_text=record["narration_text"],
            structured_verb=required(record, "structured_verb", (str, type(None)), "text") or "",
            structured_noun=find_structured_noun(record),
            video_path=self.videos.get(uid, ""),
        )
        action_uid = record.get("uid")
        if isinstance(action_uid, str):
            if action_uid in self.seen_actions:
                raise InvalidActionError("uid is there twice", action_uid)
            self.seen_actions.add(action_uid)
        if not action.video_path and not self.keep_missing_videos:
            raise InvalidActionError("the video is not on disk")
        return action


def _end_sec(video: dict) -> float:
    """When a video ends: the latest of what its metadata says, as container and stream may differ; else never."""
    metadata = video.get("video_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    found = [metadata.get(name) for name in ("duration_sec", "video_duration_sec", "mp4_duration_sec")]
    seconds = [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
    return max((value for value in seconds if 0 < value < math.inf), default=math.inf)
