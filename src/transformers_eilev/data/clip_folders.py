"""The original's layout of clips: a folder of PNGs each, and `narrated_actions.csv`; read and written."""

import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .action_files import csv_rows, write_actions_csv
from .clip_format import ANNOTATION_COLUMNS, clip_schema, safe_name
from .files import write_json


if TYPE_CHECKING:
    import datasets


CSV_NAME = "narrated_actions.csv"
# Beside the parts of an extraction: names of those whose folders are written.
FOLDERS_NOTE = "folders.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# What a field of the CSV may hold; far more than any narration, far less than a torn quote would swallow.
MAX_FIELD_CHARS = 1 << 16


# ------------------------------------------------------------------------------------------------------------ reading


def read_frame_folders(
    folder: str | os.PathLike, *, annotation_file: str | os.PathLike | None = None, on_bad_row: str = "skip"
) -> "datasets.Dataset":
    """Reads clips as the original stores them.

    Args:
        folder (`str`): a folder of pictures for each clip, named by its `frame_path`, the pictures in the order of
            the numbers in their names; and `narrated_actions.csv`.
        annotation_file (`str`, *optional*): another CSV than that. Of its columns `frame_path` must be there; strings
            that lack are "", and a `video_uid` and a `clip_index` that lack are told from `frame_path`.
        on_bad_row (`str`, defaults to "skip"): "skip" leaves out rows that are no action or have no pictures, and
            warns of their number and why; "raise" raises.

    Returns:
        `datasets.Dataset`: of the columns of a clip store, in the order of the CSV. `frames` are decoded when asked
        for, `frame_sec` is empty and `status` "unknown": the layout says nothing of them.

    Raises:
        FileNotFoundError: no such CSV.
        ValueError: a CSV without header or column `frame_path`, or not in UTF-8; with "raise", a bad row.

    Warns:
        UserWarning: of rows left out.
    """
    import datasets
    import pyarrow as pa

    if on_bad_row not in ("skip", "raise"):
        raise ValueError(f"on_bad_row must be 'skip' or 'raise', got {on_bad_row!r}")
    folder = Path(folder)
    path = folder / CSV_NAME if annotation_file is None else Path(annotation_file)
    rows, bad, seen = [], [], set()
    for line, fields in csv_rows(path):
        try:
            row = _to_row(fields, folder)
            if row["frame_path"] in seen:
                raise ValueError(f"a second row of frame_path {row['frame_path']!r}")
        except (TypeError, ValueError, OSError) as error:
            message = f"{path}, line {line}: {error}"
            if on_bad_row == "raise":
                raise ValueError(message) from error
            bad.append(message)
            continue
        seen.add(row["frame_path"])
        rows.append(row)
    if bad:
        more = f"\n... and {len(bad) - 10} more" if len(bad) > 10 else ""
        listed = "\n".join(bad[:10])
        warnings.warn(f"{len(bad)} rows of {path} are left out:\n{listed}{more}", UserWarning, stacklevel=2)
    return datasets.Dataset(pa.Table.from_pylist(rows, schema=clip_schema()))


def _to_row(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    if "error" in fields:
        raise ValueError(fields["error"])
    long = [name for name, value in fields.items() if len(value) > MAX_FIELD_CHARS]
    if long:
        raise ValueError(f"{long[0]} has {len(fields[long[0]])} characters")
    frame_path = fields["frame_path"]
    uid, _, index = frame_path.rpartition("|")
    row = {name: fields.get(name, "") for name in ANNOTATION_COLUMNS}
    row["video_uid"] = fields.get("video_uid", uid)
    row["clip_index"] = _number(int, "clip_index", fields.get("clip_index", index))
    if not 0 <= row["clip_index"] < 2**31:
        raise ValueError(f"clip_index must be from 0 to 2**31 - 1, got {row['clip_index']}")
    row["narration_timestamp_sec"] = _number(float, "narration_timestamp_sec", fields.get("narration_timestamp_sec"))
    pictures = _pictures(folder, frame_path)
    frames = [{"bytes": None, "path": str(picture)} for picture in pictures]
    return {**row, "frames": frames, "frame_sec": [], "status": "unknown"}


def _number(kind: type, name: str, value: str | None):
    if value is None:
        return None
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def _pictures(folder: Path, frame_path: str) -> list[Path]:
    if not frame_path or frame_path in (".", "..") or re.search(r"[/\\\0]", frame_path):
        raise ValueError(f"frame_path must name a folder in {folder}, got {frame_path!r}")
    clip = folder / frame_path
    if not clip.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"frame_path {frame_path!r} leads out of {folder}")
    if not clip.is_dir():
        raise ValueError(f"no folder {clip}")
    pictures = [path for path in clip.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not pictures:
        raise ValueError(f"no pictures in {clip}")
    return sorted(pictures, key=_natural_order)


def _natural_order(path: Path) -> list:
    # Odd places hold digits, even ones none, so that numbers meet numbers.
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", path.stem))]


# ------------------------------------------------------------------------------------------------------------ writing


def write_frame_folders(clips: Iterable[Mapping[str, Any]], folder: str | os.PathLike) -> Path:
    """Writes clips as the original stores them.

    Args:
        clips: rows of a clip store, as `load_clip_store` or `read_frame_folders` give them; their frames as PIL
            images, or as `datasets.Image(decode=False)` gives them. PNGs are written as they are.
        folder (`str`): where to. Its `narrated_actions.csv` is written last and holds these clips alone. Characters
            of a `frame_path` that have no place in a file's name are replaced, in the CSV as well, and its
            `video_uid` says what it was.

    Returns:
        `Path`: of the CSV.

    Raises:
        ValueError: two clips of one `frame_path`, or one without frames. No CSV is written then.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    for clip in clips:
        row = _write_clip(clip, folder)
        if row["frame_path"] in rows:
            raise ValueError(f"two clips of frame_path {clip['frame_path']!r}")
        rows[row["frame_path"]] = row
    return write_actions_csv(folder / CSV_NAME, rows.values(), ANNOTATION_COLUMNS)


def add_frame_folders(parts: Path, folder: Path) -> Path:
    """Writes the parts of an extraction as frame folders and removes them; what is written already stays.

    Args:
        parts (`Path`): the folder of parts.
        folder (`Path`): where to.
    """
    import pyarrow.parquet as pq

    path = folder / CSV_NAME
    rows = {fields["frame_path"]: fields for _, fields in csv_rows(path)} if path.exists() else {}
    note = parts / FOLDERS_NOTE
    written = json.loads(note.read_text()) if note.exists() else []
    paths = sorted(parts.glob("*.parquet"), key=lambda part: part.stem)
    for part in paths:
        with pq.ParquetFile(part) as source:
            for group in range(source.num_row_groups):
                for clip in source.read_row_group(group).to_pylist():
                    row = _write_clip(clip, folder)
                    rows.pop(row["frame_path"], None)  # of a merge that was killed
                    rows[row["frame_path"]] = row
    write_actions_csv(path, rows.values(), ANNOTATION_COLUMNS)
    write_json(note, sorted({*written, *(part.stem for part in paths)}))
    for part in paths:
        part.unlink()
    return path


def _write_clip(clip: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The folder of one clip, whole or not at all; returns its row of the CSV."""
    name = _folder_name(clip)
    if not clip["frames"]:
        raise ValueError(f"clip {clip['frame_path']!r} has no frames")
    temporary = folder / f".{safe_name(name)}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for number, frame in enumerate(clip["frames"]):
        (temporary / f"{name}|{number}.png").write_bytes(_png_bytes(frame))
    final = folder / name
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    row = {key: "" if clip.get(key) is None else clip[key] for key in ANNOTATION_COLUMNS}
    # The original strips here, and not in the annotation.
    return {**row, "frame_path": name, "narration_text": row["narration_text"].strip()}


def _folder_name(clip: Mapping[str, Any]) -> str:
    frame_path = clip["frame_path"]
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,150}\|\d+", frame_path):
        return frame_path
    uid, _, index = frame_path.rpartition("|")
    return f"{safe_name(uid)}|{index}" if re.fullmatch(r"[0-9]{1,10}", index) else safe_name(frame_path)


def _png_bytes(frame: Any) -> bytes:
    from PIL import Image

    if isinstance(frame, Mapping):
        data = frame["bytes"] if frame.get("bytes") is not None else Path(frame["path"]).read_bytes()
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return data
        frame = Image.open(io.BytesIO(data))
    buffer = io.BytesIO()
    frame.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


__all__ = ["read_frame_folders", "write_frame_folders"]
