"""All points of a Qdrant collection, held in memory until it changes."""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from hypclip.errors import InputError
from hypclip.search.contents import Block, Contents
from hypclip.search.qdrant import codec
from hypclip.search.qdrant.catalogue import Catalogue
from hypclip.search.qdrant.link import Link
from hypclip.search.where import MODALITIES

MOST = 2_000_000
"""Most points that are held: of more dimensions than a thousand they would not fit the memory of a server."""
REMEMBERED_S = 60.0
"""So long a point that another program replaces may be seen as it was; a change of the count is seen at once."""


@dataclass(frozen=True)
class Numbered:
    """The points of a collection in ascending order of their keys, and their names in Qdrant.

    The key of a point is the first 32 bits of its name, or the next number where a smaller name has that. So it stays
    whatever is written, but for one in some ten thousand points where there are a hundred thousand.
    """

    contents: Contents
    keys: NDArray[np.int64]
    uuids: list[str]

    def key(self, uuid: str) -> int | None:
        """Return the key of a point by its name in Qdrant; None where it is not among these."""
        row = bisect_left(self.uuids, uuid)
        return int(self.keys[row]) if row < len(self.uuids) and self.uuids[row] == uuid else None

    def with_keys(self, keys: Sequence[int]) -> list[str]:
        """Return the names of those points that have these keys."""
        asked = np.unique(np.asarray(keys, np.int64))
        rows = np.searchsorted(self.keys, asked)
        found = [row for row, key in zip(rows, asked, strict=True) if row < len(self.keys) and self.keys[row] == key]
        return [self.uuids[row] for row in found]


@dataclass(frozen=True)
class _Remembered:
    numbered: Numbered
    state: tuple[int, int]
    read_at: float


class Reader:
    """Reader of whole collections, which remembers each until it has changed.

    Args:
        link: to Qdrant.
        catalogue: of its collections.
        prefix: of their names.
    """

    def __init__(self, link: Link, catalogue: Catalogue, prefix: str):
        self._link, self._catalogue, self._prefix = link, catalogue, prefix
        self._remembered: dict[str, _Remembered] = {}
        self._reading = threading.Lock()

    def known(self, name: str) -> Numbered | None:
        """Return a collection as it was when it was last read, if it was."""
        remembered = self._remembered.get(name)
        return None if remembered is None else remembered.numbered

    def read(self, name: str) -> Numbered:
        """Return a collection as it is, or as it was up to a minute ago.

        Raises:
            InputError: it has more than `MOST` points.
        """
        with self._reading:
            state = (self._catalogue.points(name), self._catalogue.writes[name])
            if state[0] > MOST:
                raise InputError(
                    f"collection {name!r} has {state[0]:,} points; of one in Qdrant up to {MOST:,} are read at once"
                )
            known = self._remembered.get(name)
            if known is None or known.state != state or time.monotonic() > known.read_at + REMEMBERED_S:
                known = _Remembered(self._scrolled(name), state, time.monotonic())
                self._remembered[name] = known
            return known.numbered

    def _scrolled(self, name: str) -> Numbered:
        space = self._catalogue.space(name)
        scroll = partial(
            self._link.client.scroll,
            self._prefix + name,
            limit=codec.rows_per_answer(space),
            with_payload=["modality"],
            with_vectors=["lorentz"],
        )
        uuids: list[str] = []
        rows: list[NDArray[np.float32]] = [np.zeros((0, space.dim), np.float32)]
        codes: list[int] = []
        after: models.ExtendedPointId | None = None
        while True:
            records, after = self._link.ask(name, partial(scroll, offset=after))
            if records:
                uuids += [str(record.id) for record in records]
                named = [cast(dict[str, Any], record.vector)["lorentz"][: space.dim] for record in records]
                rows.append(np.array(named, np.float32))
                codes += [MODALITIES.index((record.payload or {})["modality"]) for record in records]
            if after is None:
                return numbered(uuids, np.concatenate(rows), np.array(codes, np.uint8))


def numbered(uuids: Sequence[str], vectors: NDArray[np.float32], modality: NDArray[np.uint8]) -> Numbered:
    """Give points their keys, and the state that they are a name."""
    order = sorted(range(len(uuids)), key=uuids.__getitem__)
    names, vectors, modality = [uuids[row] for row in order], vectors[order], modality[order]
    place = np.arange(len(names))
    first = np.array([int(name[:8], 16) for name in names], np.int64)
    keys = np.maximum.accumulate(first - place) + place if len(names) else first
    digest = hashlib.blake2b("".join(names).encode(), digest_size=12)
    digest.update(np.ascontiguousarray(vectors, "<f4").tobytes())
    digest.update(modality.tobytes())
    blocks = [Block(keys, vectors, modality)] if len(names) else []
    return Numbered(Contents(digest.hexdigest(), len(names), lambda: blocks), keys, names)
