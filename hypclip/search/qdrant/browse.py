"""Browsing of a collection in Qdrant, which sorts points by radius and by its own names, not by ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from qdrant_client import models

from hypclip.search.browse import (
    MAX_SAMPLE,
    FieldCounter,
    Fields,
    Listed,
    Listing,
    Order,
    check_listing,
    of_cursor,
    rounded,
    to_cursor,
)
from hypclip.search.given import as_ids
from hypclip.search.qdrant import codec, filters
from hypclip.search.qdrant.contents import Reader
from hypclip.search.qdrant.link import Link
from hypclip.search.where import ANYTHING, MODALITIES, Modality, Where, matches

REMEMBERED_S = 60.0
"""How long the fields of a collection are those of before, whoever writes to it meanwhile."""

_READ = ["id", "modality", "radius", "json"]
_ROWS = 1024

T = TypeVar("T")


@dataclass
class Described:
    """Memory of the fields of collections, and when they were read."""

    latest: dict[str, tuple[float, Fields]] = field(default_factory=dict)


class QdrantBrowser:
    """A `Browser` of one collection; the order "id" is by a hash of the ids.

    Points have the keys that they had when the whole collection was last read, and none before that.

    Args:
        link: to Qdrant.
        prefix: of the names of our Qdrant collections.
        name: of the collection.
        reader: of whole collections, which numbers their points.
        count: counts the points that meet conditions; UnknownField where no point has a field of them.
        described: what is known of the fields of collections.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        name: str,
        reader: Reader,
        count: Callable[[Where], int],
        described: Described,
    ):
        self._link, self._name, self._reader, self._count, self._described = link, name, reader, count, described
        self._there = prefix + name

    def page(self, order: Order = "id", after: str | None = None, k: int = 100, where: Where = ANYTHING) -> Listing:
        """Return the next k points that meet the conditions; see Browser."""
        check_listing(order, k)
        total = self._count(where)
        read = self._by_id if order == "id" else self._by_radius
        listed = read(where, after, k + 1)
        page, cursor = listed[:k], None
        if len(listed) > k:
            last = page[-1]
            place = [codec.point_uuid(last.id)] if order == "id" else [rounded(last.radius), last.id]
            cursor = to_cursor(order, *place)
        return Listing(page, cursor, total)

    def by_ids(self, ids: Sequence[str]) -> list[Listed]:
        """Return the points that exist; see Browser."""
        return self._named(list(dict.fromkeys(map(codec.point_uuid, as_ids(ids)))))

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids there are points of; see Browser."""
        of_name = {codec.point_uuid(point_id): point_id for point_id in as_ids(ids)}
        read = partial(self._link.client.retrieve, self._there, with_payload=False, with_vectors=False)
        return {
            of_name[str(record.id)]
            for batch in codec.batches(list(of_name), _ROWS)
            for record in self._ask(partial(read, batch))
        }

    def by_keys(self, keys: Sequence[int]) -> list[Listed]:
        """Return the points that exist; see Browser."""
        return self._named(self._reader.read(self._name).with_keys(keys))

    def modalities(self) -> dict[Modality, int]:
        """Count the points by modality; see Browser."""
        return {modality: self._count(Where(modality=modality)) for modality in MODALITIES}

    def fields(self) -> Fields:
        """Describe the fields of the metadata, as they were a minute ago at most; see Browser."""
        known = self._described.latest.get(self._name)
        if known is None or time.monotonic() > known[0] + REMEMBERED_S:
            known = time.monotonic(), self._describe()
            self._described.latest[self._name] = known
        return known[1]

    def _named(self, names: Sequence[str]) -> list[Listed]:
        read = partial(self._link.client.retrieve, self._there, with_payload=_READ, with_vectors=False)
        return [
            point
            for batch in codec.batches(names, _ROWS)
            for point in self._listed(self._ask(partial(read, batch)), ANYTHING)
        ]

    def _describe(self) -> Fields:
        counter, looked_at = FieldCounter(), 0
        points = islice(self._scroll(ANYTHING, None), MAX_SAMPLE)
        while block := list(islice(points, _ROWS)):
            counter.add(point.metadata for point in block)
            looked_at += len(block)
        whole = looked_at < MAX_SAMPLE or self._count(ANYTHING) <= looked_at
        return Fields(counter.summaries(), None if whole else looked_at)

    def _by_id(self, where: Where, after: str | None, k: int) -> list[Listed]:
        if after is None:
            return list(islice(self._scroll(where, None, k), k))
        (last,) = of_cursor("id", after, str)
        # The page begins with the point of the cursor, if it is still there.
        found = (p for p in self._scroll(where, last, k + 1) if codec.point_uuid(p.id) != last)
        return list(islice(found, k))

    def _by_radius(self, where: Where, after: str | None, k: int) -> list[Listed]:
        place = None if after is None else tuple(of_cursor("radius", after, float, str))
        start = None if place is None else place[0] * (1 - 1e-11)
        limit = k + 1
        while True:
            scroll = partial(
                self._link.client.scroll,
                self._there,
                filters.all_of(filters.conditions(where)),
                limit=limit,
                order_by=models.OrderBy(key="radius", start_from=start),
                with_payload=_READ,
                with_vectors=False,
            )
            records = self._ask(scroll)[0]
            ordered = sorted(
                ((rounded(p.radius), p.id, p) for p in self._listed(records, where)), key=lambda row: row[:2]
            )
            page = [(radius, p) for radius, point_id, p in ordered if place is None or (radius, point_id) > place][:k]
            # Of points at one radius, whose order here is by id, all have to be there.
            complete = len(page) == k and page[-1][0] < ordered[-1][0]
            if complete or len(records) < limit:
                return [point for _, point in page]
            limit *= 4

    def _scroll(self, where: Where, start: str | None, rows: int = _ROWS) -> Any:
        """Yield the points that meet the conditions from a place on, in the order of their names in Qdrant."""
        scroll = partial(
            self._link.client.scroll,
            self._there,
            filters.all_of(filters.conditions(where)),
            limit=min(rows, _ROWS),
            with_payload=_READ,
            with_vectors=False,
        )
        offset: models.ExtendedPointId | None = start
        while True:
            records, offset = self._ask(partial(scroll, offset=offset))
            yield from self._listed(records, where)
            if offset is None:
                return

    def _listed(self, records: Sequence[models.Record], where: Where) -> list[Listed]:
        """Return the points of an answer that meet the conditions on metadata."""
        numbered, found = self._reader.known(self._name), []
        for record in records:
            payload = record.payload or {}
            metadata = codec.metadata_of(payload)
            if matches(metadata, where.conditions):
                key = None if numbered is None else numbered.key(str(record.id))
                found.append(Listed(payload["id"], key, float(payload["radius"]), payload["modality"], metadata))
        return found

    def _ask(self, call: Callable[[], T]) -> T:
        return self._link.ask(self._name, call)
