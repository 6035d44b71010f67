"""A collection of the local store in memory: table, index, and the keys that the latest filters matched."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.search.browse import Fields
from hypclip.search.contents import Block, Contents
from hypclip.search.local import ivf
from hypclip.search.local.sqlite import Database
from hypclip.search.local.table import Keys, Segment, Snapshot, Table
from hypclip.search.space import Space
from hypclip.search.types import Index
from hypclip.search.where import MODALITIES, Condition, check_modality

_FILTERS = 8
_CODES: dict[str, int] = {modality: code for code, modality in enumerate(MODALITIES)}


class Filters:
    """Cache of the keys that match the latest filters; points never change under a key, so only newer keys are read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, tuple[int, Keys]] = OrderedDict()

    def keys(self, database: Database, number: int, conditions: Mapping[str, Condition], until: int) -> Keys:
        """Return the keys up to `until` of the points that meet the conditions, ascending."""
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
class LoadedCollection:
    """A collection in memory; `described` are its fields, and `writes` when they were counted."""

    number: int
    space: Space
    table: Table
    fields: set[str] = field(default_factory=set)
    index: Index | None = None
    filters: Filters = field(default_factory=Filters)
    writes: int = 0
    described: tuple[int, Fields] | None = None
    describing: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Mark a write: `writes` is odd while disk and memory may differ."""
        self.writes += 1
        try:
            yield
        finally:
            self.writes += 1


def contents(snapshot: Snapshot) -> Contents:
    """Return the living rows of a snapshot.

    Keys are given once and points never change under theirs. So of two states of a collection with the same greatest
    key and as many points, the later one can only have lost points, and has lost none.
    """
    alive = [segment for segment in snapshot if segment.count]
    last = max((int(segment.columns.keys[segment.alive].max()) for segment in alive), default=0)
    count = sum(segment.count for segment in alive)
    return Contents(f"{last}-{count}", count, lambda: [_living(segment) for segment in alive])


class CollectionLoader:
    """Reader of one collection from disk: rows with cells go into their segment, later ones into the table."""

    def __init__(self, name: str, space: Space, fields: set[str], stored: ivf.StoredCells | None):
        self.name, self._space, self._fields = name, space, fields
        self._stored = stored
        if stored is not None and stored.centroids.shape[1] != space.dim:
            raise ValueError(f"the cells of collection {name!r} are not of {space.dim} numbers")
        self._table = Table(space.curv, space.dim)
        self._segment = None if stored is None else ivf.SegmentLoader(stored, space.dim)

    def add(self, rows: Sequence[tuple[int, bytes, str]]) -> None:
        """Add points in ascending order of their keys.

        Raises:
            ValueError: one is damaged.
        """
        if {len(vector) for _, vector, _ in rows} != {4 * self._space.dim}:
            raise ValueError(f"collection {self.name!r} has a vector that is not of {self._space.dim} numbers")
        keys = np.asarray([key for key, _, _ in rows], np.int64)
        vectors = np.frombuffer(bytearray().join(vector for _, vector, _ in rows), "<f4").reshape(len(rows), -1)
        self._space.check_points(torch.from_numpy(vectors))
        codes = modality_codes([modality for _, _, modality in rows])
        if self._segment is not None:
            rest = self._segment.add(keys, vectors, codes, self._space.curv)
            keys, vectors, codes = keys[rest], vectors[rest], codes[rest]
        self._table.put(keys, vectors, codes)

    def finish(self, number: int) -> LoadedCollection:
        """Return the collection."""
        if self._segment is None or self._stored is None:
            return LoadedCollection(number, self._space, self._table, self._fields)
        self._table.snapshot = (self._segment.finish(), *self._table.snapshot)
        return LoadedCollection(number, self._space, self._table, self._fields, ivf.index_of(self._stored))


def modality_codes(modality: Sequence[str]) -> NDArray[np.uint8]:
    """Return modalities as the numbers that a table has for them.

    Raises:
        InputError: one is no modality.
    """
    check_modality(modality)
    return np.asarray([_CODES[one] for one in modality], np.uint8)


def _living(segment: Segment) -> Block:
    rows = slice(None) if segment.count == len(segment) else segment.alive
    columns = segment.columns
    return Block(columns.keys[rows], columns.vectors[rows], columns.modality[rows])
