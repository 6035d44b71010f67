"""The calls that browse a collection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal, TypeVar, Unpack
from urllib.parse import quote

import httpx2

from .asking import Asking, Returning, collection_path, several, to_json
from .items import Where
from .results import Fields, Listing, Point, PointDetails, Thumbnail

T = TypeVar("T")


class Browsing(Asking):
    """The calls that read points of a collection and what they have, whatever model it is of."""

    def points(
        self,
        order: Literal["id", "radius"] = "id",
        *,
        after: str | None = None,
        k: int = 100,
        **where: Unpack[Where],
    ) -> Returning[Listing]:
        """List points, a page at a time: go on with `after` = the `next` of the page before, until that is None.

        Args:
            order: "radius" is the most general first; "id" is by id, in Qdrant by a hash of it.
            after: `next` of the page before.
            k: how many.
            **where: which points.
        """
        given: dict[str, Any] = {"order": order, "after": after, "k": k, **where}
        path = f"{collection_path(given.pop('collection', 'default'))}/points"
        if given.get("filter") is not None:
            given["filter"] = to_json(given["filter"])
        query = {name: str(value) for name, value in given.items() if value is not None}
        return self._send("GET", path, None, _json_of(Listing.of), query)

    def point(self, id: str, collection: str = "default", *, vector: bool = False) -> Returning[PointDetails]:
        """Return a stored point by its id, with its coordinates if `vector` is True."""
        query = {"vector": "true"} if vector else None
        return self._send("GET", _point_path(collection, id), None, _json_of(PointDetails.of), query)

    def lookup(
        self,
        ids: Iterable[str] | None = None,
        keys: Iterable[int] | None = None,
        collection: str = "default",
        batch: int = 256,
    ) -> Returning[list[Point]]:
        """Return stored points by their ids, or by their keys; unknown ones are left out.

        Args:
            ids: either these, or
            keys: numbers of points within the collection.
            collection: where to look.
            batch: most points of one request.
        """
        if (ids is None) == (keys is None):
            raise TypeError("lookup takes either ids or keys")
        name, given = ("ids", several("ids", ids)) if ids is not None else ("keys", several("keys", keys or []))
        found: list[Point] = []
        path = f"{collection_path(collection)}/points/lookup"
        for part in _parts(given, batch):
            found += yield from self._ask(
                "POST", path, to_json({name: part}), lambda answer: [Point.of(row) for row in answer["points"]]
            )
        return found

    def fields(self, collection: str = "default") -> Returning[Fields]:
        """Describe the metadata of a collection: its fields, their frequent values and ranges; and count modalities."""
        return self._ask("GET", f"{collection_path(collection)}/fields", None, Fields.of)

    def thumbnails(
        self, ids: Iterable[str], collection: str = "default", batch: int = 256
    ) -> Returning[dict[str, Thumbnail]]:
        """Return the thumbnails of points by id; points that have none are left out.

        Args:
            ids: of points.
            collection: where they are.
            batch: most points of one request.
        """
        found: dict[str, Thumbnail] = {}
        path = f"{collection_path(collection)}/thumbnails"
        for part in _parts(several("ids", ids), batch):
            found |= yield from self._send("POST", path, to_json({"ids": part}), _thumbnails)
        return found


def _point_path(collection: str, point_id: str) -> str:
    if not isinstance(point_id, str):
        raise TypeError(f"a point has a string for its id, not {type(point_id).__name__}")
    if point_id in ("", ".", ".."):  # steps in a path
        raise ValueError(f"a point of the id {point_id!r} has no path of its own: ask with lookup([id])")
    return f"{collection_path(collection)}/points/{quote(point_id, safe='')}"


def _parts(given: Iterable[T], batch: int) -> Iterable[list[T]]:
    rest = iter(given)
    while part := list(islice(rest, batch)):
        yield part


def _json_of(read: Any) -> Any:
    return lambda response: read(response.json())


def _thumbnails(response: httpx2.Response) -> dict[str, Thumbnail]:
    """Read a body of a number, the length of the header; the header, in JSON; and the files."""
    content = response.content
    start = 4 + int.from_bytes(content[:4], "little")
    header = json.loads(content[4:start])
    found = {}
    for row in header["thumbnails"]:
        data = content[start + row["offset"] : start + row["offset"] + row["length"]]
        if len(data) != row["length"]:
            raise ValueError("the answer is cut short")
        found[row["id"]] = Thumbnail(data, row["width"], row["height"])
    return found
