"""Cells for the approximate search: k-means of tangent vectors, and the rows of each cell side by side.

An inner-product graph or IVF index of the points themselves misses most neighbours, because the inner product of two
stored points says little about their distance. Tangent vectors at the origin, log_0(x), under the Euclidean distance
keep enough of it to choose cells. Their points are then re-scored exactly, so cells cost recall, never precision. The
rows of the table are put in the order of their cells, so there is no second copy of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.errors import InputError, MissingExtraError
from hypclip.search.exact import measure
from hypclip.search.local import scan_knn
from hypclip.search.local.table import Candidates, Cells, Columns, Keys, Mask, Rows, Segment, Snapshot, gather, selected
from hypclip.search.types import Index
from hypclip.search.where import MODALITIES

_SAMPLE_PER_CELL = 32
_ITERATIONS = 8
_QUERIES = 256
_NEIGHBOURS = 10
_BLOCK = 16_384
_SEED = 0


@dataclass(frozen=True)
class StoredCells:
    """Cells on disk: centroids (m, D), starts (m + 1,), the keys in the order of the cells."""

    centroids: NDArray[np.float32]
    starts: NDArray[np.int64]
    keys: Keys
    probes: int
    recall: float


@dataclass(frozen=True)
class BuiltCells:
    """A segment with cells, and their form on disk."""

    segment: Segment
    stored: StoredCells


def index_of(stored: StoredCells) -> Index:
    """Summarise cells for users."""
    return Index(len(stored.centroids), stored.probes, stored.recall, len(stored.keys))


def build(snapshot: Snapshot, curv: float, dim: int, cell_count: int | None, recall: float) -> BuiltCells:
    """Divide the living rows of a snapshot into cells, and find how many of them a search must look at.

    The recall is measured for points of a random sample, each left out of its own answer: among all points, and among
    those of each modality, because a text looks for images elsewhere than among its own kind. The lowest counts.

    Raises:
        InputError: too few points, or a recall that is no share.
        MissingExtraError: faiss is not installed.
    """
    count = sum(segment.count for segment in snapshot)
    m = cell_count or min(2 ** round(math.log2(4 * math.sqrt(max(1, count)))), max(1, count // 2))
    if not 1 <= m <= count or count <= _NEIGHBOURS:
        raise InputError(
            f"an index divides more than {_NEIGHBOURS} points into cells, got {m} cells for {count} points"
        )
    if not 0 < recall <= 1:
        raise InputError(f"recall must be above 0 and at most 1, got {recall}")
    generator = np.random.default_rng(_SEED)
    sample = _sampled(snapshot, min(count, m * _SAMPLE_PER_CELL), dim, generator)
    centroids = _k_means(_tangents(sample.vectors, curv), m)
    segment = _arranged(snapshot, centroids, curv, dim)
    queries = _sampled(snapshot, min(count, _QUERIES), dim, generator)
    probes, reached = _probes(segment, queries, curv, recall)
    assert segment.cells is not None
    cells = replace(segment.cells, probes=probes)
    return BuiltCells(
        replace(segment, cells=cells), StoredCells(centroids, cells.starts, segment.columns.keys, probes, reached)
    )


class SegmentLoader:
    """Reader of the segment of stored cells; rows that never come were deleted since."""

    def __init__(self, stored: StoredCells, dim: int):
        self._order = np.argsort(stored.keys).astype(np.int32)
        self._cells = Cells(stored.centroids, stored.starts, stored.probes, self._order)
        self._columns = Columns.empty(len(stored.keys), dim)
        self._columns.vectors[:] = 0  # a row that is not read must not be a NaN to the scans
        for column in self._columns[1:]:
            column[:] = 0
        self._columns.keys[:] = stored.keys
        self._alive = np.zeros(len(stored.keys), np.bool_)

    def add(self, keys: Keys, vectors: NDArray[np.float32], modality: NDArray[np.uint8], curv: float) -> Mask:
        """Add the rows that belong here, and return the mask of those that do not."""
        own = self._columns.keys
        rows = self._order[np.minimum(np.searchsorted(own, keys, sorter=self._order), len(own) - 1)]
        ours: Mask = own[rows] == keys
        self._columns.write(rows[ours], Columns.of(keys[ours], vectors[ours], modality[ours], curv))
        self._alive[rows[ours]] = True
        return ~ours

    def finish(self) -> Segment:
        """Return the segment."""
        return Segment(self._columns, self._alive, int(self._alive.sum()), self._cells)


def _k_means(points: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("an index for approximate search needs faiss: pip install 'hypclip[search]'") from error
    k_means: Any = faiss.Kmeans(
        points.shape[1], m, niter=_ITERATIONS, seed=_SEED, min_points_per_centroid=1, max_points_per_centroid=2**30
    )
    k_means.train(points)
    centroids: NDArray[np.float32] = k_means.centroids.astype(np.float32)
    return centroids


def _arranged(snapshot: Snapshot, centroids: NDArray[np.float32], curv: float, dim: int) -> Segment:
    """Return one segment with the living rows in the order of their cells, and of their keys within a cell."""
    half = np.einsum("md,md->m", centroids, centroids) / 2
    rows = [np.flatnonzero(segment.alive) for segment in snapshot]
    cell = np.concatenate(
        [
            np.argmin(half - _tangents(segment.columns.vectors[block], curv) @ centroids.T, axis=1).astype(np.int32)
            for segment, alive in zip(snapshot, rows, strict=True)
            for block in _split(alive)
        ]
    )
    keys = np.concatenate([segment.columns.keys[alive] for segment, alive in zip(snapshot, rows, strict=True)])
    order = np.lexsort((keys, cell))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    columns = Columns.empty(len(order), dim)
    start = 0
    for segment, alive in zip(snapshot, rows, strict=True):
        for block in _split(alive):
            columns.write(place[start : start + len(block)], segment.columns.take(block))
            start += len(block)
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=len(centroids)))]).astype(np.int64)
    by_key = np.argsort(columns.keys).astype(np.int32)
    return Segment(columns, np.ones(len(order), np.bool_), len(order), Cells(centroids, starts, 1, by_key))


def _split(rows: Rows) -> list[Rows]:
    """Split rows into blocks that are quick to copy."""
    return np.array_split(rows, -(-len(rows) // _BLOCK) or 1)


def _probes(segment: Segment, queries: Candidates, curv: float, wanted: float) -> tuple[int, float]:
    """Return the number of probes, a power of two, that reaches a recall, and the recall it has."""
    assert segment.cells is not None
    masks: list[Mask | None] = [None]
    for code in range(len(MODALITIES)):
        mask = segment.columns.modality == code
        if _NEIGHBOURS < np.count_nonzero(mask) < len(mask):
            masks.append(mask)
    truth = [_distances((segment,), mask, queries, curv, probing=False) for mask in masks]
    probes = 1
    while True:
        probes = min(probes, len(segment.cells.centroids))
        probed = replace(segment, cells=replace(segment.cells, probes=probes))
        found = [_distances((probed,), mask, queries, curv, probing=True) for mask in masks]
        recall = min(_recall(f, true) for f, true in zip(found, truth, strict=True))
        if recall >= wanted or probes == len(segment.cells.centroids):
            return probes, recall
        probes *= 2


def _distances(
    snapshot: Snapshot, mask: Mask | None, queries: Candidates, curv: float, probing: bool
) -> list[NDArray[np.float64]]:
    """Return the distances of the nearest of each query, ascending, itself left out."""
    q = queries.vectors.astype(np.float64)
    wanted = min(_NEIGHBOURS + 1, selected(snapshot, [mask]))
    answers = []
    found = scan_knn.nearest(snapshot, [mask], q, wanted, curv, probing)
    for query, key, rows in zip(q, queries.keys, found, strict=True):
        near = gather(snapshot, rows, q.shape[1])
        distance = measure(torch.from_numpy(near.vectors), torch.from_numpy(query), curv).distance.numpy()
        answers.append(np.sort(distance[near.keys != key])[:_NEIGHBOURS])
    return answers


def _recall(found: Sequence[NDArray[np.float64]], true: Sequence[NDArray[np.float64]]) -> float:
    """Return the share of the true neighbours found; of equally near copies any counts."""
    hits = sum(np.count_nonzero(f <= t[-1] * (1 + 1e-9) + 1e-12) for f, t in zip(found, true, strict=True) if len(t))
    return int(hits) / max(1, sum(map(len, true)))


def _sampled(snapshot: Snapshot, count: int, dim: int, generator: np.random.Generator) -> Candidates:
    """Return living rows, each as likely as the other."""
    alive = [np.flatnonzero(segment.alive) for segment in snapshot]
    ends = np.cumsum([len(rows) for rows in alive])
    chosen = np.sort(generator.choice(int(ends[-1]), count, replace=False))
    chosen_rows = [
        (i, rows[chosen[(chosen >= end - len(rows)) & (chosen < end)] - (end - len(rows))])
        for i, (rows, end) in enumerate(zip(alive, ends, strict=True))
    ]
    return gather(snapshot, chosen_rows, dim)


def _tangents(vectors: NDArray[np.float32], curv: float) -> NDArray[np.float32]:
    sinh = math.sqrt(curv) * np.linalg.norm(vectors, axis=1, keepdims=True)
    factor = np.divide(np.arcsinh(sinh), sinh, out=np.ones_like(sinh), where=sinh > 0)
    tangents: NDArray[np.float32] = vectors * factor
    return tangents
