"""Writing files so that they are there whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path):
    """Gives the name of a temporary file beside `path`, which takes its place once the block is left without error.

    Always the same name: what a killed run leaves behind, the next one writes over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8."""
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value, *, indent: int | None = None) -> None:
    """Writes JSON, the same bytes on every machine."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes CSV, the same bytes on every machine."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())
