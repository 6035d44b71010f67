"""The points of one collection in memory: contiguous arrays, an exact scan, and readers that never wait for writers."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.geometry import lorentz
from hypclip.search.store import Hit, Modality, Space

MODALITIES: tuple[Modality, ...] = get_args(Modality)
_MIN_CAPACITY = 1024
_RESCORE_ROWS = 8192
_MISSING = object()


@dataclass(frozen=True)
class Snapshot:
    """What a search sees: N rows that no later write changes. Rows replaced or deleted are not `alive`.

    The lists may be longer than N: a writer appends to them, and a reader looks at the first N only.
    """

    vectors: NDArray[np.float32]
    norms: NDArray[np.float64]
    times: NDArray[np.float64]
    modality: NDArray[np.uint8]
    alive: NDArray[np.bool_]
    ids: list[str]
    metadata: list[Mapping[str, Any]]


class Table:
    """The points of one collection.

    Rows are only ever appended; replacing and deleting clear a row's `alive` mark, in a copy of the marks. So a search
    works on one consistent snapshot without a lock. The arrays are compacted when they are full or mostly dead.
    """

    def __init__(self, space: Space):
        self.space = space
        self._lock = threading.Lock()
        self._rows: dict[str, int] = {}
        self._allocate(_MIN_CAPACITY)
        self._snapshot = self._take(np.zeros(0, np.bool_), [], [])

    def __len__(self) -> int:
        return len(self._rows)

    def put(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        modality: NDArray[np.uint8],
        metadata: Sequence[Mapping[str, Any]],
    ) -> None:
        """Append points; those whose id is there already replace it."""
        with self._lock:
            seen = self._snapshot
            alive = seen.alive.copy()
            alive[[self._rows[i] for i in ids if i in self._rows]] = False
            if len(alive) + len(ids) > len(self._vectors):
                seen = self._compact(alive, room=len(ids))
                alive = seen.alive
            start, end = len(alive), len(alive) + len(ids)
            self._vectors[start:end] = vectors
            self._norms[start:end] = np.linalg.norm(vectors.astype(np.float64), axis=1)
            self._times[start:end] = np.sqrt(1 / self.space.curv + self._norms[start:end] ** 2)
            self._modality[start:end] = modality
            seen.ids.extend(ids)
            seen.metadata.extend(metadata)
            self._rows.update(zip(ids, range(start, end), strict=True))
            marks = np.concatenate([alive, np.ones(len(ids), np.bool_)])
            self._snapshot = self._take(marks, seen.ids, seen.metadata)

    def remove(self, ids: Sequence[str]) -> int:
        """Delete points and return how many were there."""
        with self._lock:
            gone = [self._rows.pop(i) for i in ids if i in self._rows]
            seen = self._snapshot
            alive = seen.alive.copy()
            alive[gone] = False
            crowded = len(alive) > max(_MIN_CAPACITY, 2 * len(self._rows))
            self._snapshot = self._compact(alive, 0) if crowded else self._take(alive, seen.ids, seen.metadata)
            return len(gone)

    def get(self, ids: Sequence[str]) -> tuple[NDArray[np.float32], list[Modality], list[Mapping[str, Any]]]:
        """Return vectors, modalities and metadata in the order of `ids`; KeyError for one that is not there."""
        with self._lock:
            rows = [self._rows[i] for i in ids]
            seen = self._snapshot
            modality = [MODALITIES[seen.modality[row]] for row in rows]
            return seen.vectors[rows], modality, [seen.metadata[row] for row in rows]

    def nearest(
        self,
        query: Float[Tensor, " d"],
        k: int,
        modality: Modality | None,
        filter: Mapping[str, Any] | None,
    ) -> list[Hit]:
        """Return the k nearest points, by distance and then by id.

        Every row is scored by x_t q_t − x·q, which grows with the distance. The matmul x·q runs in float32, the rest
        in float64; its rounding is at most (D + 3) 2⁻²⁴ |x||q| in whatever order it sums. All rows that could be among
        the first k within that bound are measured again by `lorentz.dist` in float64, and those distances decide. So
        the result is exact for the stored float32 points up to the rounding of float64, near duplicates included, and
        the distance of a point to itself is 0.
        """
        seen = self._snapshot
        selected = _select(seen, modality, filter)
        k = min(k, len(selected))
        if k == 0:
            return []
        curv, dim = self.space.curv, self.space.dim
        q = query.double().numpy()
        q_norm = float(np.linalg.norm(q))
        q_time = math.sqrt(1 / curv + q_norm**2)
        product = seen.vectors @ q.astype(np.float32)
        score = (seen.times * q_time - product)[selected]
        # 2⁻⁵⁰ covers the float64 roundings: two square roots, the product, the difference.
        slack = ((dim + 3) * 2.0**-24 * q_norm * seen.norms + 2.0**-50 * q_time * seen.times)[selected]
        worst = np.partition(score + slack, k - 1)[k - 1]
        candidates = selected[score - slack <= worst]
        distances = _distances(seen.vectors, candidates, query.double(), curv)
        first = distances <= np.partition(distances, k - 1)[k - 1]
        ranked = sorted(
            (distance, seen.ids[row], row)
            for distance, row in zip(distances[first].tolist(), candidates[first].tolist(), strict=True)
        )
        return [
            Hit(
                id=point_id,
                distance=distance,
                radius=math.asinh(math.sqrt(curv) * seen.norms[row]) / math.sqrt(curv),
                modality=MODALITIES[seen.modality[row]],
                metadata=seen.metadata[row],
            )
            for distance, point_id, row in ranked[:k]
        ]

    def _allocate(self, capacity: int) -> None:
        self._vectors = np.empty((capacity, self.space.dim), np.float32)
        self._norms = np.empty(capacity, np.float64)
        self._times = np.empty(capacity, np.float64)
        self._modality = np.empty(capacity, np.uint8)

    def _take(self, alive: NDArray[np.bool_], ids: list[str], metadata: list[Mapping[str, Any]]) -> Snapshot:
        n = len(alive)
        return Snapshot(self._vectors[:n], self._norms[:n], self._times[:n], self._modality[:n], alive, ids, metadata)

    def _compact(self, alive: NDArray[np.bool_], room: int) -> Snapshot:
        """Copy the living rows into fresh arrays with room to grow; earlier snapshots keep the old arrays."""
        old, keep = self._snapshot, np.flatnonzero(alive)
        n = len(keep)
        self._allocate(max(_MIN_CAPACITY, 2 * (n + room)))
        self._vectors[:n] = old.vectors[keep]
        self._norms[:n] = old.norms[keep]
        self._times[:n] = old.times[keep]
        self._modality[:n] = old.modality[keep]
        ids = [old.ids[row] for row in keep]
        self._rows = {point_id: row for row, point_id in enumerate(ids)}
        return self._take(np.ones(n, np.bool_), ids, [old.metadata[row] for row in keep])


def _select(seen: Snapshot, modality: Modality | None, filter: Mapping[str, Any] | None) -> NDArray[np.intp]:
    """Return the rows that are alive, of the modality, and whose metadata has every field of the filter."""
    marks = seen.alive
    if modality is not None:
        marks = marks & (seen.modality == MODALITIES.index(modality))
    rows = np.flatnonzero(marks)
    if not filter:
        return rows
    matching = [row for row in rows.tolist() if _matches(seen.metadata[row], filter)]
    return np.asarray(matching, dtype=np.intp)


def _matches(metadata: Mapping[str, Any], filter: Mapping[str, Any]) -> bool:
    """Compare as JSON does: 1 equals 1.0 but not true, null equals null but not a missing field."""
    for field, wanted in filter.items():
        value = metadata.get(field, _MISSING)
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            return False
    return True


def _distances(vectors: NDArray[np.float32], rows: NDArray[np.intp], query: Tensor, curv: float) -> NDArray[np.float64]:
    """Return the distances of some rows to the query, in blocks that keep the float64 copies small."""
    distances = []
    for block in np.array_split(rows, math.ceil(len(rows) / _RESCORE_ROWS)):
        x = torch.from_numpy(vectors[block]).double()
        distances.append(lorentz.dist(x, query.expand_as(x), curv).numpy())
    return np.concatenate(distances)
