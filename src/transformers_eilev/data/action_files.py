"""Narrated actions out of whatever holds them, and CSV files of them, which trainings and evaluations take."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .actions import ACTION_COLUMNS
from .files import write_text


SOURCES = ("clips", "csv", "ego4d", "epic-kitchens")
# Without these a row can't be told from another, or has nothing to say.
_REQUIRED = ("frame_path", "narration_text", "structured_verb", "structured_noun")


def read_actions(
    path: str | os.PathLike,
    *,
    source: str,
    split: str | None = None,
    video_dirs: Sequence[str] | None = None,
    keep_missing_videos: bool = False,
) -> list[dict[str, Any]]:
    """
    Reads narrated actions.

    Args:
        path (`str`): of a clip store or the original's folders of frames, of a CSV, or of a data set's folder.
        source (`str`): which of these: "clips", "csv", "ego4d" or "epic-kitchens".
        split (`str`, *optional*): by default "train" of a clip store, and all of a data set. A CSV has none.
        video_dirs (`Sequence[str]`, *optional*): of a data set whose videos are elsewhere.
        keep_missing_videos (`bool`, defaults to `False`): of a data set: whether actions whose video is not on disk
            are wanted.

    Returns:
        `list[dict]`: rows of `ACTION_COLUMNS`, as far as there are, and of the source's own columns; no frames.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another source, options that it does not have, a CSV that lacks a column or has a row of another
            length, with file, line and column.

    Warns:
        UserWarning: of clips without frames or narration, which are left out.
    """
    if source not in SOURCES:
        raise ValueError(f"`source` must be one of {SOURCES}, but is {source!r}")
    if source == "csv" and split is not None:
        raise ValueError(f"A CSV such as {path} has no splits, but `split` is {split!r}")
    if source in ("csv", "clips") and (video_dirs or keep_missing_videos):
        raise ValueError("`video_dirs` and `keep_missing_videos` are for the source ego4d or epic-kitchens alone")
    if source == "csv":
        return read_csv(Path(path), _REQUIRED)
    if source == "clips":
        from .narrated_clips import load_narrated_clips

        return load_narrated_clips(path, split=split or "train", skip_missing=True, with_frames=False).to_list()
    from .builders import load_ego4d, load_epic_kitchens

    load = load_ego4d if source == "ego4d" else load_epic_kitchens
    options = {"video_dirs": video_dirs or None, "keep_missing_videos": keep_missing_videos}
    return load(path, split=split or "all", **options).to_list()


def write_actions_csv(
    path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = tuple(ACTION_COLUMNS)
) -> Path:
    """
    Writes narrated actions as the original's `narrated_actions.csv`, whole or not at all.

    Args:
        path (`str`): of the file; its folder is made if it is not there.
        rows (`Iterable[Mapping]`): what they hold beside `columns` is left out.
        columns (`Iterable[str]`): those that no row has are left out; where one has none, its field is empty.

    Returns:
        `Path`: of the file.
    """
    path, rows, columns = Path(path), list(rows), list(columns)
    there = [name for name in columns if any(row.get(name) is not None for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, there or columns, restval="", extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())
    return path


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with the numbers of their last lines; what is wrong with one is its only field, `error`.

    Raises:
        ValueError: not in UTF-8, or without the column `frame_path`.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    if "frame_path" not in header:
        raise ValueError(f"{path} has no column frame_path, its first line is {header!r}")
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a NUL byte, or a quote that swallows what follows it
            yield reader.line_num, {"error": str(error)}
            continue
        if len(values) == len(header):
            yield reader.line_num, dict(zip(header, values, strict=True))
        elif values:
            yield reader.line_num, {"error": f"{len(values)} fields and not {len(header)}: {values!r:.200}"}


def read_csv(path: Path, required: Sequence[str] = ("frame_path",)) -> list[dict[str, str]]:
    """
    The rows of a CSV of clips, all of which must be right.

    Args:
        path (`Path`): of the file, in UTF-8.
        required (`Sequence[str]`): columns that it must have.

    Raises:
        ValueError: for another encoding, a column that is missing, or a row of another length, with file, line and
            column.
    """
    rows = []
    for line, row in csv_rows(path):
        if "error" in row:
            raise ValueError(f"{path}, line {line}: {row['error']}")
        missing = [name for name in required if name not in row]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]}, only {list(row)}")
        rows.append(row)
    return rows


__all__ = ["SOURCES", "csv_rows", "read_actions", "read_csv", "write_actions_csv"]
