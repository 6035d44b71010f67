"""What every vector store offers, and the values that go in and come out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.search.errors import ModelMismatch
from hypclip.search.given import Vectors, as_ids, as_metadata, as_number, as_vectors, as_whole, shown
from hypclip.search.path import Path
from hypclip.search.rules import described, same_rule
from hypclip.search.where import ANYTHING, Modality, Where, check_modality

Side = Literal["ancestors", "descendants"]
"""Which way to look: points whose cone or half-space holds the query, or points in that of the query."""

Order = Literal["distance", "margin", "radius"]
"""What comes first: the nearest; the deepest inside its cone or half-space; the most general."""

MAX_METADATA_BYTES = 2**16
"""Most bytes of a point's metadata as JSON."""

MAX_METADATA_DEPTH = 100
"""Most levels of a point's metadata; SQLite reads JSON of about 2,000."""

MAX_SINH_RADIUS = 1e7
"""Largest √c|x| = sinh(√c·radius) of a point, a radius of 16.8/√c. Beyond it neighbouring float32 points are further
apart than the scale 1/√c of the space itself, so that distances would be noise."""


@dataclass(frozen=True)
class Space:
    """Which model's space a point belongs to.

    Args:
        model_id: names the model.
        curv: c > 0.
        dim: D, the number of space components.
        revision: which weights of it, where the name does not say so already.
        entailment: what makes one point more general than another, as the model was trained: by default what searches
            by cones go by. The cones of MERU where a collection of before does not say.
    """

    model_id: str
    curv: float
    dim: int
    revision: str = ""
    entailment: Entailment = Cone()  # noqa: RUF009, it is frozen

    def __post_init__(self) -> None:
        for name in ("model_id", "revision"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be a string, got {shown(getattr(self, name))}")
        object.__setattr__(self, "curv", as_number(self.curv, "curv"))
        object.__setattr__(self, "dim", as_whole(self.dim, "dim"))
        if not (math.isfinite(self.curv) and self.curv > 0):
            raise InputError(f"curv must be positive and finite (the sectional curvature is −curv), got {self.curv}")
        if self.dim < 1:
            raise InputError(f"dim must be at least 1, got {self.dim}")
        if not isinstance(self.entailment, Cone | Plane):
            raise InputError(f"entailment of a space must be a Cone or a Plane, got {shown(self.entailment)}")

    def __str__(self) -> str:
        return self._named("")

    def beside(self, other: Space) -> str:
        """Name the space, and its rule of entailment where that is not the other's."""
        same = same_rule(self.entailment, other.entailment)
        return self._named("" if same else f", entailment by {described(self.entailment)}")

    def _named(self, rule: str) -> str:
        revision = f"revision {self.revision[:12]}, " if self.revision else ""
        return f"model {self.model_id!r} ({revision}curv {self.curv:.6g}, {self.dim} dimensions{rule})"

    def same_as(self, other: Space) -> bool:
        """Tell whether points of both can be compared; exp(log c) may differ in the last bits between machines."""
        same_curv = math.isclose(self.curv, other.curv, rel_tol=1e-6)
        same_name = self.model_id == other.model_id and self.revision == other.revision
        return same_name and self.dim == other.dim and same_curv and same_rule(self.entailment, other.entailment)

    def check_points(self, x: Tensor) -> None:
        """Refuse what is no point of this space.

        Args:
            x: space components (..., D).

        Raises:
            InputError: wrong dtype or length, NaN or infinite, or too far out for float32.
        """
        if x.dtype not in (torch.float32, torch.float64):
            raise InputError(f"points must be float32 or float64, got {x.dtype}")
        if x.shape[-1] != self.dim:
            raise InputError(f"an embedding of {self} has {self.dim} space components, got {x.shape[-1]}")
        if x.dim() and len(x) and x.numel() == self.dim and x.device.type == "cpu":
            # A query: torch takes longer to begin than to compute.
            one = x.detach().numpy().reshape(-1).astype(np.float64, copy=False)
            if np.abs(one).max() <= 1e150 and math.sqrt(self.curv * float(one @ one)) <= MAX_SINH_RADIUS:
                return
        if not torch.isfinite(x).all():
            raise InputError("an embedding has components that are NaN or infinite")
        sinh = math.sqrt(self.curv) * torch.linalg.vector_norm(x.double(), dim=-1)
        if bool((sinh > MAX_SINH_RADIUS).any()):
            raise InputError(
                f"an embedding lies at radius {math.asinh(float(sinh.max())) / math.sqrt(self.curv):.4g}; "
                f"float32 points are told apart up to {math.asinh(MAX_SINH_RADIUS) / math.sqrt(self.curv):.4g}"
            )

    def point(self, given: Vectors, what: str = "a query") -> Float[Tensor, " d"]:
        """Return one point of this space, in float64 on the CPU.

        Raises:
            InputError: it is none, or several; the message begins with `what`.
        """
        x = as_vectors(given, what)
        if x.dim() != 1:
            raise InputError(f"{what} must have shape (D,), got {tuple(x.shape)}: give one row, x[0]")
        self.check_points(x)
        return x.cpu().double()

    def points(self, given: Vectors, what: str = "queries") -> Float[Tensor, "n d"]:
        """Return points of this space, in float64 on the CPU.

        Raises:
            InputError: they are none, or one; the message begins with `what`.
        """
        x = as_vectors(given, what)
        if x.dim() != 2:
            raise InputError(f"{what} must have shape (N, D), got {tuple(x.shape)}: give one as x[None]")
        self.check_points(x)
        return x.cpu().double()

    def check_path(self, path: Path) -> None:
        """Refuse a way through another space.

        Raises:
            InputError: it is no path, its curvature differs, or an end is no point of this space.
        """
        if not isinstance(path, Path):
            raise InputError(f"a way is a Path, such as Path(x, curv), got {shown(path)}")
        if not math.isclose(path.curv, self.curv, rel_tol=1e-6):
            raise InputError(f"a path of curv {path.curv:.6g} does not lie in the space of {self}")
        self.check_points(torch.stack([path.start, path.target]))


@dataclass(frozen=True)
class Collection:
    """A named set of points of one model."""

    name: str
    space: Space
    count: int
    index: Index | None = None

    def check_space(self, space: Space) -> None:
        """Refuse the points of another model.

        Raises:
            ModelMismatch: the model, its curvature, its dimension or its rule of entailment differ.
        """
        if not self.space.same_as(space):
            raise ModelMismatch(self.name, self.space, space)


@dataclass(frozen=True, init=False)
class Points:
    """N points in columns.

    Args:
        ids: unique strings.
        vectors: space components (N, D), float32 or float64, a tensor, an array or lists; stores keep float32.
        modality: one a point.
        metadata: one a point, mappings that JSON can hold; None, of a point or of all, for none.

    Raises:
        InputError: columns of unequal length, or something else in them.
    """

    ids: Sequence[str]
    vectors: Tensor
    modality: Sequence[Modality]
    metadata: Sequence[Mapping[str, Any]]

    def __init__(
        self,
        ids: Iterable[str],
        vectors: Vectors,
        modality: Iterable[Modality],
        metadata: Iterable[Mapping[str, Any] | None] | None,
    ):
        if isinstance(modality, str):
            raise InputError(f"modality must be a list, one a point, got the string {modality!r}")
        if not isinstance(modality, Iterable):
            raise InputError(f"modality must be a list, one a point, got {shown(modality)}")
        if isinstance(ids, set | frozenset):
            raise InputError("ids must be in the order of the vectors, got a set, which has none")
        of_ids = as_ids(ids)
        x = as_vectors(vectors, "vectors")
        if x.dim() != 2:
            raise InputError(f"vectors must have shape (N, D), got {tuple(x.shape)}")
        modalities, of_points = list(modality), as_metadata(metadata, of_ids)
        lengths = {"ids": len(of_ids), "vectors": len(x), "modality": len(modalities), "metadata": len(of_points)}
        if len(set(lengths.values())) > 1:
            raise InputError(f"points need one id, vector, modality and metadata each, got {lengths}")
        check_modality(modalities)
        if len(set(of_ids)) < len(of_ids):
            twice = next(point_id for point_id, count in Counter(of_ids).items() if count > 1)
            raise InputError(f"point ids must be unique within a call, {twice!r} comes twice")
        object.__setattr__(self, "ids", of_ids)
        object.__setattr__(self, "vectors", x)
        object.__setattr__(self, "modality", modalities)
        object.__setattr__(self, "metadata", of_points)


@dataclass(frozen=True)
class Hit:
    """A point found: its distance from the query, and its radius, the distance from the root.

    Of a search by cones also `angle`, the exterior angle φ; `aperture`, the half aperture ω, not multiplied by η; and
    `margin` = φ − η ω, which is 0 on the border of the cone and negative inside. Radians. Of a search by half-spaces
    `angle` is φ too and `aperture` π/2; `margin` = threshold − height, √c times a distance, is 0 where the half-space
    ends and negative inside.
    """

    id: str
    distance: float
    radius: float
    modality: Modality
    metadata: Mapping[str, Any]
    angle: float | None = None
    aperture: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Found:
    """What a search found, best first.

    `exact` is False where a better point may have been missed. `total` is how many points there are in all, of which
    `hits` is one page; None where the search did not count them.
    """

    hits: list[Hit]
    exact: bool
    total: int | None = None


@dataclass(frozen=True)
class Index:
    """How the approximate search of a collection was built, and how well it did then.

    Args:
        cells: into how many cells the points are divided.
        probes: how many cells a search looks at.
        recall: share of the true 10 nearest that it found, at build time, for stored points in a random sample.
        built_at: how many points there were.
    """

    cells: int
    probes: int
    recall: float
    built_at: int


def encode_metadata(points: Points) -> list[str]:
    """Write the metadata of points as JSON, one string each.

    Raises:
        InputError: metadata that JSON cannot hold, or of more than `MAX_METADATA_BYTES`.
    """
    return [_to_json(i, m) for i, m in zip(points.ids, points.metadata, strict=True)]


def _to_json(point_id: str, metadata: Mapping[str, Any]) -> str:
    if unnamed := [field for field in metadata if not isinstance(field, str)]:
        raise InputError(
            f"the metadata of point {point_id!r} cannot be written as JSON: its field {unnamed[0]!r} is no string"
        )
    if nesting(metadata, MAX_METADATA_DEPTH + 1) > MAX_METADATA_DEPTH:
        raise InputError(
            f"the metadata of point {point_id!r} cannot be written as JSON that every store reads: "
            f"it is nested more than {MAX_METADATA_DEPTH} deep"
        )
    try:
        text = json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the metadata of point {point_id!r} cannot be written as JSON: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise InputError(
            f"the metadata of point {point_id!r} has {size:,} bytes as JSON; a store takes up to {MAX_METADATA_BYTES:,}"
        )
    return text


def _plain(value: object) -> object:
    """Return numbers of numpy's as Python's, which the rows of tables have."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{shown(value)} is no text, number, list or mapping")


def nesting(value: object, stop: int) -> int:
    """Return how deep a value of JSON is nested, or `stop` if it is at least that deep."""
    if stop == 0 or not isinstance(value, (Mapping, list, tuple)):
        return 0
    inner = value.values() if isinstance(value, Mapping) else value
    return 1 + max((nesting(v, stop - 1) for v in inner), default=0)


def join(blocks: Sequence[Points]) -> Points:
    """Return the points of at least one block as one.

    Raises:
        InputError: an id comes twice.
    """
    return Points(
        [point_id for block in blocks for point_id in block.ids],
        torch.cat([block.vectors for block in blocks]),
        [modality for block in blocks for modality in block.modality],
        [metadata for block in blocks for metadata in block.metadata],
    )


@runtime_checkable
class VectorStore(Protocol):
    """Collections of points, found again by id, by distance, by cones and along geodesics.

    Calls block and may come from several threads. A write has reached the disk when its call returns. Every method but
    `collections` and `close` raises UnknownCollection where there is none of the name; searches raise InputError where
    the query is no point of the collection's space, or the filter names a field that no point has.
    """

    def collections(self) -> list[Collection]:
        """Return every collection, by name."""
        ...

    def describe(self, name: str) -> Collection:
        """Return one collection."""
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
        """Remove points and return how many there were; unknown ids are passed over."""
        ...

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for.

        Raises:
            UnknownPoint: an id is not there.
        """
        ...

    def find(self, name: str, ids: Sequence[str]) -> Points:
        """Return those of the points that are there, in any order."""
        ...

    def count(self, name: str, where: Where = ANYTHING) -> int:
        """Return how many points meet the conditions."""
        ...

    def scan(self, name: str, where: Where = ANYTHING, rows: int = 4096) -> Iterator[Points]:
        """Yield all points that meet the conditions, each once, in blocks of up to `rows`.

        Points written or deleted meanwhile may or may not be among them.
        """
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
    ) -> list[Found]:
        """Return for each query the k nearest points by geodesic distance, then by id; fewer if there are fewer.

        Args:
            name: the collection.
            queries: space components (N, D), float32 or float64.
            k: at least 1.
            where: what may be returned.
            offset: how many of the nearest to pass over; the next page starts at offset + k.
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
        limit: int = 1000,
        offset: int = 0,
    ) -> Found:
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
        order: Order = "margin",
        limit: int = 1000,
        offset: int = 0,
    ) -> Found:
        """Return the ancestors or the descendants of a point, a page of them; `total` counts them all.

        Args:
            name: the collection.
            of: space components (D,) of the point.
            side: which of the two.
            cone: a `Cone` or a `Plane`; the rule of the collection's space when absent.
            where: what may be returned.
            order: what comes first; then by id.
            limit: of the page, at least 1.
            offset: how many to pass over.
        """
        ...

    def contenders(
        self, name: str, path: Path, cone: Entailment | None = None, where: Where = ANYTHING
    ) -> tuple[Points, bool]:
        """Return the points that may be nearest to some place of a path, and whether none is missing.

        Args:
            name: the collection.
            path: from where to where, in steps or without.
            cone: at each place only points whose cone or half-space holds it count; all points where absent.
            where: which points count at all.
        """
        ...

    def snapshot(self, name: str) -> str:
        """Make a copy of a collection to restore it from, and say where it is."""
        ...

    def close(self) -> None:
        """Release what the store holds; nothing else may be called afterwards."""
        ...
