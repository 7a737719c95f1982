"""From narrated actions to stored clips: each video read once, by any number of processes, and again after a kill.

In the output folder, of each split:

    parts/<split>/<video>.parquet        clips of one video, until they are merged
    parts/<split>/<video>.failed.json    says that the video is done, and which clips failed or are partial, and why
    parts/<split>/settings.json          what decides the clips' content
    data/<split>-00000.parquet ...       the clips, merged (layout "parquet")
    README.md                            by which `datasets.load_dataset(folder)` and the Hub read them
    <frame_path>/<frame_path>|0.png ...  the original's layout ("frame_folders"), with
    narrated_actions.csv
    logs/<split>.json                    what became of every video, and the rows that were refused
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from ..video_sources import ReadLimits
from .clip_format import ANNOTATION_COLUMNS, ENCODINGS, EXTRA_TYPES, check_encoding, safe_name
from .clip_store import check_split, merge_clip_parts, merged_parts
from .extraction_worker import ExtractionSettings, VideoTask, run_tasks
from .files import check_disk_space, remove_leftovers, write_json


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """What became of the actions.

    Attributes:
        output_dir (`Path`): where the clips are.
        num_actions (`int`): valid rows of this shard whose video is on disk.
        num_clips (`int`): clips written, those of earlier runs included; `num_partial` of them are partial.
        num_failed (`int`): actions that gave no clip.
        num_videos, num_resumed (`int`): videos of this shard, and those of them that were done before.
        failures (`list[dict]`): the failed clips, each with `frame_path`, `narration_timestamp_sec` and `reason`.
        missing_videos (`dict[str, int]`): videos that are not on disk, with the number of their actions.
        refused (`list[dict]`): rows that are no narrated actions, each with its number in `actions` and the `reason`.
        merged (`bool`): whether the folder is ready to be read. A shard alone is not: see `merge_clip_parts`.
    """

    output_dir: Path
    num_actions: int
    num_clips: int
    num_partial: int
    num_failed: int
    num_videos: int
    num_resumed: int
    failures: list[dict] = field(repr=False)
    missing_videos: dict[str, int] = field(repr=False)
    refused: list[dict] = field(repr=False)
    merged: bool


def extract_clips(
    actions: Iterable[Mapping[str, Any]],
    output_dir: str | os.PathLike,
    *,
    split: str = "train",
    num_frames: int = 8,
    size: int = 448,
    clip_duration: float = 8,
    encoding: Literal["jpeg", "png", "webp"] | None = None,
    layout: Literal["parquet", "frame_folders"] = "parquet",
    num_workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    resume: bool = True,
    retry_failed: bool = False,
    progress: bool = True,
    row_group_size: int = 8,
    check_disk_space: bool = True,
    limits: ReadLimits = ReadLimits(),
) -> ExtractionReport:
    """Extracts a clip for every action: `num_frames` frames, uniform over the window that `place_window` gives.

    What was done by an earlier run with the same arguments is not done again, however that run ended, and the result
    is the same to the byte as that of one run.

    Args:
        actions: rows of the columns that `ANNOTATION_COLUMNS` names and `video_path`, in any order. Further columns
            of strings, numbers or booleans are stored too.
        output_dir (`str`): nothing is written outside of it, whatever the rows say.
        split (`str`, defaults to "train"): of a folder of several, each made by a call of its own.
        num_frames (`int`, defaults to 8): frames of a clip.
        size (`int`, defaults to 448): height and width of the stored frames: twice the model's image size.
        clip_duration (`float`, defaults to 8): seconds of a clip.
        encoding (`str`, *optional*): "jpeg" (quality 95, 4:4:4: the default), "png" (always, in frame folders) or
            "webp" (lossless).
        layout (`str`, defaults to "parquet"): a clip store, or the original's folders of PNGs.
        num_workers (`int`, *optional*): processes, by default one for each CPU. 0 is this process, in which a video
            that crashes the decoder ends the extraction. Scripts that start processes must be guarded by
            `if __name__ == "__main__":`.
        shard (`tuple[int, int]`, defaults to (0, 1)): i and n: take those videos alone that belong to the i-th of n
            parts, 0 <= i < n, told by a hash of their uid. Then nothing is merged: once all n are done, call again
            with (0, 1), or `merge_clip_parts`.
        resume (`bool`, defaults to True): go on where an earlier run ended. False refuses a split that is begun.
        retry_failed (`bool`, defaults to False): read videos again in which clips failed, unless they are merged.
            Those whose failure may have passed (file not found, worker killed) are read again in any case.
        progress (`bool`, defaults to True): a bar of clips with the time left, on standard error.
        row_group_size (`int`, defaults to 8): clips that are read together when one of them is asked for.
        check_disk_space (`bool`, defaults to True): whether to refuse to begin what will not fit.
        limits (`ReadLimits`): bounds on what one video may cost.

    Returns:
        `ExtractionReport`: what became of the actions. It is in the folder's `logs` too.

    Raises:
        ValueError, TypeError: an argument, by name; or the folder holds clips of other settings or rows.
        FileExistsError: with `resume=False`, a split that is begun.
        OSError: too little space on the disk, with the numbers; or a file that cannot be written.
        RuntimeError: workers cannot be started.
    """
    if encoding is None:
        encoding = "png" if layout == "frame_folders" else "jpeg"
    _check_arguments(locals())
    output_dir = Path(output_dir)
    parts = output_dir / "parts" / split
    rows, extra_columns, refused = _valid_rows(actions)
    settings = ExtractionSettings(
        num_frames=num_frames,
        size=size,
        clip_duration=clip_duration,
        encoding=encoding,
        row_group_size=row_group_size,
        extra_columns=extra_columns,
        limits=limits,
    )
    tasks, missing, conflicting = _group_by_video(rows, parts, shard)
    refused = sorted([*refused, *conflicting], key=lambda entry: entry["row"])
    _check_folder(parts, settings, layout=layout, resume=resume)

    done, todo = _split_done(tasks, merged=merged_parts(output_dir, split), retry_failed=retry_failed)
    if check_disk_space:
        _check_disk_space(output_dir, todo, settings, layout=layout)
    parts.mkdir(parents=True, exist_ok=True)
    write_json(parts / "settings.json", _content_settings(settings, layout))
    remove_leftovers(parts, {path.name for task in todo for path in (task.part, task.record)})

    records = {task.video_uid: record for task, record in done}
    if num_workers is None:
        num_workers = _num_cpus()
    with _progress_bar(tasks, done, shown=progress) as bar:
        for record in run_tasks(todo, settings, num_workers=num_workers, on_clip=bar.update):
            records[record["video_uid"]] = record
            bar.set_postfix(failed=sum(len(record["failed"]) for record in records.values()))

    records = [records[task.video_uid] for task in tasks]
    _write_log(output_dir, split, shard, records, missing=missing, refused=refused)
    if shard[1] == 1:
        merge_clip_parts(output_dir, split=split)
    return ExtractionReport(
        output_dir=output_dir,
        num_actions=sum(len(task.rows) for task in tasks),
        num_clips=sum(record["num_clips"] for record in records),
        num_partial=sum(len(record["partial"]) for record in records),
        num_failed=sum(len(record["failed"]) for record in records),
        num_videos=len(tasks),
        num_resumed=len(done),
        failures=[entry for record in records for entry in record["failed"]],
        missing_videos=missing,
        refused=refused,
        merged=shard[1] == 1,
    )


def _check_arguments(arguments: dict[str, Any]) -> None:
    for name, least in (("num_frames", 1), ("size", 1), ("row_group_size", 1), ("num_workers", 0)):
        value = arguments[name]
        if value is None and name == "num_workers":
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")
    duration = arguments["clip_duration"]
    if isinstance(duration, bool) or not isinstance(duration, Real):
        raise TypeError(f"clip_duration must be a number, got {duration!r}")
    if not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"clip_duration must be positive and finite, got {duration!r}")
    check_encoding(arguments["encoding"])
    if arguments["layout"] not in ("parquet", "frame_folders"):
        raise ValueError(f"layout must be 'parquet' or 'frame_folders', got {arguments['layout']!r}")
    if arguments["layout"] == "frame_folders" and arguments["encoding"] != "png":
        raise ValueError(f"frame folders hold PNGs, got encoding={arguments['encoding']!r}")
    check_split(arguments["split"])
    shard = arguments["shard"]
    numbers = isinstance(shard, tuple) and len(shard) == 2 and all(type(number) is int for number in shard)
    if not numbers or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}")


# --------------------------------------------------------------------------------------------------------------- rows


def _valid_rows(actions: Iterable[Mapping[str, Any]]) -> tuple[list[dict], dict[str, str], list[dict]]:
    """The rows, each with its number; the types of the columns that are not the annotation's; and the refused."""
    rows, extra_columns, refused, seen = [], {}, [], set()
    for number, action in enumerate(actions):
        try:
            row = _valid_row(action, extra_columns)
            if row["frame_path"] in seen:
                raise ValueError(f"a second row of video_uid and clip_index {row['frame_path']!r}")
        except (TypeError, ValueError) as error:
            refused.append({"row": number, "reason": str(error)})
            continue
        seen.add(row["frame_path"])
        rows.append({"row": number, **row})
    return rows, dict(sorted(extra_columns.items())), refused


def _valid_row(action: Mapping[str, Any], extra_columns: dict[str, str]) -> dict[str, Any]:
    row = {}
    for name in ("video_uid", "narration_text", "structured_verb", "structured_noun", "video_path"):
        value = action.get(name)
        if value is None and name.startswith("structured_"):
            value = ""
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {value!r}")
        if name != "video_path":
            value.encode()  # a lone surrogate cannot be stored
        row[name] = value
    if not row["video_uid"]:
        raise ValueError("video_uid is empty")
    index, timestamp = action.get("clip_index"), action.get("narration_timestamp_sec")
    if isinstance(index, bool) or not isinstance(index, Integral) or not 0 <= index < 2**31:
        raise ValueError(f"clip_index must be an integer from 0 to 2**31 - 1, got {index!r}")
    if isinstance(timestamp, bool) or not isinstance(timestamp, Real) or not math.isfinite(timestamp):
        raise ValueError(f"narration_timestamp_sec must be a finite number, got {timestamp!r}")
    row |= {"clip_index": int(index), "narration_timestamp_sec": float(timestamp)}
    row["frame_path"] = f"{row['video_uid']}|{row['clip_index']}"
    if action.get("frame_path", row["frame_path"]) != row["frame_path"]:
        raise ValueError(f"frame_path must be {row['frame_path']!r}, got {action['frame_path']!r}")
    for name, value in action.items():
        if name not in row and value is not None:
            row[name] = _extra_value(name, value, extra_columns)
    return row


def _extra_value(name: str, value: Any, extra_columns: dict[str, str]) -> Any:
    if name in ("row", "frames", "frame_sec", "status"):
        raise ValueError(f"a column of the name {name!r} is the clip's own")
    kind = EXTRA_TYPES.get(type(value))
    if kind is None:
        raise TypeError(f"{name} must be a string, a number or a boolean, got {value!r}")
    known = extra_columns.setdefault(name, kind)
    if kind != known:
        raise TypeError(f"{name} must be of type {known} as in the rows before, got {value!r}")
    return value


def _group_by_video(
    rows: list[dict], parts: Path, shard: tuple[int, int]
) -> tuple[list[VideoTask], dict[str, int], list[dict]]:
    """The shard's videos in the order of their uids, the actions of those not on disk, and rows that contradict."""
    by_video, missing, refused = {}, {}, []
    for row in rows:
        uid = row["video_uid"]
        if int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) % shard[1] != shard[0]:
            continue
        if not row["video_path"]:
            missing[uid] = missing.get(uid, 0) + 1
            continue
        video = by_video.setdefault(uid, [])
        if video and row["video_path"] != video[0]["video_path"]:
            paths = f"{row['video_path']!r}, but that of the rows before is {video[0]['video_path']!r}"
            refused.append({"row": row["row"], "reason": f"video_path of {uid!r} is {paths}"})
            continue
        video.append(row)
    tasks = []
    for uid, video in sorted(by_video.items()):
        video.sort(key=lambda row: row["clip_index"])  # so that the order of `actions` makes no difference
        clean = [{key: value for key, value in row.items() if key != "row"} for row in video]
        path = video[0]["video_path"]
        tasks.append(VideoTask(name=safe_name(uid), folder=parts, video_uid=uid, video_path=path, rows=clean))
    return tasks, dict(sorted(missing.items())), refused


# -------------------------------------------------------------------------------------------------------- what is done


def _content_settings(settings: ExtractionSettings, layout: str) -> dict[str, Any]:
    content = {key: value for key, value in dataclasses.asdict(settings).items() if key != "limits"}
    return {**content, "clip_duration": str(Fraction(settings.clip_duration)), "layout": layout}


def _check_folder(parts: Path, settings: ExtractionSettings, *, layout: str, resume: bool) -> None:
    path = parts / "settings.json"
    others = sorted(other.parent.name for other in parts.parent.glob("*/settings.json") if other != path)
    if others and layout == "frame_folders":
        raise ValueError(f"frame folders hold one split, and {parts.parent} has {others} already")
    if not path.exists():
        return
    if not resume:
        raise FileExistsError(f"{parts} holds clips already; give another folder, or resume=True to go on with them")
    before, now = json.loads(path.read_text()), _content_settings(settings, layout)
    other = [f"{key}={before.get(key)!r} and not {now[key]!r}" for key in now if before.get(key) != now[key]]
    if other:
        raise ValueError(f"{parts} holds clips of {', '.join(other)}; give another folder for these settings")


def _split_done(
    tasks: list[VideoTask], *, merged: set[str], retry_failed: bool
) -> tuple[list[tuple[VideoTask, dict]], list[VideoTask]]:
    """The videos that an earlier run has done, with their records, and the others."""
    done, todo = [], []
    for task in tasks:
        record = _read_record(task)
        if record is None:
            todo.append(task)
        elif task.name in merged:
            if record["rows_sha256"] != task.digest:
                raise ValueError(
                    f"the clips of video {task.video_uid!r} were made and merged from other rows than these; "
                    "give another folder"
                )
            done.append((task, record))
        else:
            again = record["retry"] or (retry_failed and record["failed"])
            whole = task.part.exists() or not record["num_clips"]
            if record["rows_sha256"] == task.digest and whole and not again:
                done.append((task, record))
            else:
                todo.append(task)
    return done, todo


def _read_record(task: VideoTask) -> dict[str, Any] | None:
    try:
        return json.loads(task.record.read_text())
    except FileNotFoundError:
        return None


def _check_disk_space(output_dir: Path, tasks: list[VideoTask], settings: ExtractionSettings, *, layout: str) -> None:
    num_clips = sum(len(task.rows) for task in tasks)
    if not num_clips:
        return
    per_clip = settings.num_frames * settings.size**2 * ENCODINGS[settings.encoding].bytes_per_pixel
    # Of a store one shard at a time is there twice while it is merged, which the spare bytes allow for; of frame
    # folders all of it.
    copies = 2 if layout == "frame_folders" else 1
    needed = round(num_clips * per_clip * copies)
    check_disk_space(output_dir, needed, f"{num_clips} clips of about {per_clip / 1024:.0f} KiB")


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _progress_bar(tasks: list[VideoTask], done: list[tuple[VideoTask, dict]], *, shown: bool):
    from tqdm import tqdm

    return tqdm(
        total=sum(len(task.rows) for task in tasks),
        initial=sum(len(task.rows) for task, _ in done),
        unit="clip",
        desc="Extracting clips",
        disable=not shown,
    )


def _write_log(
    output_dir: Path, split: str, shard: tuple[int, int], records: list[dict], *, missing: dict, refused: list
) -> None:
    name = split if shard[1] == 1 else f"{split}-{shard[0]}-of-{shard[1]}"
    folder = output_dir / "logs"
    folder.mkdir(exist_ok=True)
    videos = [{key: value for key, value in record.items() if key != "rows_sha256"} for record in records]
    write_json(folder / f"{name}.json", {"refused_rows": refused, "missing_videos": missing, "videos": videos})


__all__ = ["ANNOTATION_COLUMNS", "ExtractionReport", "extract_clips"]
