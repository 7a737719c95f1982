"""Contexts from a list, and lists of contexts."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .context_samplers import ContextSampler, check_index, check_lengths
from .files import atomic_file


class PresampledContexts:
    """
    Contexts from a list, such as EILEV's evaluation reads: a [`ContextSampler`] without chance.

    Args:
        contexts (`Sequence[Sequence[int]]`): rows of the context's actions, for each sample.
        queries (`Sequence[int]`): the row of the queries' actions, for each sample.

    Raises:
        ValueError: if they are of unequal number.
    """

    def __init__(self, contexts: Sequence[Sequence[int]], queries: Sequence[int]):
        check_lengths(contexts, queries, "contexts", "queries")
        self.contexts = [list(context) for context in contexts]
        self.queries = list(queries)

    @classmethod
    def from_jsonl(cls, path, context_frame_paths: Iterable[str], query_frame_paths: Iterable[str] | None = None):
        """
        Reads lines of `{"context": [frame_path, ...], "query": frame_path}`.

        Args:
            path (`str` or `os.PathLike`): of the file.
            context_frame_paths (`Iterable[str]`): the column `frame_path` of the actions that contexts are of.
            query_frame_paths (`Iterable[str]`, *optional*): that of the queries' actions, by default the same.

        Raises:
            ValueError: if a line is no such object or names a clip that the actions lack, with file, line and field.
        """
        context_rows = {frame_path: row for row, frame_path in enumerate(context_frame_paths)}
        query_rows = context_rows
        if query_frame_paths is not None:
            query_rows = {frame_path: row for row, frame_path in enumerate(query_frame_paths)}
        contexts, queries = [], []
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    context, query = _parse_query(line, f"{path}, line {number}")
                    where = f"{path}, line {number}: "
                    contexts.append([_row_of(name, context_rows, where + "`context`") for name in context])
                    queries.append(_row_of(query, query_rows, where + "`query`"))
        return cls(contexts, queries)

    def __len__(self) -> int:
        return len(self.queries)

    def query(self, index: int) -> int:
        """As [`InContextSampler.query`]."""
        check_index(index, len(self))
        return self.queries[index]

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """As [`InContextSampler.sample`], but the same in every epoch."""
        check_index(index, len(self))
        return list(self.contexts[index])


def write_contexts(
    path,
    sampler: ContextSampler,
    context_frame_paths: Sequence[str],
    query_frame_paths: Sequence[str] | None = None,
    *,
    epoch: int = 0,
):
    """
    Draws every context of an epoch once and writes what [`PresampledContexts.from_jsonl`] reads.

    Args:
        path (`str` or `os.PathLike`): of the file, which is replaced only when all of it is written.
        sampler (`ContextSampler`): draws them.
        context_frame_paths (`Sequence[str]`): the column `frame_path` of the actions that contexts are of.
        query_frame_paths (`Sequence[str]`, *optional*): that of the queries' actions, by default the same.
        epoch (`int`, *optional*, defaults to 0): to draw from.
    """
    context_frame_paths = list(context_frame_paths)
    query_frame_paths = context_frame_paths if query_frame_paths is None else list(query_frame_paths)
    with atomic_file(Path(path)) as file:
        for index in range(len(sampler)):
            context = [context_frame_paths[row] for row in sampler.sample(index, epoch)]
            line = {"context": context, "query": query_frame_paths[sampler.query(index)]}
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


# ------------------------------------------------------------------------------------------------------------ details


def _parse_query(line: str, where: str) -> tuple[list[str], str]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error}): {line[:80]!r}") from None
    context, query = (content.get(key) for key in ("context", "query")) if isinstance(content, dict) else (None, None)
    if not isinstance(query, str):
        raise ValueError(f"{where}: `query` must be a frame path, but is {query!r}")
    if not isinstance(context, list) or not all(isinstance(name, str) for name in context):
        raise ValueError(f"{where}: `context` must be a list of frame paths, but is {context!r}")
    return context, query


def _row_of(frame_path: str, rows: dict[str, int], where: str) -> int:
    if frame_path not in rows:
        raise ValueError(f"{where} names {frame_path!r}, which is not among the {len(rows)} actions")
    return rows[frame_path]


__all__ = ["PresampledContexts", "write_contexts"]
