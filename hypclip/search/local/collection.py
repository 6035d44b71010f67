"""A collection as the local store holds it: its table, and what is remembered of filters and cells."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.search.local import ivf
from hypclip.search.local.sqlite import Database
from hypclip.search.local.table import Keys, Table
from hypclip.search.space import Space
from hypclip.search.types import Index
from hypclip.search.where import MODALITIES, Condition, check_modality

_FILTERS = 8
_CODES: dict[str, int] = {modality: code for code, modality in enumerate(MODALITIES)}


class Filters:
    """The keys that met the latest filters. A key stands for one unchanging point, so only newer keys are looked at."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, tuple[int, Keys]] = OrderedDict()

    def keys(self, database: Database, number: int, conditions: Mapping[str, Condition], until: int) -> Keys:
        """Return in ascending order the keys, up to one, of points that meet the conditions."""
        name = repr(sorted(conditions.items()))
        with self._lock:
            seen, keys = self._latest.get(name, (0, np.zeros(0, np.int64)))
        if seen < until:
            keys = np.concatenate([keys, database.matching(number, conditions, seen, until)])
            seen = until
        with self._lock:
            self._latest[name] = seen, keys
            self._latest.move_to_end(name)
            while len(self._latest) > _FILTERS:
                self._latest.popitem(last=False)
        return keys


@dataclass
class Held:
    """A collection in memory."""

    number: int
    space: Space
    table: Table
    fields: set[str] = field(default_factory=set)
    index: Index | None = None
    filters: Filters = field(default_factory=Filters)
    writes: int = 0

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a write: `writes` is odd while disk and memory may differ."""
        self.writes += 1
        try:
            yield
        finally:
            self.writes += 1


class Loading:
    """A collection while it is read: rows of cells go to their places, later ones behind."""

    def __init__(self, name: str, space: Space, fields: set[str], stored: ivf.Stored | None):
        self.name, self._space, self._fields = name, space, fields
        self._stored = stored
        if stored is not None and stored.centroids.shape[1] != space.dim:
            raise ValueError(f"the cells of collection {name!r} are not of {space.dim} numbers")
        self._table = Table(space.curv, space.dim)
        self._segment = None if stored is None else ivf.Restored(stored, space.dim)

    def add(self, rows: Sequence[tuple[int, bytes, str]]) -> None:
        """Take points in ascending order of their keys; ValueError where one is damaged."""
        if {len(vector) for _, vector, _ in rows} != {4 * self._space.dim}:
            raise ValueError(f"collection {self.name!r} has a vector that is not of {self._space.dim} numbers")
        keys = np.asarray([key for key, _, _ in rows], np.int64)
        vectors = np.frombuffer(bytearray().join(vector for _, vector, _ in rows), "<f4").reshape(len(rows), -1)
        self._space.check_points(torch.from_numpy(vectors))
        codes = codes_of([modality for _, _, modality in rows])
        if self._segment is not None:
            rest = self._segment.add(keys, vectors, codes, self._space.curv)
            keys, vectors, codes = keys[rest], vectors[rest], codes[rest]
        self._table.put(keys, vectors, codes)

    def finish(self, number: int) -> Held:
        """Return the collection."""
        if self._segment is None or self._stored is None:
            return Held(number, self._space, self._table, self._fields)
        self._table.snapshot = (self._segment.finish(), *self._table.snapshot)
        return Held(number, self._space, self._table, self._fields, ivf.describe(self._stored))


def codes_of(modality: Sequence[str]) -> NDArray[np.uint8]:
    """Return modalities as the numbers that a table holds; InputError where one is none."""
    check_modality(modality)
    return np.asarray([_CODES[one] for one in modality], np.uint8)
