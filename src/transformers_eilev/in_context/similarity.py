"""Contexts by likeness: the actions whose vectors are nearest to the query's."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.context_samplers import check_index, check_lengths


ORDERS = ("nearest_last", "nearest_first", "random")

# Of cosines that are the same but for rounding.
_TIE = 1e-5


class SimilaritySampler:
    r"""
    Chooses the actions most like the query, by the cosine of vectors: a [`ContextSampler`] by likeness.

    Ties are decided by row number. Where there are fewer actions than `num_examples`, all are given. What was found
    for a query is kept, 4 bytes an example.

    Args:
        vectors (array or tensor of shape `(num_actions, dim)`, or a mapping of such): of the actions that examples are
            chosen from. With several kinds, cosines are summed, each with its weight.
        num_examples (`int`): in a context.
        weights (`Mapping[str, float]`, *optional*): above 0, for each kind of `vectors`; by default 1.
        queries (*optional*): vectors of the actions to ask about, as `vectors`, where they are of another data set. By
            default, the actions themselves, each without itself.
        order (`str`, *optional*, defaults to "nearest_last"): of the prompt: "nearest_last", "nearest_first" or
            "random", which (seed, epoch, index) decide.
        groups (`Sequence`, *optional*): a label for each action, such as its video: none of the query's own group is
            chosen.
        query_groups (`Sequence`, *optional*): the groups of `queries`.
        index_factory (`str`, *optional*): of faiss, such as "HNSW32", for an approximate search of many vectors; by
            default an exact one.
        seed (`int`, *optional*, defaults to 0): of the random order.

    Raises:
        ImportError: without faiss.
        ValueError: for values out of range or unequal numbers; for a vector without length or that isn't finite, by
            its row.
    """

    def __init__(
        self,
        vectors,
        *,
        num_examples: int,
        weights: Mapping[str, float] | None = None,
        queries=None,
        order: str = "nearest_last",
        groups: Sequence[Hashable] | None = None,
        query_groups: Sequence[Hashable] | None = None,
        index_factory: str | None = None,
        seed: int = 0,
    ):
        check_choice(num_examples, order, seed)
        if query_groups is not None and (queries is None or groups is None):
            raise ValueError("`query_groups` are the groups of `queries` among `groups`, but one of these is missing")
        if queries is not None and groups is not None and query_groups is None:
            raise ValueError("`groups` with `queries` need `query_groups`")
        self.num_examples = num_examples
        self.order = order
        self.seed = seed
        vectors = combine(vectors, weights, "vectors")
        self._queries = vectors if queries is None else combine(queries, weights, "queries")
        if self._queries.shape[1] != vectors.shape[1]:
            raise ValueError(f"`queries` are of {self._queries.shape[1]} numbers, `vectors` of {vectors.shape[1]}")
        self._excludes_query = queries is None
        self._members, self._query_groups = {}, None
        if groups is not None:
            check_lengths(vectors, groups, "vectors", "groups")
            self._query_groups = list(groups if query_groups is None else query_groups)
            check_lengths(self._queries, self._query_groups, "queries", "query_groups")
            for row, group in enumerate(groups):
                self._members.setdefault(group, []).append(row)
        self._index = NearestRows(vectors, index_factory)
        self._found: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._queries)

    def query(self, index: int) -> int:
        """The row of the query: `index`. Raises IndexError if there is no such sample."""
        check_index(index, len(self))
        return int(index)

    def sample(self, index: int, epoch: int = 0) -> list[int]:
        """
        The rows of the actions most like the query's, in the order of the prompt.

        Raises:
            IndexError: if there is no such sample.
        """
        index = self.query(index)
        if index not in self._found:
            self._find([index])
        return arrange(self._found[index], self.order, [self.seed, epoch, index])

    def find_all(self, batch_size: int = 1024) -> "SimilaritySampler":
        """
        Finds the examples of all queries at once, many times faster than one by one, and returns the sampler. To be
        done before worker processes are started, which then search no more.
        """
        missing = [index for index in range(len(self)) if index not in self._found]
        for start in range(0, len(missing), batch_size):
            self._find(missing[start : start + batch_size])
        return self

    def _find(self, indices: list[int]) -> None:
        excluded = [self._excluded(index) for index in indices]
        found = self._index.search(self._queries[indices], self.num_examples, excluded)
        self._found.update(zip(indices, found))

    def _excluded(self, index: int) -> set[int]:
        excluded = {index} if self._excludes_query else set()
        if self._query_groups is not None:
            excluded.update(self._members.get(self._query_groups[index], ()))
        return excluded


class NearestRows:
    """
    The rows of unit (or weighted) vectors with the largest inner products, of shape `(num_rows, dim)`, with faiss.

    Args:
        vectors (`np.ndarray`): float32.
        index_factory (`str`, *optional*): as for [`SimilaritySampler`].
    """

    def __init__(self, vectors: np.ndarray, index_factory: str | None = None):
        faiss = import_faiss()
        self.vectors = vectors
        if index_factory is None:
            self._index = faiss.IndexFlatIP(vectors.shape[1])
        else:
            try:
                self._index = faiss.index_factory(vectors.shape[1], index_factory, faiss.METRIC_INNER_PRODUCT)
            except RuntimeError as error:
                raise ValueError(f"`index_factory` {index_factory!r} is none of faiss: {error}") from None
        # Several threads build another graph each time.
        num_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1 if index_factory else num_threads)
        try:
            if not self._index.is_trained:
                self._index.train(vectors)
            self._index.add(vectors)
        finally:
            faiss.omp_set_num_threads(num_threads)

    def search(self, queries: np.ndarray, k: int, excluded: Sequence[set[int]]) -> list[np.ndarray]:
        """
        The k nearest rows of each query of shape `(num_queries, dim)` but the `excluded`, nearest first.

        Returns:
            `list[np.ndarray]`: int32, all of them where there are fewer.
        """
        total = len(self.vectors)
        found: list[Any] = [None] * len(queries)
        left = list(range(len(queries))) if k else []
        width = k + 2 + min(64, max(map(len, excluded), default=0))
        while left:
            width = min(width, total)
            scores, rows = self._index.search(np.ascontiguousarray(queries[left]), width)
            for place, number in enumerate(left):
                found[number] = self._choose(queries[number], scores[place], rows[place], k, excluded[number])
            left = [number for number in left if found[number] is None]
            if width == total:
                for number in left:  # an approximate index may not find them all
                    every = np.arange(total)
                    scores = self.vectors @ queries[number]
                    found[number] = self._choose(queries[number], scores, every, k, excluded[number], whole=True)
                break
            width *= 4
        return [np.zeros(0, np.int32) if rows is None else rows for rows in found]

    def _choose(self, query, scores, rows, k, excluded, whole=False) -> np.ndarray | None:
        """The k best of what was found, or None if there may be others as good."""
        last = scores[-1]
        allowed = (rows >= 0) & ~np.isin(rows, list(excluded))
        whole = whole or (rows >= 0).sum() == len(self.vectors)
        scores, rows = scores[allowed], rows[allowed]
        if not whole and (len(rows) < k or last > np.partition(scores, -k)[-k] - _TIE):
            return None
        if len(rows) > k:
            kth = np.partition(scores, -k)[-k]
            rows = rows[scores >= kth - _TIE]
        # Once more and exactly, the same whatever else was searched with it.
        exact = (self.vectors[rows].astype(np.float64) * query).sum(1).round(9)
        return rows[np.lexsort((rows, -exact))][:k].astype(np.int32)


def combine(vectors, weights: Mapping[str, float] | None, what: str) -> np.ndarray:
    """
    Unit vectors, float32; of several kinds side by side, each by the root of its weight: their inner products are the
    weighted sums of cosines.

    Raises:
        ValueError: by name of the kind, and by row.
    """
    if not isinstance(vectors, Mapping):
        if weights is not None:
            raise ValueError(f"`weights` are for a mapping of several kinds of vectors, but `{what}` are one kind")
        return _unit(vectors, what)
    weights = dict.fromkeys(vectors, 1.0) if weights is None else weights
    if not vectors or weights.keys() != vectors.keys():
        raise ValueError(f"`{what}` are of the kinds {sorted(vectors)}, but `weights` of {sorted(weights)}")
    for kind, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ValueError(f"The weight of {kind!r} must be above 0, but is {weight}")
    kinds = sorted(vectors)
    parts = [_unit(vectors[kind], f"{what}[{kind!r}]") * np.float32(weights[kind] ** 0.5) for kind in kinds]
    for kind, part in zip(kinds, parts):
        if len(part) != len(parts[0]):
            raise ValueError(f"`{what}` of {kind!r} have {len(part)} rows, but those of {kinds[0]!r} {len(parts[0])}")
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def check_choice(num_examples: int, order: str, seed: int) -> None:
    """Raises ValueError for settings that can't be."""
    if num_examples < 0:
        raise ValueError(f"`num_examples` must not be negative, but is {num_examples}")
    if order not in ORDERS:
        raise ValueError(f"`order` must be one of {ORDERS}, but is {order!r}")
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, but is {seed}")


def arrange(rows: np.ndarray, order: str, numbers: list[int]) -> list[int]:
    """Rows, nearest first, in another order; a random one comes from `numbers`."""
    if order == "random":
        return np.random.default_rng(numbers).permutation(rows).tolist()
    return rows[::-1].tolist() if order == "nearest_last" else rows.tolist()


def import_faiss():
    """faiss, or an ImportError that says how to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            'Similar clips are searched with faiss: pip install "transformers-eilev[retrieval]"'
        ) from error
    return faiss


def _unit(vectors, what: str) -> np.ndarray:
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().float().cpu()
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"`{what}` must be of shape (num_actions, dim), but are of {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if len(bad):
        fault = "is zero" if lengths[bad[0], 0] == 0 else "isn't finite"
        raise ValueError(f"`{what}`: the vector of row {bad[0]} {fault} ({len(bad)} such rows)")
    return np.ascontiguousarray(vectors / lengths, dtype=np.float32)


__all__ = ["SimilaritySampler"]
