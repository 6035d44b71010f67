"""A vector store for one process: SQLite keeps the points, arrays in memory search them."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from hypclip.checkpoint import atomic_directory
from hypclip.errors import InputError, MissingExtraError, StoreError
from hypclip.geometry.entailment import Entailment, Plane
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
from hypclip.search.exact import Measures, measure, measure_cone, one_thread
from hypclip.search.given import Vectors, as_ids, shown
from hypclip.search.local import ivf, scan_cones, scan_knn, scan_planes, scan_routes
from hypclip.search.local.browse import LocalBrowser
from hypclip.search.local.collection import CollectionLoader, LoadedCollection, contents, modality_codes
from hypclip.search.local.sqlite import Database, Row, fields_of
from hypclip.search.local.table import Candidates, Keys, Mask, Snapshot, Table, gather, segment_rows, select, selected
from hypclip.search.route import Route
from hypclip.search.space import Space
from hypclip.search.types import Collection, Hit, Index, OrderBy, Page, Points, Side, encode_metadata
from hypclip.search.where import ANYTHING, MODALITIES, Where, check_where

_FEW = 16
"""Where fewer than one row in so many is wanted, all of these are measured and nothing is scanned."""
_MOST = 4
"""Cells are used where at least one point in so many is wanted."""
_ATTEMPTS, _TIED, _REBUILD_SHARE = 3, 1e-12, 0.25

T = TypeVar("T")

_log = logging.getLogger(__name__)


class LocalStore:
    """A `VectorStore` in a directory.

    SQLite (write-ahead log, synchronous=FULL) is the truth: a write is on disk when its call returns, and opening the
    directory again brings back everything. The vectors are also held in memory, in float32, where searches scan them:
    exactly, but for nearest neighbours above `approximate_above` points, which go through cells of tangent vectors.
    Threads may share a store. Two processes may not: the second to open the directory is refused.

    Args:
        directory: where the index is.
        create: make an empty index if there is none.
        approximate_above: from how many points on a collection is divided into cells, in the background, and again when
            it has grown by a quarter; None for never.

    Raises:
        StoreError: there is no index, it cannot be read or written, or another process has it open.
    """

    def __init__(
        self, directory: str | os.PathLike[str], create: bool = False, approximate_above: int | None = 1_000_000
    ):
        self._approximate_above = approximate_above
        self._building: threading.Thread | None = None
        self._closed = False
        self._database = Database(directory, create)
        try:
            self._collections = self._load()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing else may be called afterwards."""
        if self._building is not None:
            self._building.join()
        with self._database.writing:
            self._closed, self._collections = True, {}
            self._database.close()

    def collections(self) -> list[Collection]:
        """Return every collection, by name."""
        return [self.describe(name) for name in self.names()]

    def names(self) -> list[str]:
        """Return the names of the collections."""
        self._check_open()
        return sorted(self._collections)

    def sizes(self) -> dict[str, int]:
        """Return the number of points per collection."""
        return {one.name: one.count for one in self.collections()}

    def describe(self, name: str) -> Collection:
        """Return one collection; see VectorStore."""
        loaded = self._find(name)
        return Collection(name, loaded.space, len(loaded.table), loaded.index)

    def space(self, name: str) -> Space:
        """Return the space of a collection; see VectorStore."""
        return self._find(name).space

    def create_collection(self, name: str, space: Space) -> Collection:
        """Create a collection, or return the one of this name if it is of the same space; see VectorStore."""
        check_name(name)
        self._check_open()
        if not isinstance(space, Space):
            raise InputError(f"a collection has a Space, such as Space(model_id, curv, dim), got {shown(space)}")
        with self._database.writing:
            if name not in self._collections:
                number = self._database.add_collection(name, space)
                self._collections = {
                    **self._collections,
                    name: LoadedCollection(number, space, Table(space.curv, space.dim)),
                }
        collection = self.describe(name)
        collection.check_space(space)
        return collection

    def upsert(self, name: str, points: Points) -> None:
        """Write points, all or none; see VectorStore."""
        loaded = self._find(name)
        check_points(points)
        loaded.space.check_points(points.vectors)
        vectors = np.ascontiguousarray(points.vectors.detach().cpu().numpy(), dtype=np.float32)
        modality = modality_codes(points.modality)
        metadata = encode_metadata(points)
        with self._database.writing, loaded.changing():
            fresh = fields_of(points.metadata) - loaded.fields
            keys, replaced = self._database.write(loaded.number, points.ids, vectors, points.modality, metadata, fresh)
            loaded.fields |= fresh
            loaded.table.put(keys, vectors, modality, replaced)
        self._build_if_grown(name, loaded)

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points and return how many existed; see VectorStore."""
        loaded, ids = self._find(name), as_ids(ids)
        with self._database.writing, loaded.changing():
            keys = self._database.delete(loaded.number, ids)
            loaded.table.remove(keys)
        return len(keys)

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for; see VectorStore."""
        loaded, ids = self._find(name), as_ids(ids)
        found = self._database.by_id(loaded.number, ids)
        for point_id in ids:
            if point_id not in found:
                raise UnknownPoint(name, point_id)
        return self._points([found[point_id] for point_id in ids], loaded.space.dim)

    def find(self, name: str, ids: Sequence[str]) -> Points:
        """Return the points that exist, in any order; see VectorStore."""
        loaded, ids = self._find(name), as_ids(ids)
        return self._points(list(self._database.by_id(loaded.number, ids).values()), loaded.space.dim)

    def count(self, name: str, where: Where = ANYTHING) -> int:
        """Count the points that meet the conditions; see VectorStore."""
        return selected(*self._select(name, self._find(name), where))

    def scan(self, name: str, where: Where = ANYTHING, rows: int = 4096) -> Iterator[Points]:
        """Yield all points that meet the conditions, in the order in which they were written; see VectorStore."""
        loaded = self._find(name)
        check_rows(rows)
        snapshot, masks = self._select(name, loaded, where)
        keys = np.sort(
            np.concatenate([snapshot[i].columns.keys[chosen] for i, chosen in segment_rows(snapshot, masks)])
        )
        for start in range(0, len(keys), rows):
            if found := self._database.by_key(keys[start : start + rows]):
                yield self._points(found, loaded.space.dim)

    def contents(self, name: str) -> Contents:
        """Return the state of a collection; see VectorStore."""
        return contents(self._find(name).table.snapshot)

    def browse(self, name: str) -> LocalBrowser:
        """Return a reader of one collection; see VectorStore."""
        loaded = self._find(name)
        return LocalBrowser(self._database, loaded, lambda where: self._select(name, loaded, where), self._again)

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
        """Return the k nearest points of each query; see VectorStore."""
        loaded = self._find(name)
        given = loaded.space.points(queries)
        check_page(k, offset)
        curv, end = loaded.space.curv, k + offset

        def search() -> list[_Ranked]:
            snapshot, masks = self._select(name, loaded, where)
            wanted = selected(snapshot, masks)
            if wanted <= max(end, sum(map(len, snapshot)) // _FEW):
                candidates = [list(segment_rows(snapshot, masks))] * len(given)
                surely = [True] * len(given)
            else:
                # Cells were laid out for all points: where few of them count, the nearest may be anywhere.
                probing = not exact and loaded.index is not None and wanted >= len(loaded.table) / _MOST
                candidates = scan_knn.nearest(snapshot, masks, given.numpy(), end, curv, probing)
                surely = [not probing or sum(len(rows) for _, rows in found) < end for found in candidates]
                if probing and any(surely):  # where the cells did not hold enough
                    whole = iter(scan_knn.nearest(snapshot, masks, given[torch.tensor(surely)].numpy(), end, curv))
                    candidates = [
                        next(whole) if sure else found for sure, found in zip(surely, candidates, strict=True)
                    ]
            ranked = []
            for query, rows, sure in zip(given, candidates, surely, strict=True):
                near = gather(snapshot, rows, loaded.space.dim)
                ranked.append(
                    _Ranked(near, measure(torch.from_numpy(near.vectors), query, curv), "distance", exact=sure)
                )
            return ranked

        return self._answer(search, k, offset)

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
        """Return the points at most a distance away; see VectorStore."""
        loaded = self._find(name)
        q = loaded.space.point(query)
        check_page(k, offset)
        distance = as_distance(distance)

        def search() -> list[_Ranked]:
            snapshot, masks = self._select(name, loaded, where)
            rows = list(scan_knn.within(snapshot, masks, q.numpy(), distance, loaded.space.curv))
            near = gather(snapshot, rows, loaded.space.dim)
            found = measure(torch.from_numpy(near.vectors), q, loaded.space.curv)
            return [_Ranked(near, found, "distance", found.distance <= distance)]

        return self._answer(search, k, offset)[0]

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
        """Return the ancestors or the descendants of a point, always exactly; see VectorStore."""
        loaded = self._find(name)
        rule = loaded.space.entailment if cone is None else cone
        check_cone_search(side, rule, order_by)
        q = loaded.space.point(of)
        check_page(k, offset)

        def search() -> list[_Ranked]:
            snapshot, masks = self._select(name, loaded, where)
            what, curv, more = (snapshot, masks, q.numpy(), side), loaded.space.curv, 0
            if isinstance(rule, Plane):
                rows, more = scan_planes.search(*what, rule, curv, order_by, k + offset)
            else:
                rows = list(scan_cones.cone(*what, rule, curv))
            near = gather(snapshot, rows, loaded.space.dim)
            found, inside = measure_cone(torch.from_numpy(near.vectors), q, side, rule, curv)
            return [_Ranked(near, found, order_by, inside, more=more)]

        return self._answer(search, k, offset)[0]

    def route_candidates(
        self, name: str, route: Route, cone: Entailment | None = None, where: Where = ANYTHING
    ) -> tuple[Points, bool]:
        """Return the points that may be nearest to some place of a route, always all of them; see VectorStore."""
        loaded = self._find(name)
        loaded.space.check_route(route)
        if cone is not None:
            check_cone(cone)
        curv = loaded.space.curv

        @one_thread()
        def search() -> list[Row] | None:
            snapshot, masks = self._select(name, loaded, where)
            if cone is None:
                rows = scan_routes.along(snapshot, masks, route, curv)
            elif isinstance(cone, Plane):
                rows = list(scan_planes.on_route(snapshot, masks, route, cone, curv))
            elif route.end is None:
                rows = list(scan_cones.cone(snapshot, masks, route.start.numpy(), "ancestors", cone, curv))
            else:
                rows = list(scan_routes.arc(snapshot, masks, route, cone, curv))
            keys = gather(snapshot, rows, loaded.space.dim).keys
            found = self._database.by_key(keys)
            return found if len(found) == len(keys) else None

        return self._points(self._again(search), loaded.space.dim), True

    def optimize(self, name: str, cell_count: int | None = None, recall: float = 0.99) -> Index:
        """Divide a collection into cells for the approximate search, and measure how well it does.

        Searches and writes go on meanwhile. Needs the memory of the vectors a second time while it works.

        Args:
            name: the collection.
            cell_count: how many cells; 4 √n rounded to a power of two when absent.
            recall: share of the 10 nearest to find, by which the number of probes is chosen; at most 1.

        Raises:
            UnknownCollection: there is none of this name.
            InputError: fewer points than cells, or than a sample needs.
            MissingExtraError: faiss is not installed.
        """
        loaded = self._find(name)
        snapshot = loaded.table.snapshot
        built = ivf.build(snapshot, loaded.space.curv, loaded.space.dim, cell_count, recall)
        with self._database.writing:
            self._database.write_cells(loaded.number, built.stored)
            loaded.table.adopt(built.segment, snapshot)
            loaded.index = ivf.index_of(built.stored)
        return loaded.index

    def snapshot(self, name: str) -> str:
        """Copy a collection into a directory that `LocalStore` opens, in `snapshots` beside the file; return it."""
        loaded = self._find(name)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        folder = self._database.file.parent / "snapshots"
        for attempt in itertools.count():
            target = folder / f"{name}-{stamp}{f'-{attempt}' if attempt else ''}"
            if not target.exists():
                break
        folder.mkdir(exist_ok=True)
        with atomic_directory(target) as temporary:
            self._database.copy(loaded.number, temporary)
        return str(target)

    def _find(self, name: str) -> LoadedCollection:
        self._check_open()
        if not isinstance(name, str) or name not in self._collections:
            raise UnknownCollection(name)
        return self._collections[name]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the index {self._database.file.parent} is closed: open it again with LocalStore(...)")

    def _select(self, name: str, loaded: LoadedCollection, where: Where) -> tuple[Snapshot, list[Mask | None]]:
        """Return the snapshot of a collection, and the masks of the rows that meet the conditions."""
        check_where(where)
        if not where.conditions:
            snapshot = loaded.table.snapshot
            return snapshot, select(snapshot, where, None, loaded.space.curv)
        for wanted in where.conditions:
            if wanted not in loaded.fields and len(loaded.table):
                raise UnknownField(name, wanted)

        def consistent() -> tuple[Snapshot, Keys] | None:
            """The filter is met on disk: what is in memory must be the same state."""
            writes, snapshot = loaded.writes, loaded.table.snapshot
            until = max((int(s.columns.keys.max()) for s in snapshot if len(s)), default=0)
            keys = loaded.filters.keys(self._database, loaded.number, where.conditions, until)
            return (snapshot, keys) if writes == loaded.writes and writes % 2 == 0 else None

        snapshot, keys = self._again(consistent)
        return snapshot, select(snapshot, where, keys, loaded.space.curv)

    def _again(self, attempt: Callable[[], T | None]) -> T:
        """Try until nothing was written in between that made it fail; after a few times, with writers kept out."""
        for _ in range(_ATTEMPTS):
            if (found := attempt()) is not None:
                return found
        with self._database.writing:
            found = attempt()
        assert found is not None
        return found

    def _answer(self, search: Callable[[], list[_Ranked]], k: int, offset: int) -> list[Page]:
        """Search, and fetch the ids and metadata of a page; again where a point went in between."""

        @one_thread()
        def answers() -> list[Page] | None:
            found = [self._label(ranked, k, offset) for ranked in search()]
            complete = [one for one in found if one is not None]
            return complete if len(complete) == len(found) else None

        return self._again(answers)

    def _label(self, ranked: _Ranked, k: int, offset: int) -> Page | None:
        """Return a page of what was found, sorted by value and id; None where a point of it is no more."""
        rows = np.arange(len(ranked.near)) if ranked.inside is None else np.flatnonzero(ranked.inside.numpy())
        total = None if ranked.inside is None else len(rows) + ranked.more
        values = ranked.measures.by(ranked.order_by).numpy()[rows]
        if len(rows) > offset + k:  # all that tie with the last one stay, for their ids decide
            last = np.partition(values, offset + k - 1)[offset + k - 1]
            first = values <= last + _TIED * abs(last)
            rows, values = rows[first], values[first]
        keys = ranked.near.keys[rows].tolist()
        labels = self._database.labels(keys)
        if len(labels) < len(keys):
            return None
        # Copies of a point may differ in the last bit, by where they stand in a block; their ids decide.
        rounded = [float(f"{value:.12e}") for value in values.tolist()]
        ordered = sorted(zip(rounded, (labels[key][0] for key in keys), keys, rows.tolist(), strict=True))
        page = ordered[offset : offset + k]
        columns = ranked.measures.columns([row for *_, row in page])
        hits = [
            Hit(
                point_id,
                modality=MODALITIES[ranked.near.modality[row]],
                metadata=self._database.metadata(point_id, labels[key][1]),
                **{name: column[i] for name, column in columns.items()},
            )
            for i, (_, point_id, key, row) in enumerate(page)
        ]
        return Page(hits, ranked.exact, total)

    def _points(self, rows: Sequence[Row], dim: int) -> Points:
        vectors = np.frombuffer(b"".join(row.vector for row in rows), "<f4").reshape(len(rows), dim).copy()
        return Points(
            [row.id for row in rows],
            torch.from_numpy(vectors),
            [row.modality for row in rows],
            [self._database.metadata(row.id, row.metadata) for row in rows],
        )

    def _build_if_grown(self, name: str, loaded: LoadedCollection) -> None:
        count, limit = len(loaded.table), self._approximate_above
        grown = loaded.index is None or count > (1 + _REBUILD_SHARE) * loaded.index.built_at
        if limit is None or count < limit or not grown or (self._building is not None and self._building.is_alive()):
            return
        self._building = threading.Thread(target=self._build, args=(name,), name=f"index of {name}", daemon=True)
        self._building.start()

    def _build(self, name: str) -> None:
        try:
            index = self.optimize(name)
            _log.info("collection %r has an index: %s", name, index)
        except MissingExtraError as error:
            self._approximate_above = None
            _log.warning("collection %r stays without an index, its searches exact: %s", name, error)
        except Exception:
            _log.exception("collection %r has no index, its searches stay exact", name)

    def _load(self) -> dict[str, LoadedCollection]:
        try:
            loading = {
                number: CollectionLoader(name, space, fields, self._database.cells(number))
                for number, name, space, fields in self._database.collections()
            }
            for rows in self._database.blocks():
                for number, block in itertools.groupby(rows, key=lambda row: row[1]):
                    if number not in loading:
                        raise ValueError(f"it has points of a collection that is not there, number {number}")
                    loading[number].add([(key, vector, modality) for key, _, vector, modality in block])
        except ValueError as error:
            raise StoreError(f"{self._database.file} is damaged: {error}") from error
        return {one.name: one.finish(number) for number, one in loading.items()}


@dataclass(frozen=True)
class _Ranked:
    """Candidates, their measures, what to sort by, and the mask of the answers: all where `inside` is absent.

    `more` counts further answers that rank behind these.
    """

    near: Candidates
    measures: Measures
    order_by: OrderBy
    inside: Tensor | None = None
    exact: bool = True
    more: int = 0
