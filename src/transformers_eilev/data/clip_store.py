"""Clips on disk: Parquet shards that `datasets` reads, streams and pushes.

What to store frames as, measured on 20 clips of real cameras (8 frames each; milliseconds of one CPU for a clip of 8;
PSNR in dB against the frames before encoding, over all pixels; size of 10^5 clips, about Ego4D's number). The sources
are 426 to 480 pixels wide, so at 448 their pictures are soft, at 224 as sharp as can be: a store of 448 pixels from
Ego4D's 1440x1080 lies between the two in bytes a pixel.

    448 pixels         KiB a clip  bytes a pixel  encode  decode  PSNR  10^5 clips
    JPEG 95 4:4:4             455           0.29      14      18  47.0       47 GB
    JPEG 90 4:4:4             311           0.20      12      16  44.8       32 GB
    JPEG 90 4:2:0             252           0.16       9      15  43.3       26 GB
    WebP 95                   233           0.15     192      36  44.5       24 GB
    WebP lossless             929           0.59     811      39     -       95 GB
    PNG                     1,392           0.89     483      57     -      143 GB

    224 pixels
    JPEG 95 4:4:4             165           0.42       4       5  44.7       17 GB
    JPEG 90 4:4:4             117           0.30       3       4  41.8       12 GB
    JPEG 90 4:2:0              96           0.25       3       4  39.9       10 GB
    WebP 95                    95           0.24      56      12  42.6       10 GB
    WebP lossless             345           0.88     195      12     -       35 GB
    PNG                       488           1.24     122      14     -       50 GB

JPEG 95 4:4:4 is the default: a third of PNG's size and decoding time, and of the JPEGs the one nearest to the frames,
for little more time than the smaller ones. Ego4D's 10^5 clips take 47 to 68 GB of it. The lossless encodings are for
those who compare pixels.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clip_folders import FOLDERS_NOTE, add_frame_folders, read_frame_folders, write_frame_folders
from .clip_format import ClipStoreWriter, clip_schema, encode_frame, open_parquet
from .files import atomic_file, write_text


if TYPE_CHECKING:
    import datasets


MAX_SHARD_BYTES = 500_000_000
# In a shard's metadata: the part files that it was made of.
PARTS_KEY = b"transformers_eilev_parts"
README_MARK = "<!-- Written by transformers-eilev, and again with every split; remove this line to keep changes. -->"


def load_clip_store(
    path: str | os.PathLike, split: str | None = None, streaming: bool = False, **kwargs: Any
) -> "datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict":
    """Opens a clip store with `datasets`.

    Args:
        path (`str`): the folder, or the name of a data set on the Hub.
        split (`str`, *optional*): one split alone.
        streaming (`bool`, defaults to False): read as it goes. Without it `datasets` first copies the store, pictures
            still encoded, into its cache, where it is mapped into memory.
        kwargs: for `datasets.load_dataset`, such as `cache_dir`.

    Returns:
        What `datasets.load_dataset` returns. A row's `frames` are PIL images of (width, height) as stored.

    Raises:
        FileNotFoundError: a folder without clips, or one whose clips are still in parts; or one without that split.
    """
    import datasets

    folder = Path(path)
    if folder.is_dir():
        splits = _splits(folder)
        parts = sum(1 for _ in folder.glob("parts/*/*.parquet"))
        if not splits or (split is not None and split.split("[")[0] not in splits):
            wanted = "clips" if split is None else f"split {split!r}"
            have = f"its splits are {splits}" if splits else "it has no merged splits"
            waiting = f"; {parts} parts wait for merge_clip_parts" if parts else ""
            raise FileNotFoundError(f"{folder} has no {wanted}: {have}{waiting}")
        # Not the folder: by its name `datasets` would find in its cache what lay there before.
        files = {name: [os.fspath(shard.absolute()) for shard in _shards(folder, name)] for name in splits}
        return datasets.load_dataset("parquet", data_files=files, split=split, streaming=streaming, **kwargs)
    return datasets.load_dataset(os.fspath(path), split=split, streaming=streaming, **kwargs)


def check_split(split: str) -> None:
    """Raises ValueError if `split` cannot name a split, by the rule of `datasets`."""
    if not isinstance(split, str) or not re.fullmatch(r"\w+(\.\w+)*", split, re.ASCII) or len(split) > 100:
        raise ValueError(f"split must be a word such as 'train', got {split!r}")


def _splits(folder: Path) -> list[str]:
    return sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("data/*-*.parquet")})


# --------------------------------------------------------------------------------------------------------- merging


def merge_clip_parts(
    output_dir: str | os.PathLike, *, split: str = "train", max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[Path]:
    """Makes the parts of a split, one a video, into what is read: shards and a README, or frame folders and their CSV.

    The videos stand in the order of their names. Parts are removed as soon as a shard that holds them is on disk. A
    merge that was killed is gone on with and gives the same files; parts that come later give further shards.

    Args:
        output_dir (`str`): the folder that `extract_clips` wrote to.
        split (`str`, defaults to "train"): which.
        max_shard_bytes (`int`): a shard is closed before it grows larger, unless it holds one video.

    Returns:
        `list[Path]`: the split's shards, or `[narrated_actions.csv]`.

    Raises:
        FileNotFoundError: nothing was extracted there.
    """
    check_split(split)
    output_dir = Path(output_dir)
    folder = output_dir / "parts" / split
    settings = folder / "settings.json"
    if not settings.exists():
        raise FileNotFoundError(f"{folder} holds no clips of extract_clips")
    if json.loads(settings.read_text())["layout"] == "frame_folders":
        return [add_frame_folders(folder, output_dir)]
    for name in merged_parts(output_dir, split):
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    shards = _shards(output_dir, split)
    number = len(shards)
    for parts in _group_parts(sorted(folder.glob("*.parquet"), key=lambda path: path.stem), max_shard_bytes):
        path = output_dir / "data" / f"{split}-{number:05d}.parquet"
        path.parent.mkdir(exist_ok=True)
        _write_shard(path, parts)
        shards.append(path)
        for part in parts:
            part.unlink()
        number += 1
    _write_readme(output_dir)
    return shards


def merged_parts(output_dir: str | os.PathLike, split: str) -> set[str]:
    """Names of the videos' files whose clips are in shards or frame folders already."""
    import pyarrow.parquet as pq

    names = set()
    for shard in _shards(Path(output_dir), split):
        names |= set(json.loads(pq.read_metadata(shard).metadata[PARTS_KEY]))
    note = Path(output_dir) / "parts" / split / FOLDERS_NOTE
    if note.exists():
        names |= set(json.loads(note.read_text()))
    return names


def _shards(output_dir: Path, split: str) -> list[Path]:
    return sorted((output_dir / "data").glob(f"{split}-[0-9]*.parquet"))


def _group_parts(parts: list[Path], max_bytes: int) -> Iterator[list[Path]]:
    group, total = [], 0
    for part in parts:
        size = part.stat().st_size
        if group and total + size > max_bytes:
            yield group
            group, total = [], 0
        group.append(part)
        total += size
    if group:
        yield group


def _write_shard(path: Path, parts: list[Path]) -> None:
    import pyarrow.parquet as pq

    schema = pq.read_schema(parts[0])
    names = json.dumps([part.stem for part in parts])
    schema = schema.with_metadata({**schema.metadata, PARTS_KEY: names.encode()})
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    with atomic_file(path) as file, open_parquet(file, schema) as writer:
        for part in parts:
            with pq.ParquetFile(part) as source:
                for group in range(source.num_row_groups):
                    writer.write_table(source.read_row_group(group).cast(schema))


def _write_readme(output_dir: Path) -> None:
    """What `datasets` and the Hub go by. Somebody else's is left alone."""
    path = output_dir / "README.md"
    if path.exists() and README_MARK not in path.read_text():
        return
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in _splits(output_dir))
    text = f"""---
configs:
- config_name: default
  data_files:
{files}---

{README_MARK}

# Clips of narrated actions

One row is one narrated action: its annotation, the frames of the clip around it, and their times in the video. The
frames remain under the licence of the videos that they are from.
"""
    write_text(path, text)


__all__ = [
    "ClipStoreWriter",
    "clip_schema",
    "encode_frame",
    "load_clip_store",
    "merge_clip_parts",
    "read_frame_folders",
    "write_frame_folders",
]
