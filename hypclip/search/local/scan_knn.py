"""Scans of a table in float32 for what is near a point: candidates by the bounds of products.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hypclip.search.local.products import Doubles, Floats, SegmentRows, blocks, kappa, kept_rows, products
from hypclip.search.local.table import Mask, Rows, Snapshot

_GROUP = 64

_QUERIES = 64


def nearest(
    snapshot: Snapshot, masks: Sequence[Mask | None], queries: Doubles, k: int, curv: float, probing: bool = False
) -> list[SegmentRows]:
    """Return for each query rows among which the k nearest are.

    Args:
        snapshot: what to search.
        masks: which rows of each segment count.
        queries: (Q, D) space components.
        k: at least 1.
        curv: c > 0.
        probing: look only at the most promising cells of segments that have cells.
    """
    if probing:
        return [rows for q in queries for rows in _nearest(snapshot, masks, q[None], k, curv, True)]
    chunks = np.array_split(queries, math.ceil(len(queries) / _QUERIES)) if len(queries) else []
    return [rows for chunk in chunks for rows in _nearest(snapshot, masks, chunk, k, curv, False)]


def _nearest(
    snapshot: Snapshot, masks: Sequence[Mask | None], queries: Doubles, k: int, curv: float, probing: bool
) -> list[SegmentRows]:
    best = _Best(queries, k, curv)
    for i, (segment, mask) in enumerate(zip(snapshot, masks, strict=True)):
        if probing and segment.cells is not None:
            for rows in _probed(segment.cells.centroids, segment.cells.starts, segment.cells.probes, queries[0], curv):
                best.feed(i, rows, segment.columns.vectors, segment.columns.times, mask)
        else:
            for rows in blocks(len(segment), len(queries)):
                best.feed(i, rows, segment.columns.vectors, segment.columns.times, mask)
    return best.kept()


class _Best:
    """The rows that may be among the k nearest, block after block.

    Rows are looked at in groups. The k best groups hold k rows, so the worst upper bound of these is above the k-th
    smallest distance; only groups with a lower bound below it are opened.
    """

    def __init__(self, queries: Doubles, k: int, curv: float):
        self._queries = queries.astype(np.float32)
        self._k = k
        q_time = np.sqrt(1 / curv + np.einsum("qd,qd->q", queries, queries))[:, None]
        share = kappa(queries.shape[1])
        self._lower = (q_time * (1 - share)).astype(np.float32)
        self._width = (q_time * (2 * share) * (1 + 1e-6)).astype(np.float32)
        self._uppers = np.full((len(queries), k), np.inf, np.float32)
        self._kept: list[tuple[int, NDArray[np.intp], Rows, Floats]] = []

    def feed(self, segment: int, rows: slice, vectors: Floats, times: Floats, mask: Mask | None) -> None:
        """Look at the rows of a slice."""
        n, t = rows.stop - rows.start, times[rows]
        size = max(1, min(_GROUP, n // (2 * self._k)))
        groups = -(-n // size)
        scores = np.empty((len(self._queries), groups * size), np.float32)
        scores[:, n:] = np.inf
        low = scores[:, :n]
        np.multiply(self._lower, t, out=low)
        low -= (vectors[rows] @ self._queries[0])[None] if len(low) == 1 else self._queries @ vectors[rows].T
        if mask is not None:
            low[:, ~mask[rows]] = np.inf
        grouped = scores.reshape(len(low), groups, size)
        smallest = grouped.min(-1)
        self._tighten(grouped, smallest, t)
        limit = self._uppers[:, -1:]
        query, group = np.nonzero((smallest <= limit) & (smallest < np.inf))
        opened = grouped[query, group]
        which, within = np.nonzero((opened <= limit[query]) & (opened < np.inf))
        found = group[which] * size + within + rows.start
        self._kept.append((segment, query[which], found, opened[which, within]))

    def _tighten(self, grouped: Floats, smallest: Floats, times: Floats) -> None:
        k = min(self._k, smallest.shape[1])
        if k < smallest.shape[1]:
            first = np.argpartition(smallest, k - 1, axis=1)[:, :k]
        else:
            first = np.tile(np.arange(k), (len(smallest), 1))
        members = np.take_along_axis(grouped, first[..., None], 1)
        at = members.argmin(-1)
        rows = np.minimum(first * grouped.shape[2] + at, len(times) - 1)
        uppers = np.take_along_axis(members, at[..., None], 2)[..., 0] + self._width * times[rows]
        both = np.concatenate([self._uppers, uppers], axis=1)
        self._uppers = np.sort(both, axis=1)[:, : self._k]

    def kept(self) -> list[SegmentRows]:
        """Return the remaining rows of each query."""
        answers: list[SegmentRows] = [[] for _ in self._queries]
        limit = self._uppers[:, -1]
        for segment, query, rows, low in self._kept:
            keep = low <= limit[query]
            query, rows = query[keep], rows[keep]
            for q in np.unique(query).tolist() if len(answers) > 1 else [0]:
                answers[q].append((segment, rows[query == q] if len(answers) > 1 else rows))
        return answers


def _probed(centroids: Floats, starts: NDArray[np.int64], probes: int, query: Doubles, curv: float) -> Iterator[slice]:
    """Yield the rows of the cells whose centroids are nearest to log_0(query)."""
    norm = float(np.linalg.norm(query))
    sqrt_c = math.sqrt(curv)
    tangent = query * (math.asinh(sqrt_c * norm) / (sqrt_c * norm)) if norm > 0 else query
    scores = np.einsum("md,md->m", centroids, centroids) / 2 - centroids @ tangent.astype(np.float32)
    probes = min(probes, len(scores))
    cells = np.sort(np.argpartition(scores, probes - 1)[:probes])
    start = stop = -1
    for cell in cells.tolist():  # neighbouring cells are read as one
        if int(starts[cell]) != stop:
            if stop > start:
                yield slice(start, stop)
            start = int(starts[cell])
        stop = int(starts[cell + 1])
    if stop > start:
        yield slice(start, stop)


def within(
    snapshot: Snapshot, masks: Sequence[Mask | None], query: Doubles, distance: float, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are all that lie at most a distance from the query."""
    share = kappa(len(query))
    q_time = math.sqrt(1 / curv + float(query @ query))
    reach = math.sqrt(curv) * distance
    limit = math.cosh(reach) / curv * (1 + 1e-6) if reach < 80 else math.inf
    for i, rows, product in products(snapshot, query):
        low = snapshot[i].columns.times[rows] * np.float32(q_time * (1 - share)) - product
        yield i, kept_rows(low <= np.float32(limit), rows, masks[i])
