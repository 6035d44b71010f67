"""A vector store in Qdrant: a server, a cluster, or its local mode, which is slow and meant for tests and laptops.

A collection becomes one Qdrant collection with three vectors per point: `tangent` (log_0, Euclidean) finds candidates
by a graph; `lorentz` (space components, then time) gives Lorentz products as dot products, and has no graph, since one
made from dot products of points finds next to nothing; `direction` (cosine) finds cones, which seen from the origin lie
within a range of cosines, and needs no graph. Where the model entails by half-spaces there is a fourth without a graph,
`general`: see planes.py. Whatever the engine selects is re-scored in float64 from the float32 coordinates.

Cluster: a collection is cut into `shards`, each kept `replicas` times; a write waits for most replicas and is ordered
by the leader of its shard. Take 2 shards per node for room to grow, 2 replicas to outlive a node, 3 to write
without one.
Memory for a million points and one replica: 4 (3 D + 1) MB of vectors and about 0.15 GB of one graph (m = 16), computed
and not measured: 6.3 GB at D = 512, 1.7 GB at D = 128, a third more with `general`; as much again for a moment while
segments merge. Payloads stay on disk, the metadata twice: for filters, and as the text that comes back. Planned for 1
to 50 million points of up to 1,024 dimensions. Exact searches read 4 (D + 1) MB per million points, on all nodes at
once; of a ball or a cone all candidates travel to the client, whatever the page. Collections need Qdrant 1.16 or later,
which keeps their metadata.

Run so far: local mode, and REST against a scripted server on top of it. No Qdrant server and no cluster was run.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import MissingExtraError, StoreError
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.search.checks import (
    as_distance,
    check_cone,
    check_cone_search,
    check_name,
    check_page,
    check_points,
    check_rows,
)
from hypclip.search.contents import Contents
from hypclip.search.errors import UnknownCollection, UnknownField, UnknownPoint
from hypclip.search.exact import measure_cone
from hypclip.search.given import Vectors, as_ids
from hypclip.search.route import Route
from hypclip.search.space import Space
from hypclip.search.types import Collection, Hit, OrderBy, Page, Points, Side, encode_metadata
from hypclip.search.where import ANYTHING, Where

try:
    from qdrant_client import QdrantClient, models

    from hypclip.search.qdrant import codec, filters, planes, searches
    from hypclip.search.qdrant.browse import Described, QdrantBrowser
    from hypclip.search.qdrant.catalogue import Catalogue
    from hypclip.search.qdrant.contents import Reader
    from hypclip.search.qdrant.link import Link
except ImportError as missing:
    raise MissingExtraError(f"{missing}: it comes with an extra, run pip install 'hypclip[search]'") from missing

_INDEXES = {"id": "keyword", "modality": "keyword", "radius": "float", "shell": "integer", "fields": "keyword"}
_SEARCHES, _PLACES, _NEAREST = 64, 64, 8
_SNAPSHOT_TIMEOUT_S = 3600.0


class QdrantStore:
    """A `VectorStore` in Qdrant.

    Threads may share a store, and processes a server. Calls that get no answer (no connection, none in time, 429, 5xx)
    are made again; every write may be repeated. An upsert of more than about 8 MB takes several requests: where one of
    them fails, the points of those before it are written.

    Args:
        client: speaks REST or gRPC, or is local; its own timeout limits a single request.
        prefix: of the names of our Qdrant collections.
        shards: of a new collection; None for the default of the server.
        replicas: of a new collection.
        indexed: metadata fields to index for filters, and what their values are.
        exact_up_to: up to how many points `knn` is exact unless told otherwise.
        retries: how often a call is made again.
        timeout_s: how long a call may take with all its retries.
    """

    def __init__(
        self,
        client: QdrantClient | Link,
        prefix: str = "hypclip-",
        *,
        shards: int | None = None,
        replicas: int = 1,
        indexed: Mapping[str, filters.FieldType] | None = None,
        exact_up_to: int = 20_000,
        retries: int = 3,
        timeout_s: float = 30.0,
    ):
        self._link = client if isinstance(client, Link) else Link(client, retries, timeout_s)
        self._client, self._prefix = self._link.client, prefix
        self._shards, self._replicas, self._exact_up_to = shards, replicas, exact_up_to
        fields = {filters.field_key(name): filters.field_index(kind).value for name, kind in (indexed or {}).items()}
        self._catalogue = Catalogue(self._link, prefix, _INDEXES | fields)
        self._reader = Reader(self._link, self._catalogue, prefix)
        self._described = Described()

    @classmethod
    def connect(
        cls, url: str, api_key: str | None = None, *, retries: int = 3, timeout_s: float = 30.0, **options: Any
    ) -> Self:
        """Return a store at an address.

        Args:
            url: http:// or https:// of a server or any node of a cluster, port 6333 unless it names another;
                ":memory:" or "path:DIRECTORY" for local mode, one process at a time.
            api_key: of the server.
            retries: how often a call is made again.
            timeout_s: how long a call may take with all its retries.
            options: further arguments of `QdrantStore`.

        Raises:
            InputError: the address is none of these.
            StoreError: the directory cannot be used.
        """
        return cls(Link.connect(url, api_key, retries, timeout_s), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; nothing else may be called afterwards."""
        self._link.close()

    def collections(self) -> list[Collection]:
        """Return every collection of hypclip, by name; see VectorStore."""
        found = []
        for name in self.names():
            with contextlib.suppress(UnknownCollection):
                if codec.is_ours(info := self._catalogue.info(name)):
                    found.append(Collection(name, codec.space_of(name, info), self._count(name, None)))
        return found

    def names(self) -> list[str]:
        """Return the names of the Qdrant collections that have our prefix, without it; see VectorStore."""
        return self._catalogue.names()

    def sizes(self) -> dict[str, int]:
        """Return about how many points each collection of hypclip has, or had some seconds ago; see VectorStore."""
        return self._catalogue.sizes()

    def describe(self, name: str) -> Collection:
        """Return one collection, having made the payload indexes it lacks; see VectorStore.

        Raises:
            StoreError: hypclip did not make it, or it has another format or other vectors than ours.
        """
        return Collection(name, self._catalogue.migrate(name), self._count(name, None))

    def space(self, name: str) -> Space:
        """Return the space of a collection, as it was at most a second ago; see VectorStore.

        Raises:
            StoreError: hypclip did not make it, or it has another format or other vectors than ours.
        """
        return self._catalogue.space(name)

    def create_collection(self, name: str, space: Space) -> Collection:
        """Create a collection, or return the one of this name if it is of the same space; see VectorStore."""
        check_name(name)
        try:
            found = self.describe(name)
        except UnknownCollection:
            self._catalogue.create(name, space, self._shards, self._replicas)
            found = self.describe(name)
        found.check_space(space)
        return found

    def upsert(self, name: str, points: Points) -> None:
        """Write points, all or none of a request; see VectorStore."""
        space = self._catalogue.migrate(name)
        check_points(points)
        space.check_points(points.vectors)
        texts = encode_metadata(points)
        strong = models.WriteOrdering.STRONG
        for start, end in itertools.pairwise([0, *codec.request_ends(space, texts)]):
            structs = codec.to_structs(space, points, texts, start, end)
            self._catalogue.write(
                name, partial(self._client.upsert, self._prefix + name, structs, wait=True, ordering=strong)
            )

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points and return how many existed; see VectorStore."""
        self.space(name)
        ids = as_ids(ids)
        count, strong = 0, models.WriteOrdering.STRONG
        for batch in codec.batches(list(dict.fromkeys(map(codec.point_uuid, ids))), 4096):
            find = partial(self._client.retrieve, self._prefix + name, batch, with_payload=False)
            if there := [record.id for record in self._link.ask(name, find)]:
                gone = models.PointIdsList(points=there)
                self._catalogue.write(
                    name, partial(self._client.delete, self._prefix + name, gone, wait=True, ordering=strong)
                )
            count += len(there)
        return count

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for; see VectorStore."""
        ids = as_ids(ids)
        found = self.find(name, ids)
        row_of = {point_id: row for row, point_id in enumerate(found.ids)}
        for point_id in ids:
            if point_id not in row_of:
                raise UnknownPoint(name, point_id)
        rows = [row_of[point_id] for point_id in ids]
        return Points(
            list(ids), found.vectors[rows], [found.modality[row] for row in rows], [found.metadata[row] for row in rows]
        )

    def find(self, name: str, ids: Sequence[str]) -> Points:
        """Return the points that exist, in any order; see VectorStore."""
        space, ids = self.space(name), as_ids(ids)
        return codec.joined(space, self._fetch(name, space, list(map(codec.point_uuid, ids)), ANYTHING))

    def count(self, name: str, where: Where = ANYTHING) -> int:
        """Count the points that meet the conditions; see VectorStore."""
        space = self.space(name)
        if filters.is_decisive(where):
            count = self._count(name, filters.all_of(filters.conditions(where)))
        else:
            count = sum(len(block.ids) for block in self._scroll(name, space, where))
        if not count:
            self._check_fields(name, where)
        return count

    def scan(self, name: str, where: Where = ANYTHING, rows: int = 4096) -> Iterator[Points]:
        """Yield all points that meet the conditions, each once; see VectorStore."""
        check_rows(rows)
        return self._scan(name, self.space(name), where, rows)

    def contents(self, name: str) -> Contents:
        """Return the state of a collection, read whole where it may have changed; see VectorStore.

        Raises:
            InputError: it has more points than are read at once.
        """
        return self._reader.read(name).contents

    def browse(self, name: str) -> QdrantBrowser:
        """Return a reader of one collection; see VectorStore."""
        self.space(name)
        return QdrantBrowser(self._link, self._prefix, name, self._reader, partial(self.count, name), self._described)

    def knn(
        self,
        name: str,
        queries: Vectors,
        k: int,
        where: Where = ANYTHING,
        *,
        offset: int = 0,
        exact: bool | None = None,
    ) -> list[Page]:
        """Return for each query the k nearest points by geodesic distance, then by id; see VectorStore."""
        space = self.space(name)
        given = space.points(queries)
        check_page(k, offset)
        surely = self._catalogue.points(name) <= self._exact_up_to if exact is None else exact
        end = offset + k
        limit = 2 * end + 32 if surely else max(100, 4 * end)
        found = []
        for block in codec.batches(list(given), max(1, codec.rows_per_answer(space) // limit)):
            asked = [searches.nearest_search(space, query, limit, where, surely) for query in block]
            for query, answer in zip(block, self._search(name, asked), strict=True):
                hits = codec.ordered(
                    codec.hits_within(space, self._answered(name, space, answer, where), query, math.inf), "distance"
                )
                if surely and len(answer) == limit:
                    # Nothing that was left out scored more than the least of these.
                    distance = hits[end - 1].distance * (1 + 1e-9) if len(hits) >= end else math.inf
                    if min(point.score for point in answer) >= searches.least_score(space, query, distance):
                        hits = codec.ordered(self._ball(name, space, query, distance, where), "distance")
                found.append(Page(hits[offset:end], surely))
        if not all(one.hits for one in found):
            self._check_fields(name, where)
        return found

    def within(
        self,
        name: str,
        query: Vectors,
        distance: float,
        where: Where = ANYTHING,
        *,
        k: int = 1000,
        offset: int = 0,
    ) -> Page:
        """Return the points at most a distance away, nearest first, a page of them; see VectorStore."""
        space = self.space(name)
        q = space.point(query)
        distance = as_distance(distance)
        check_page(k, offset)
        hits = self._ball(name, space, q, distance, where)
        return self._page(name, where, hits, "distance", k, offset)

    def cone(
        self,
        name: str,
        of: Vectors,
        side: Side,
        cone: Entailment | None = None,
        where: Where = ANYTHING,
        *,
        order_by: OrderBy = "margin",
        k: int = 1000,
        offset: int = 0,
    ) -> Page:
        """Return the ancestors or the descendants of a point, a page of them; see VectorStore."""
        space = self.space(name)
        rule = space.entailment if cone is None else cone
        check_cone_search(side, rule, order_by)
        q = space.point(of)
        check_page(k, offset)
        if isinstance(rule, Plane):
            asked = planes.ancestors if side == "ancestors" else planes.descendants
            blocks = self._blocks(name, space, where, *asked(space, q, rule, where))
        elif side == "ancestors":
            blocks = self._ancestors(name, space, q.unsqueeze(0), rule, where)
        else:
            search = searches.descendant_search(space, q, rule, where)
            shells, needed = (None, []) if search is None else ([0], [search])
            blocks = self._blocks(name, space, where, shells, needed)
        hits = []
        for block in blocks:
            hits += codec.to_hits(block, *measure_cone(block.vectors, q, side, rule, space.curv))
        return self._page(name, where, hits, order_by, k, offset)

    def route_candidates(
        self, name: str, route: Route, cone: Entailment | None = None, where: Where = ANYTHING
    ) -> tuple[Points, bool]:
        """Return the points that may be nearest to some place of a route, and whether none is missing; see VectorStore.

        With a cone there may be points among them that hold no place. Where there are no steps, 64 places stand for
        the way and points may be missing; not so with half-spaces, nor with a cone and the origin as the end, for what
        holds a place on that way holds the start.
        """
        space = self.space(name)
        space.check_route(route)
        if cone is not None:
            check_cone(cone)
        fractions = torch.linspace(0, 1, _PLACES, dtype=torch.float64) if route.steps is None else route.fractions()
        if isinstance(cone, Plane):
            asked = planes.ancestors_on_route(space, route, cone, where)
            found, exact = self._blocks(name, space, where, *asked), True
        elif cone is not None:
            places = route.start.unsqueeze(0) if route.end is None else route.places(fractions)
            found, exact = (
                self._ancestors(name, space, places, cone, where),
                route.end is None or route.steps is not None,
            )
        else:
            nearest = self.knn(name, route.places(fractions), _NEAREST, where)
            ids = dict.fromkeys(codec.point_uuid(hit.id) for one in nearest for hit in one.hits)
            found = self._fetch(name, space, list(ids), where)
            exact = route.steps is not None and all(one.exact for one in nearest)
        points = codec.joined(space, found)
        if not points.ids:
            self._check_fields(name, where)
        return points, exact

    def snapshot(self, name: str) -> str:
        """Let the server make a snapshot of a collection, and return its name there; see VectorStore."""
        self.space(name)
        if self._link.local:
            raise StoreError("Qdrant's local mode makes no snapshots: close the store and copy its directory")
        # Made again it would be another one.
        make = partial(self._client.create_snapshot, self._prefix + name)
        made = self._link.ask(name, make, retries=0, timeout_s=_SNAPSHOT_TIMEOUT_S)
        if made is None:
            raise StoreError(f"Qdrant {self._link.address} did not make a snapshot of collection {name!r}")
        return made.name

    def _ball(self, name: str, space: Space, query: Tensor, distance: float, where: Where) -> list[Hit]:
        """Return all points at most a distance away, unordered."""
        floor = searches.least_score(space, query, distance)
        if math.isfinite(floor):
            search = searches.ball_search(space, query, distance, floor, where)
            blocks = self._fetch(name, space, self._above(name, [search]), where)
        else:
            blocks = self._scroll(name, space, where)
        return codec.hits_within(space, blocks, query, distance)

    def _ancestors(
        self, name: str, space: Space, places: Float[Tensor, "n d"], cone: Cone, where: Where
    ) -> Iterator[Points]:
        """Yield all points whose cone holds one of the places, each once, and more."""
        return self._blocks(name, space, where, *searches.ancestor_searches(space, places, cone, where))

    def _blocks(
        self, name: str, space: Space, where: Where, shells: list[int] | None, searches: list[models.QueryRequest]
    ) -> Iterator[Points]:
        """Yield the points of some shells, or all of them, and what searches find in others."""
        if shells is None:
            return self._scroll(name, space, where)
        inner = self._scroll(name, space, where, filters.one_of("shell", shells)) if shells else iter(())
        return itertools.chain(inner, self._fetch(name, space, self._above(name, searches), where))

    def _page(self, name: str, where: Where, hits: list[Hit], order_by: OrderBy, k: int, offset: int) -> Page:
        if not hits:
            self._check_fields(name, where)
        return Page(codec.ordered(hits, order_by)[offset : offset + k], exact=True, total=len(hits))

    def _above(self, name: str, searches: list[models.QueryRequest]) -> list[str]:
        """Return the names of all points found by any of some searches with a threshold, each once."""
        found: dict[str, None] = {}
        while searches:
            more = []
            for batch in codec.batches(searches, _SEARCHES):
                for search, answer in zip(batch, self._search(name, batch), strict=True):
                    found.update(dict.fromkeys(str(point.id) for point in answer))
                    # Pages would lose points of equal scores; the whole again, and more of it, does not.
                    if len(answer) == search.limit:
                        more.append(search.model_copy(update={"limit": 8 * search.limit}))
            searches = more
        return list(found)

    def _search(self, name: str, searches: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        if self._link.local:
            # It always searches exactly, and warns of being told so.
            searches = [search.model_copy(update={"params": None}) for search in searches]
        answers = self._link.ask(name, partial(self._client.query_batch_points, self._prefix + name, searches))
        return [answer.points for answer in answers]

    def _answered(
        self, name: str, space: Space, answer: Sequence[models.ScoredPoint], where: Where
    ) -> Iterator[Points]:
        """Yield the points of an answer, which came with it or are fetched."""
        if answer and answer[0].vector is None:
            return self._fetch(name, space, [str(point.id) for point in answer], where)
        return iter([codec.to_points(space, answer, where)])

    def _fetch(self, name: str, space: Space, ids: Sequence[str], where: Where) -> Iterator[Points]:
        """Yield those of the points that are still there and meet the conditions."""
        for batch in codec.batches(ids, codec.rows_per_answer(space)):
            read = partial(
                self._client.retrieve, self._prefix + name, with_payload=codec.READ, with_vectors=["lorentz"]
            )
            yield codec.to_points(space, self._link.ask(name, partial(read, batch)), where)

    def _scroll(
        self, name: str, space: Space, where: Where, *more: models.Condition, rows: int = 4096
    ) -> Iterator[Points]:
        """Yield all points that meet all conditions, in blocks that are not empty."""
        scroll = partial(
            self._client.scroll,
            self._prefix + name,
            filters.all_of([*filters.conditions(where), *more]),
            limit=min(rows, codec.rows_per_answer(space)),
            with_payload=codec.READ,
            with_vectors=["lorentz"],
        )
        after: models.ExtendedPointId | None = None
        while True:
            records, after = self._link.ask(name, partial(scroll, offset=after))
            points = codec.to_points(space, records, where)
            if points.ids:
                yield points
            if after is None:
                return

    def _scan(self, name: str, space: Space, where: Where, rows: int) -> Iterator[Points]:
        nothing = True
        for block in self._scroll(name, space, where, rows=rows):
            nothing = False
            yield block
        if nothing:
            self._check_fields(name, where)

    def _count(self, name: str, count_filter: models.Filter | None) -> int:
        return self._link.ask(name, partial(self._client.count, self._prefix + name, count_filter, exact=True)).count

    def _check_fields(self, name: str, where: Where) -> None:
        """Refuse conditions on fields that no point has, unless there are no points."""
        for field in where.conditions:
            if not self._any(name, filters.all_of([filters.equals("fields", field)])) and self._any(name, None):
                raise UnknownField(name, field)

    def _any(self, name: str, scroll_filter: models.Filter | None) -> bool:
        scroll = partial(self._client.scroll, self._prefix + name, scroll_filter, limit=1, with_payload=False)
        return bool(self._link.ask(name, scroll)[0])
