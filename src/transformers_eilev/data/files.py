"""Files that are there whole or not at all, also after a crash and whoever else writes them."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class AtomicFile:
    """A file beside `path` that takes its place when it is complete and on disk."""

    def __init__(self, path: Path):
        self.path = path
        # Its own name for each writer: one that was left behind by its parent may still be at work.
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        self.file = open(self._temporary, "xb")  # noqa: SIM115

    def commit(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self._temporary, self.path)
        sync_folder(self.path.parent)

    def discard(self) -> None:
        self.file.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when it is complete and on disk, and not before."""
    atomic = AtomicFile(path)
    try:
        yield atomic.file
    except BaseException:
        atomic.discard()
        raise
    atomic.commit()


def remove_leftovers(folder: Path, names: set[str]) -> None:
    """Removes what killed writers of the files `names` in `folder` have left."""
    with os.scandir(folder) as entries:
        leftovers = [Path(entry.path) for entry in entries if entry.name.endswith(".tmp")]
    for path in leftovers:
        if path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` in UTF-8, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=True) + "\n")


# Left free on a disk, whatever is estimated.
SPARE_BYTES = 512 << 20


def check_disk_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raises OSError if there are not `num_bytes` and some spare free where `folder` is, or will be, for `what`."""
    needed = num_bytes + SPARE_BYTES
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed > free:
        message = f"{what} need {needed / 2**30:.2f} GiB at {folder}, where {free / 2**30:.2f} GiB are free"
        raise OSError(errno.ENOSPC, message)


def sync_folder(folder: Path) -> None:
    """Makes sure that names in `folder` are on disk as well."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
