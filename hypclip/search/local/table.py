"""The points of one collection in memory: arrays to scan, written by appending, read without a lock.

A row has its space components in float32 and 24 bytes besides. Ids and metadata stay on disk; a row has the key of its
point there, a number that is given once and never again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.geometry import lorentz
from hypclip.search.limits import MAX_RHO
from hypclip.search.where import MODALITIES, Where

SEGMENT_ROWS = 65_536
SHELLS_PER_UNIT = 128
"""A shell is a range of √c · radius of 1/128, so narrow that the cones within are of nearly one width."""

Rows = NDArray[np.integer[Any]]
Keys = NDArray[np.int64]
Mask = NDArray[np.bool_]
_NO_MARKS: Mask = np.zeros(0, np.bool_)


@dataclass(frozen=True)
class Cells:
    """How the rows of a segment are divided for the approximate search: those of cell i are starts[i]…starts[i + 1].

    Args:
        centroids: (m, D) tangent vectors at the origin.
        starts: (m + 1,) first rows.
        probes: how many cells a search looks at.
        order: (n,) rows in ascending order of their keys.
    """

    centroids: NDArray[np.float32]
    starts: NDArray[np.int64]
    probes: int
    order: NDArray[np.int32]


class Columns(NamedTuple):
    """Columns of n points: space components (n, D), |x|, x_t, the shell of the radius, key, code of modality."""

    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    times: NDArray[np.float32]
    shells: NDArray[np.uint16]
    keys: Keys
    modality: NDArray[np.uint8]

    @classmethod
    def of(cls, keys: Keys, vectors: NDArray[np.float32], modality: NDArray[np.uint8], curv: float) -> Columns:
        """Compute those of some points."""
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        shells = np.floor(SHELLS_PER_UNIT * np.arcsinh(math.sqrt(curv) * norms)).astype(np.uint16)
        times = np.sqrt(1 / curv + norms**2)
        return cls(vectors, norms.astype(np.float32), times.astype(np.float32), shells, keys, modality)

    @classmethod
    def empty(cls, n: int, dim: int) -> Columns:
        """Make room for n points; the system provides the memory as they are written."""
        return cls(
            np.empty((n, dim), np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.uint16),
            np.empty(n, np.int64),
            np.empty(n, np.uint8),
        )

    def take(self, rows: Rows | slice) -> Columns:
        """Return some rows: a view of a slice, a copy of others."""
        return Columns(*(column[rows] for column in self.arrays()))

    def write(self, rows: Rows | slice, values: Columns) -> None:
        """Replace some rows."""
        for column, value in zip(self.arrays(), values.arrays(), strict=True):
            column[rows] = value

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the columns in order."""
        return tuple(self)


@dataclass(frozen=True)
class Segment:
    """Rows that no later write changes, but for the `alive` marks, of which a later snapshot has its own."""

    columns: Columns
    alive: Mask
    count: int
    cells: Cells | None = None

    def __len__(self) -> int:
        return len(self.alive)

    def find(self, keys: Keys) -> Rows:
        """Return the rows that have these keys, dead ones too; keys that are elsewhere are passed over."""
        if not len(self.columns.keys) or not len(keys):
            return np.zeros(0, np.intp)
        sorter = None if self.cells is None else self.cells.order
        at = np.minimum(np.searchsorted(self.columns.keys, keys, sorter=sorter), len(self.columns.keys) - 1)
        rows: Rows = at if sorter is None else sorter[at].astype(np.intp)
        found: Rows = rows[self.columns.keys[rows] == keys]
        return found

    def without(self, keys: Keys) -> Segment:
        """Return the segment with these rows dead."""
        rows = self.find(keys)
        if not len(rows) or not self.alive[rows].any():
            return self
        alive = self.alive.copy()
        alive[rows] = False
        return replace(self, alive=alive, count=int(alive.sum()))

    def take(self, rows: Rows) -> Segment:
        """Copy some rows, in ascending order of keys, into a segment of their own."""
        rows = rows[np.argsort(self.columns.keys[rows], kind="stable")]
        return Segment(self.columns.take(rows), np.ones(len(rows), np.bool_), len(rows))


Snapshot = tuple[Segment, ...]


@dataclass(frozen=True)
class Candidates:
    """Rows of a snapshot that a search must look at closely, with copies of their vectors."""

    keys: Keys
    vectors: NDArray[np.float32]
    modality: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)


def gather(snapshot: Snapshot, rows_of: Sequence[tuple[int, Rows]], dim: int) -> Candidates:
    """Copy rows, given by segment, into one block."""
    segments = [(snapshot[i], rows) for i, rows in rows_of if len(rows)]
    if not segments:
        return Candidates(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), np.zeros(0, np.uint8))
    return Candidates(
        np.concatenate([s.columns.keys[rows] for s, rows in segments]),
        np.concatenate([s.columns.vectors[rows] for s, rows in segments]),
        np.concatenate([s.columns.modality[rows] for s, rows in segments]),
    )


class _Tail:
    """The segment that grows."""

    def __init__(self, dim: int):
        self._columns = Columns.empty(SEGMENT_ROWS, dim)
        self._used = 0

    @property
    def room(self) -> int:
        return SEGMENT_ROWS - self._used

    def segment(self, alive: Mask) -> Segment:
        """Return the rows written so far; rows without a mark are alive."""
        marks = np.concatenate([alive, np.ones(self._used - len(alive), np.bool_)])
        return Segment(self._columns.take(slice(self._used)), marks, int(marks.sum()))

    def append(self, rows: Columns) -> None:
        """Write behind what is there."""
        end = self._used + len(rows.keys)
        self._columns.write(slice(self._used, end), rows)
        self._used = end


@dataclass
class Table:
    """The points of one collection.

    A search works on `snapshot`, one consistent state, which no later call changes. Replacing a point appends a row and
    leaves the old one dead; segments that are mostly dead are rewritten.

    Args:
        curv: c > 0.
        dim: D.
    """

    curv: float
    dim: int
    snapshot: Snapshot = ()
    _tail: _Tail = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tail = _Tail(self.dim)
        self.snapshot = (*self.snapshot, self._tail.segment(_NO_MARKS))

    def __len__(self) -> int:
        return sum(segment.count for segment in self.snapshot)

    def put(
        self, keys: Keys, vectors: NDArray[np.float32], modality: NDArray[np.uint8], replaced: Keys | None = None
    ) -> None:
        """Append points with new, ascending keys; those with the keys `replaced` are dead from then on."""
        with self._lock:
            segments = list(self._without(replaced))
            start = 0
            while start < len(keys):
                if not self._tail.room:
                    segments = self._tidied(segments)
                    self._tail = _Tail(self.dim)
                    segments.append(self._tail.segment(_NO_MARKS))
                part = slice(start, start + self._tail.room)
                self._tail.append(Columns.of(keys[part], vectors[part], modality[part], self.curv))
                segments[-1] = self._tail.segment(segments[-1].alive)
                start = part.stop
            self.snapshot = tuple(segments)

    def remove(self, keys: Keys) -> None:
        """Make the points with these keys dead."""
        with self._lock:
            segments = list(self._without(keys))
            self.snapshot = (*self._tidied(segments[:-1]), segments[-1])

    def adopt(self, indexed: Segment, seen: Snapshot) -> None:
        """Put an indexed segment in the place of the rows it was made from, those of the snapshot `seen`.

        Rows written since stay behind it; rows that died since are dead in it too.
        """
        with self._lock:
            last = max((int(s.columns.keys.max()) for s in seen if len(s)), default=-1)
            newer = [s.take(np.flatnonzero(s.alive & (s.columns.keys > last))) for s in self.snapshot]
            alive_keys = np.concatenate([s.columns.keys[s.alive] for s in self.snapshot])
            gone = np.setdiff1d(indexed.columns.keys, alive_keys, assume_unique=True)
            self._tail = _Tail(self.dim)
            tail = self._tail.segment(_NO_MARKS)
            self.snapshot = (indexed.without(gone), *self._tidied([s for s in newer if len(s)]), tail)

    def _without(self, keys: Keys | None) -> Snapshot:
        if keys is None or not len(keys):
            return self.snapshot
        ordered = np.sort(keys)
        return tuple(segment.without(ordered) for segment in self.snapshot)

    def _tidied(self, segments: list[Segment]) -> list[Segment]:
        """Rewrite what is mostly dead, and join neighbours that fit into one segment."""
        tidy: list[Segment] = []
        for segment in segments:
            if segment.count < len(segment) / 2:
                segment = segment.take(np.flatnonzero(segment.alive))
            if tidy and not tidy[-1].cells and not segment.cells and len(tidy[-1]) + len(segment) <= SEGMENT_ROWS // 2:
                segment = _joined(tidy.pop(), segment)
            if len(segment):
                tidy.append(segment)
        return tidy


def select(snapshot: Snapshot, where: Where, keys: Keys | None, curv: float) -> list[Mask | None]:
    """Return for each segment which rows are alive and wanted; None for all of them.

    Args:
        snapshot: what to search.
        where: modality and radii; its filter has been turned into `keys`.
        keys: ascending keys of the points that meet the filter, None for all.
        curv: c > 0.
    """
    masks: list[Mask | None] = []
    for segment in snapshot:
        mask = None if segment.count == len(segment) else segment.alive
        if keys is not None:
            wanted = np.zeros(len(segment), np.bool_)
            wanted[segment.find(keys)] = True
            mask = wanted if mask is None else wanted & mask
        if where.modality is not None:
            wanted = segment.columns.modality == MODALITIES.index(where.modality)
            mask = wanted if mask is None else wanted & mask
        if where.by_radius:
            wanted = _in_range(segment, where, curv)
            mask = wanted if mask is None else wanted & mask
        masks.append(mask)
    return masks


def selected(snapshot: Snapshot, masks: Sequence[Mask | None]) -> int:
    """Count the selected rows."""
    return sum(len(s) if m is None else int(np.count_nonzero(m)) for s, m in zip(snapshot, masks, strict=True))


def count_modalities(snapshot: Snapshot) -> list[int]:
    """Count the living rows of each modality, in the order of `MODALITIES`."""
    counts = np.zeros(len(MODALITIES), np.int64)
    for segment in snapshot:
        counts += np.bincount(segment.columns.modality[segment.alive], minlength=len(MODALITIES))
    return [int(count) for count in counts]


def segment_rows(snapshot: Snapshot, masks: Sequence[Mask | None]) -> Iterator[tuple[int, Rows]]:
    """Yield the selected rows, segment by segment."""
    for i, (segment, mask) in enumerate(zip(snapshot, masks, strict=True)):
        yield i, np.arange(len(segment)) if mask is None else np.flatnonzero(mask)


def _in_range(segment: Segment, where: Where, curv: float) -> Mask:
    """Compare radii: the float32 norms, and those from the vectors in float64 where they cannot tell."""
    sqrt_c = math.sqrt(curv)
    low, high = (_sinh(sqrt_c * radius) / sqrt_c for radius in (where.min_radius, where.max_radius))
    mask: Mask = (segment.columns.norms >= low) & (segment.columns.norms <= high)
    unsure = np.zeros(len(segment), np.bool_)
    for bound in (low, high):
        if math.isfinite(bound):
            unsure |= np.abs(segment.columns.norms - bound) <= 1e-6 * bound
    rows = np.flatnonzero(unsure)
    radii = lorentz.radius(torch.from_numpy(segment.columns.vectors[rows]).double(), curv).numpy()
    mask[rows] = (radii >= where.min_radius) & (radii <= where.max_radius)
    return mask


def _sinh(x: float) -> float:
    return math.sinh(x) if x < 2 * MAX_RHO else math.inf  # farther than any point, and no overflow of float32


def _joined(first: Segment, second: Segment) -> Segment:
    columns = Columns(
        *(np.concatenate(both) for both in zip(*(s.columns.arrays() for s in (first, second)), strict=True))
    )
    return Segment(columns, np.concatenate([first.alive, second.alive]), first.count + second.count)
