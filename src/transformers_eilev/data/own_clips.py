"""Narrated clips of one's own, from a list and video files to a clip store: what trainings and evaluations read."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any, Protocol
from urllib.parse import urlsplit

from ..video_processing_video_blip_2 import ClipSpan, VideoBlip2VideoProcessor
from ..video_sources import source_name
from .clip_format import ClipStoreWriter, safe_name
from .clip_store import check_split


class OwnClip(Protocol):
    """
    A narrated clip, such as [`~transformers_eilev.in_context.Demonstration`].

    Attributes:
        clip (`Any`): path, URL, bytes or file object of a video.
        narration (`str`): what is done in it.
        start, end (`float`, *optional*): seconds from the video's first frame; by default its first 8 seconds, and of
            a `start` alone the 8 seconds from there on.
        verb, noun (`str`): the action, or "".
    """

    clip: Any
    narration: str
    start: float | None
    end: float | None
    verb: str
    noun: str


def store_own_clips(
    clips: Iterable[OwnClip],
    output_dir: str | os.PathLike,
    *,
    split: str = "train",
    num_frames: int = 8,
    size: int = 448,
    encoding: str = "jpeg",
) -> Path:
    """
    Cuts narrated clips out of their videos into a split of a clip store. One process, one clip after the other: for
    tens to hundreds of clips. Of whole data sets, `extract_clips` reads each video once.

    ```python
    store_own_clips(read_demonstrations("mine.csv"), "clips")
    ```

    Args:
        clips (`Iterable[OwnClip]`): in the order of the store.
        output_dir (`str`): folder of the store, for `load_clip_store`, `--train_frames_dir`, `--clips` and the like.
        split (`str`, defaults to "train"): which must not be there yet.
        num_frames (`int`, defaults to 8): of each clip, uniformly from its start to its end.
        size (`int`, defaults to 448): height and width of the stored frames in pixels: twice the model's image size.
        encoding (`str`, defaults to "jpeg"): "jpeg", "png" or "webp", as of `extract_clips`.

    Returns:
        `Path`: of the file written. A row's `video_uid` is the name of its video file without folder and suffix, its
        `clip_index` its place in `clips`, its `narration_timestamp_sec` the middle of its frames.

    Raises:
        FileExistsError: if the split is there.
        FileNotFoundError, VideoReadError: a video that is missing or can't be read, by name. Nothing is written then.
        ValueError: there is no clip; a clip is frames, which have no times; a setting, by name.
    """
    check_split(split)
    for name, value in (("num_frames", num_frames), ("size", size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {value}")
    path = Path(output_dir) / "data" / f"{split}-00000.parquet"
    if there := sorted(path.parent.glob(f"{split}-[0-9]*.parquet")):
        raise FileExistsError(f"{output_dir} has a split {split!r} already: {there[0]}")
    read = VideoBlip2VideoProcessor(
        num_frames=num_frames, size={"height": size, "width": size}, do_rescale=False, do_normalize=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with ClipStoreWriter(path, encoding=encoding) as writer:
        for index, own in enumerate(clips):
            found = read(ClipSpan(own.clip, own.start, own.end), return_metadata=True)
            about = found["video_metadata"][0]
            times = about["frame_sec"]
            if times is None:
                raise ValueError(f"Clip {index} must be of a video file, but is frames of a {about['source']}")
            uid = _uid_of(own.clip)
            row = {
                "frame_path": f"{uid}|{index}",
                "video_uid": uid,
                "clip_index": index,
                "narration_timestamp_sec": (times[0] + times[-1]) / 2,
                "narration_text": own.narration,
                "structured_verb": own.verb,
                "structured_noun": own.noun,
            }
            writer.write(row, found["pixel_values"][0], frame_sec=times, status=about["status"])
        if not writer.num_clips:
            raise ValueError("There is no clip to store")
    return path


def _uid_of(source: Any) -> str:
    is_named = isinstance(source, str | os.PathLike)
    return safe_name(PurePath(urlsplit(source_name(source)).path).stem) if is_named else "clip"


__all__ = ["OwnClip", "store_own_clips"]
