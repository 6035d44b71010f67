"""The interface of vector stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from hypclip.geometry.entailment import Entailment
from hypclip.search.browse import Browser
from hypclip.search.contents import Contents
from hypclip.search.given import Vectors
from hypclip.search.route import Route
from hypclip.search.space import Space
from hypclip.search.types import Collection, OrderBy, Page, Points, Side
from hypclip.search.where import ANYTHING, Where


@runtime_checkable
class VectorStore(Protocol):
    """Collections of points, found again by id, by distance, by cones and along geodesics.

    Calls block and may come from several threads. A write has reached the disk when its call returns. A method
    that takes the name of a collection raises UnknownCollection where there is none of it; searches raise InputError
    where the query is no point of the collection's space, or the filter names a field that no point has.
    """

    def collections(self) -> list[Collection]:
        """Return every collection, by name."""
        ...

    def names(self) -> list[str]:
        """Return the names of the collections: the least work that tells whether the store answers."""
        ...

    def sizes(self) -> dict[str, int]:
        """Return the number of points per collection, which may be some seconds old: less work than `collections`."""
        ...

    def describe(self, name: str) -> Collection:
        """Return one collection."""
        ...

    def space(self, name: str) -> Space:
        """Return the space of a collection: less work than `describe`, which counts the points too."""
        ...

    def create_collection(self, name: str, space: Space) -> Collection:
        """Create a collection, or return the one of this name if it is of the same space.

        Raises:
            ModelMismatch: there is one, of another model or another rule of entailment.
            InputError: the name has other characters than letters, digits, dot, underscore and hyphen.
        """
        ...

    def upsert(self, name: str, points: Points) -> None:
        """Write points, all or none; points whose id is there already are replaced.

        Raises:
            InputError: a vector is no point of the collection's space, or a metadata is not JSON or is too large.
        """
        ...

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points and return how many existed; unknown ids are skipped."""
        ...

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for.

        Raises:
            UnknownPoint: there is no point with an id.
        """
        ...

    def find(self, name: str, ids: Sequence[str]) -> Points:
        """Return the points that exist, in any order."""
        ...

    def count(self, name: str, where: Where = ANYTHING) -> int:
        """Count the points that meet the conditions."""
        ...

    def scan(self, name: str, where: Where = ANYTHING, rows: int = 4096) -> Iterator[Points]:
        """Yield all points that meet the conditions, each once, in blocks of up to `rows`.

        Points written or deleted meanwhile may or may not be among them.
        """
        ...

    def contents(self, name: str) -> Contents:
        """Return the state of a collection, from which all its points can be read; to ask for it costs little."""
        ...

    def browse(self, name: str) -> Browser:
        """Return a reader that lists the points of a collection and describes their metadata."""
        ...

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
        """Return for each query the k nearest points by geodesic distance, then by id; fewer if there are fewer.

        Args:
            name: the collection.
            queries: space components (N, D), float32 or float64.
            k: at least 1.
            where: what may be returned.
            offset: how many of the nearest to skip; the next page starts at offset + k.
            exact: True to be sure, False to allow the approximate index, None for the default of the store.

        Raises:
            InputError: also where k is below 1 or the offset negative.
        """
        ...

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
        """Return the points at most a distance away, nearest first, a page of them; `total` counts them all."""
        ...

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
        """Return the ancestors or the descendants of a point, a page of them; `total` counts them all.

        Args:
            name: the collection.
            of: space components (D,) of the point.
            side: which of the two.
            cone: a `Cone` or a `Plane`; the rule of the collection's space when absent.
            where: what may be returned.
            order_by: what comes first; then by id.
            k: length of the page, at least 1.
            offset: how many to skip.
        """
        ...

    def route_candidates(
        self, name: str, route: Route, cone: Entailment | None = None, where: Where = ANYTHING
    ) -> tuple[Points, bool]:
        """Return the points that may be nearest to some place of a route, and whether none is missing.

        Args:
            name: the collection.
            route: from where to where, in steps or without.
            cone: at each place only points whose cone or half-space holds it count; all points where absent.
            where: which points count at all.
        """
        ...

    def snapshot(self, name: str) -> str:
        """Make a copy of a collection to restore it from, and say where it is."""
        ...

    def close(self) -> None:
        """Release files and connections; nothing else may be called afterwards."""
        ...
