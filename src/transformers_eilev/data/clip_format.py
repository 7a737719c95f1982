"""How a clip is stored: encodings of its frames, columns of its row, and files that are there whole or not at all."""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .files import AtomicFile


if TYPE_CHECKING:
    import pyarrow as pa
    import torch


@dataclass(frozen=True)
class FrameEncoding:
    """One way to write a frame: what PIL is told, and the size to expect."""

    format: str
    options: dict = field(default_factory=dict)
    bytes_per_pixel: float = 0.0  # of camera pictures, on the safe side: what the check of disk space reckons with


ENCODINGS = {
    "jpeg": FrameEncoding("JPEG", {"quality": 95, "subsampling": 0}, 0.45),
    "png": FrameEncoding("PNG", {"compress_level": 6}, 1.5),
    "webp": FrameEncoding("WEBP", {"lossless": True, "quality": 50, "method": 3}, 1.1),
}

# The columns of every clip, in order, with the types that `datasets` calls them by.
ANNOTATION_COLUMNS = {
    "frame_path": "string",
    "video_uid": "string",
    "clip_index": "int32",
    "narration_timestamp_sec": "float64",
    "narration_text": "string",
    "structured_verb": "string",
    "structured_noun": "string",
}
EXTRA_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}


def clip_schema(extra_columns: Mapping[str, str] | None = None) -> "pa.Schema":
    """The Arrow schema of clips, with the note by which `datasets` sees `frames` as `List(Image())`.

    Args:
        extra_columns (`dict`, *optional*): names and types ("string", "bool", "int64", "float64") of columns of the
            data set's own. They stand after the annotation's.
    """
    import pyarrow as pa

    types = {**ANNOTATION_COLUMNS, **(extra_columns or {})}
    fields = [pa.field(name, getattr(pa, {"bool": "bool_"}.get(kind, kind))()) for name, kind in types.items()]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields += [("frame_sec", pa.list_(pa.float64())), ("frames", pa.list_(image)), ("status", pa.string())]
    # Written by hand: `datasets` would take a worker a second and 100 MB to say the same.
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in types.items()}
    features["frame_sec"] = {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"}
    features["frames"] = {"feature": {"_type": "Image"}, "_type": "List"}
    features["status"] = {"dtype": "string", "_type": "Value"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def encode_frame(frame: "torch.Tensor", encoding: str = "jpeg") -> bytes:
    """`frame`, uint8 of shape (3, height, width), as an image file."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    image.save(buffer, ENCODINGS[encoding].format, **ENCODINGS[encoding].options)
    return buffer.getvalue()


class ClipStoreWriter:
    """Writes clips into one Parquet file, which appears under its name when it is complete and not before.

    A context manager; left by an exception, or without a clip, it leaves no file.

    Args:
        path (`str` or `Path`): the file to write.
        encoding (`str`, defaults to "jpeg"): "jpeg" (quality 95, 4:4:4), "png" or "webp" (lossless).
        extra_columns (`dict`, *optional*): as in `clip_schema`.
        row_group_size (`int`, defaults to 8): clips that are read together when one of them is asked for.

    Raises:
        ValueError: an unknown encoding, or a row group of less than one clip.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        encoding: str = "jpeg",
        extra_columns: Mapping[str, str] | None = None,
        row_group_size: int = 8,
    ):
        check_encoding(encoding)
        if row_group_size < 1:
            raise ValueError(f"row_group_size must be positive, got {row_group_size!r}")
        self.path = Path(path)
        self.num_clips = 0
        self._encoding = encoding
        self._schema = clip_schema(extra_columns)
        self._row_group_size = row_group_size
        self._rows = []

    def __enter__(self) -> "ClipStoreWriter":
        self._file = AtomicFile(self.path)
        self._parquet = open_parquet(self._file.file, self._schema)
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            if error_type is None:
                self._flush()
            self._parquet.close()
        except BaseException:
            self._file.discard()
            raise
        if error_type is None and self.num_clips:
            self._file.commit()
        else:
            self._file.discard()

    def write(
        self,
        row: Mapping[str, Any],
        frames: "torch.Tensor | list[bytes]",
        *,
        frame_sec: list[float],
        status: str = "complete",
    ) -> None:
        """Adds a clip.

        Args:
            row (`dict`): the narrated action; columns that the file has not are left out.
            frames (`torch.Tensor`): uint8 of shape (num_frames, 3, height, width), or image files as bytes.
            frame_sec (`list[float]`): seconds of the frames in the video.
            status (`str`): "complete" or "partial".
        """
        images = [frame if isinstance(frame, bytes) else encode_frame(frame, self._encoding) for frame in frames]
        stored = [{"bytes": image, "path": None} for image in images]
        own = {"frame_sec": list(frame_sec), "frames": stored, "status": status}
        self._rows.append({**{name: row.get(name) for name in self._schema.names}, **own})
        self.num_clips += 1
        if len(self._rows) == self._row_group_size:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def open_parquet(file: BinaryIO, schema: "pa.Schema"):
    """A writer of row groups for clips."""
    import pyarrow.parquet as pq

    # Pictures don't compress again, and as statistics the footer would repeat whole pictures.
    small = [name for name in schema.names if name != "frames"]
    return pq.ParquetWriter(file, schema, compression="none", use_dictionary=False, write_statistics=small)


def check_encoding(encoding: str) -> None:
    """Raises ValueError for an encoding that is none of `ENCODINGS`."""
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {sorted(ENCODINGS)}, got {encoding!r}")


# ---------------------------------------------------------------------------------------------------- files and names


def safe_name(uid: str) -> str:
    """`uid` as the name of a file: itself if it is a plain one, else what is harmless of it with a hash of the whole.

    Different uids have different names, and no name leads out of its folder.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]{1,120}", uid):
        return uid
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", uid)[:80]
    # No plain uid has a "~".
    return f"{plain}~{hashlib.sha256(uid.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


__all__ = ["ANNOTATION_COLUMNS", "ENCODINGS", "ClipStoreWriter", "FrameEncoding", "clip_schema", "encode_frame"]
