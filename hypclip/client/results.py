"""Results of the methods of a client, read from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Self, TypeVar

from .items import Rule


@dataclass(frozen=True)
class Result:
    """Base of results that are read from a JSON object."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Take the fields that are known: a newer server may send more.

        Raises:
            TypeError: one is missing that has no default.
        """
        return cls(**{one.name: answer[one.name] for one in fields(cls) if one.name in answer})


@dataclass(frozen=True)
class Embedding(Result):
    """A point of hyperbolic space. `radius` is its distance from the origin: small is general, large is specific."""

    embedding: list[float]
    radius: float
    modality: str = "embedding"


@dataclass(frozen=True)
class Hit(Result):
    """A stored point that was found, and its geodesic distance to the query."""

    id: str
    distance: float
    radius: float
    modality: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Related(Hit):
    """An ancestor or descendant: inside where `margin` ≤ 0, the deeper the smaller.

    By cones margin = angle − aperture_scale · eta · aperture, in radians. By planes it is threshold − height, √curv
    times a distance, and aperture is π/2.
    """

    angle: float
    aperture: float
    margin: float


HitT = TypeVar("HitT", bound=Hit)


@dataclass(frozen=True)
class Page(Generic[HitT]):
    """A page of the hits of a search.

    `total` counts all hits, None where the search did not count; `exact` is False where an index may have missed some.
    """

    hits: list[HitT]
    exact: bool
    total: int | None

    @staticmethod
    def of(kind: type[HitT], answer: Mapping[str, Any]) -> Page[HitT]:
        """Read a page of hits of a kind."""
        return Page([kind.of(hit) for hit in answer["hits"]], answer["exact"], answer.get("total"))


@dataclass(frozen=True)
class Stop(Result):
    """A stored point on a route, the nearest from the fraction `t` of it on. The origin is "[ROOT]", of no modality."""

    t: float
    id: str
    distance: float
    radius: float
    modality: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Traversal(Result):
    """The stops of a route from the source to the target, in order."""

    path: list[Stop]
    exact: bool

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the stops as well."""
        return cls([Stop.of(stop) for stop in answer["path"]], answer["exact"])


@dataclass(frozen=True)
class Classified(Result):
    """The most probable label, and the probability of each.

    With a taxonomy also the path from its root, which may end above the label, and a score for each node of it.
    """

    label: str
    scores: dict[str, float]
    modality: str
    path: list[str] | None = None
    path_scores: list[float] | None = None


@dataclass(frozen=True)
class Ordering(Result):
    """Relation of the first point to the second: "general", "specific", "neither" or "same".

    The first entails the second where `first_over_second` ≤ 0. The margins are those of `Related`.
    """

    relation: str
    first_over_second: float
    second_over_first: float
    distance: float


@dataclass(frozen=True)
class Written(Result):
    """Number of points that were written, and of points in the collection after the last of them."""

    upserted: int
    count: int


@dataclass(frozen=True)
class Deleted(Result):
    """Number of the ids that were stored, and of points in the collection after the last removal."""

    deleted: int
    count: int


@dataclass(frozen=True)
class IndexInfo(Result):
    """Parameters of the approximate index of a collection, and the recall measured when it was built."""

    cells: int
    probes: int
    recall: float
    built_at: int


@dataclass(frozen=True)
class CollectionInfo(Result):
    """A collection, and the model its points belong to. Without an `index` every search of it is exact.

    `counts` are by modality. `entailment` is the rule by which one point is more general than another: see ModelInfo.
    """

    name: str
    count: int
    model: str
    revision: str
    curv: float
    dim: int
    index: IndexInfo | None = None
    entailment: Rule | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the index as well."""
        index = answer.get("index")
        return super().of({**answer, "index": None if index is None else IndexInfo.of(index)})


@dataclass(frozen=True)
class Point(Result):
    """A stored point. `radius` is its distance from the origin; `key` is its number, None where the server has none."""

    id: str
    radius: float
    modality: str
    metadata: dict[str, Any]
    key: int | None = None
    thumbnail: bool = False


@dataclass(frozen=True)
class PointDetails(Point):
    """A stored point, with its D space components where they were asked for."""

    embedding: list[float] | None = None


@dataclass(frozen=True)
class Listing(Result):
    """A page of the points of a collection: `total` counts all of the listing; `next` is None on the last page."""

    points: list[Point]
    next: str | None
    total: int

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the points as well."""
        return cls([Point.of(point) for point in answer["points"]], answer["next"], answer["total"])


@dataclass(frozen=True)
class FieldInfo(Result):
    """A field of the metadata: how many points have it, its most frequent values, and the range of its numbers.

    `values` are pairs of a value and how many points have it; there are none where `distinct`, the number of different
    values, is None for being over 10,000.
    """

    name: str
    count: int
    values: list[tuple[Any, int]]
    distinct: int | None = None
    min: float | int | None = None
    max: float | int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the values as pairs."""
        return super().of({**answer, "values": [(row["value"], row["count"]) for row in answer["values"]]})


@dataclass(frozen=True)
class Fields(Result):
    """The fields of a collection's metadata, those of the most points first, and the points by modality.

    `sampled` is how many points were looked at where that is not all of them.
    """

    fields: list[FieldInfo]
    modalities: dict[str, int]
    sampled: int | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read the fields as well."""
        return super().of({**answer, "fields": [FieldInfo.of(row) for row in answer["fields"]]})


@dataclass(frozen=True)
class Thumbnail:
    """A WebP file, and its size in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class ModelInfo(Result):
    """The model: its space has curvature −curv, and its points have `dim` space components.

    `entailment` is the rule by which one of them is more general than another, in the form of a `rule` of a request:
    {"form": "plane", "threshold": …} or {"form": "cone", "eta": …, "min_radius": …}; None if the server sends none.
    """

    model: str
    geometry: str
    curv: float
    dim: int
    logit_scale: float
    entailment: Rule | None = None
