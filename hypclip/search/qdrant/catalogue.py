"""Spaces and sizes of Qdrant collections, remembered for a moment.

A request asks for the space of its collection several times: to refuse a collection of another model, to read points by
id, to search. A collection keeps its space for life, and hypclip deletes none, so one answer serves them all.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from qdrant_client import models

from hypclip.errors import StoreError
from hypclip.search.errors import Unavailable, UnknownCollection
from hypclip.search.qdrant import codec
from hypclip.search.qdrant.link import Link
from hypclip.search.space import Space

REMEMBERED_S = 1.0
"""A collection that another program deletes, and makes again of another model, may pass for the old one so long."""

_SIZES_S = 10.0
"""How long sizes are remembered: they are for those who watch, and asked for again and again."""


@dataclass(frozen=True)
class _Entry:
    space: Space
    points: int | None
    read_at: float


class Catalogue:
    """The collections behind a link.

    Args:
        link: to Qdrant.
        prefix: of the names of our Qdrant collections.
        indexes: payload fields to index, and the types of their values.

    Attributes:
        writes: how many writes of ours each collection has had.
    """

    def __init__(self, link: Link, prefix: str, indexes: Mapping[str, str]):
        self._link, self._prefix, self._indexes = link, prefix, indexes
        self._entries: dict[str, _Entry] = {}
        self.writes: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._sizes_until = -math.inf

    def names(self) -> list[str]:
        """Ask Qdrant for the names of the collections that have our prefix; return them without it."""
        there = self._link.ask("", self._link.client.get_collections).collections
        return sorted(one.name.removeprefix(self._prefix) for one in there if one.name.startswith(self._prefix))

    def info(self, name: str) -> models.CollectionInfo:
        """Ask Qdrant for a collection, whoever made it."""
        return self._link.ask(name, partial(self._link.client.get_collection, self._prefix + name))

    def space(self, name: str) -> Space:
        """Return the space of a collection, as it was a moment ago."""
        return self._entry(name).space

    def points(self, name: str) -> int:
        """Return about how many points a collection has; exact after a write of ours."""
        entry = self._entry(name)
        return self._read(name)[0].points or 0 if entry.points is None else entry.points

    def create(self, name: str, space: Space, shards: int | None, replicas: int) -> None:
        """Make a collection, unless another process was first.

        Raises:
            StoreError: the server is older than 1.16.
        """
        version = "" if self._link.local else self._link.ask(name, self._link.client.info).version
        if version and [int(part) for part in version.split(".")[:2]] < [1, 16]:
            raise StoreError(f"Qdrant {self._link.address} is {version}; metadata of collections need 1.16 or later")
        create = partial(
            self._link.client.create_collection,
            self._prefix + name,
            codec.vectors(space),
            shard_number=shards,
            replication_factor=replicas,
            write_consistency_factor=replicas // 2 + 1,
            metadata=codec.own_metadata(space),
        )
        try:
            self._link.ask(name, create)
        except Unavailable:
            raise
        except StoreError as error:
            # Another process may have been first, or of two tries the answer to the first was lost.
            with contextlib.suppress(UnknownCollection):
                self.info(name)
                return
            raise error from error.__cause__

    def sizes(self) -> dict[str, int]:
        """Return about how many points each collection of hypclip has, as it was some seconds ago."""
        if time.monotonic() >= self._sizes_until:
            sizes = {}
            for name in self.names():
                try:
                    sizes[name] = self.points(name)
                except Unavailable:
                    raise
                except StoreError:  # hypclip did not make it, or it is gone meanwhile
                    continue
            self._sizes, self._sizes_until = sizes, time.monotonic() + _SIZES_S
        return dict(self._sizes)

    def migrate(self, name: str) -> Space:
        """Make the payload indexes that a collection lacks, and return its space."""
        entry, info = self._read(name)
        there = {key.replace('"', "") for key in info.payload_schema}
        for key, kind in self._indexes.items():
            # Local mode has no indexes.
            if not self._link.local and key.replace('"', "") not in there:
                schema = models.PayloadSchemaType(kind)
                create = partial(self._link.client.create_payload_index, self._prefix + name, key, schema)
                self.write(name, create)
        return entry.space

    def write(self, name: str, call: Callable[[], models.UpdateResult]) -> None:
        """Make a call that writes.

        Raises:
            Unavailable: the write was not finished in time.
        """
        result = self._link.ask(name, call)
        self.writes[name] += 1
        if entry := self._entries.get(name):
            self._entries[name] = replace(entry, points=None)
        if result.status != models.UpdateStatus.COMPLETED:
            raise Unavailable(f"Qdrant {self._link.address} did not finish a write in time: {result.status}")

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is not None and time.monotonic() < entry.read_at + REMEMBERED_S:
            return entry
        return self._read(name)[0]

    def _read(self, name: str) -> tuple[_Entry, models.CollectionInfo]:
        try:
            info = self.info(name)
            entry = _Entry(codec.space_of(name, info), info.points_count or 0, time.monotonic())
        except StoreError:
            self._entries.pop(name, None)
            raise
        self._entries[name] = entry
        return entry, info
