"""What every vector store offers, and the values that go in and come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.search.errors import ModelMismatch

Modality = Literal["text", "image", "embedding"]
"""Where a point came from; "embedding" when it came as numbers and nobody said."""

MAX_SINH_RADIUS = 1e7
"""Largest √c|x| = sinh(√c·radius) of a point, a radius of 16.8/√c. Beyond it neighbouring float32 points are further
apart than the scale 1/√c of the space itself, so that distances would be noise."""


@dataclass(frozen=True)
class Space:
    """Which model's space a point belongs to.

    Args:
        model_id: names the weights.
        curv: c > 0.
        dim: D, the number of space components.
    """

    model_id: str
    curv: float
    dim: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.curv) and self.curv > 0):
            raise InputError(f"curv must be positive and finite (the sectional curvature is −curv), got {self.curv}")
        if self.dim < 1:
            raise InputError(f"dim must be at least 1, got {self.dim}")

    def __str__(self) -> str:
        return f"model {self.model_id!r} (curv {self.curv:.6g}, {self.dim} dimensions)"

    def same_as(self, other: Space) -> bool:
        """Tell whether points of both can be compared; exp(log c) may differ in the last bits between machines."""
        same_curv = math.isclose(self.curv, other.curv, rel_tol=1e-6)
        return self.model_id == other.model_id and self.dim == other.dim and same_curv

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
        if not torch.isfinite(x).all():
            raise InputError("an embedding has components that are NaN or infinite")
        sinh = math.sqrt(self.curv) * torch.linalg.vector_norm(x.double(), dim=-1)
        if bool((sinh > MAX_SINH_RADIUS).any()):
            raise InputError(
                f"an embedding lies at radius {math.asinh(float(sinh.max())) / math.sqrt(self.curv):.4g}; "
                f"float32 points are told apart up to {math.asinh(MAX_SINH_RADIUS) / math.sqrt(self.curv):.4g}"
            )


@dataclass(frozen=True)
class Collection:
    """A named set of points of one model."""

    name: str
    space: Space
    count: int

    def check_space(self, space: Space) -> None:
        """Refuse the points of another model.

        Raises:
            ModelMismatch: the model, its curvature or its dimension differ.
        """
        if not self.space.same_as(space):
            raise ModelMismatch(self.name, self.space, space)


@dataclass(frozen=True)
class Points:
    """N points in columns.

    Args:
        ids: unique strings.
        vectors: space components (N, D), float32 or float64; kept as float32.
        modality: one a point.
        metadata: one a point, mappings that JSON can hold.
    """

    ids: Sequence[str]
    vectors: Tensor
    modality: Sequence[Modality]
    metadata: Sequence[Mapping[str, Any]]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("ids", "vectors", "modality", "metadata")}
        if len(set(lengths.values())) > 1:
            raise InputError(f"points need one id, vector, modality and metadata each, got {lengths}")
        if self.vectors.dim() != 2:
            raise InputError(f"vectors must have shape (N, D), got {tuple(self.vectors.shape)}")
        seen: set[str] = set()
        for point_id in self.ids:
            if not isinstance(point_id, str) or not point_id or not _is_unicode(point_id):
                raise InputError(f"a point id must be a non-empty string of valid Unicode, got {point_id!r}")
            if point_id in seen:
                raise InputError(f"point ids must be unique within a call, {point_id!r} comes twice")
            seen.add(point_id)


@dataclass(frozen=True)
class Hit:
    """A point found: how far it is from the query, and how far from the root (its radius)."""

    id: str
    distance: float
    radius: float
    modality: Modality
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Neighbours:
    """What a search found, nearest first. `exact` is False when a nearer point may have been missed."""

    hits: list[Hit]
    exact: bool


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class VectorStore(Protocol):
    """Collections of points, found again by id or by distance.

    Calls block and may come from several threads. A write has reached the disk when its call returns.
    """

    def collections(self) -> list[Collection]:
        """Return every collection, by name."""
        ...

    def describe(self, name: str) -> Collection:
        """Return one collection.

        Raises:
            UnknownCollection: there is none of this name.
        """
        ...

    def create_collection(self, name: str, space: Space) -> Collection:
        """Create a collection, or return the one of this name if it is of the same space.

        Raises:
            ModelMismatch: there is one, of another model.
        """
        ...

    def upsert(self, name: str, points: Points) -> None:
        """Write points, all or none; points whose id is there already are replaced.

        Raises:
            UnknownCollection: there is none of this name.
            InputError: a vector is no point of the collection's space, or a metadata is not JSON.
        """
        ...

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points and return how many there were; unknown ids are passed over.

        Raises:
            UnknownCollection: there is none of this name.
        """
        ...

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for.

        Raises:
            UnknownCollection: there is none of this name.
            UnknownPoint: an id is not there.
        """
        ...

    def knn(
        self,
        name: str,
        query: Float[Tensor, " d"],
        k: int,
        modality: Modality | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Neighbours:
        """Return the k points nearest to the query by geodesic distance, fewer if there are fewer.

        Args:
            name: the collection.
            query: space components, float32 or float64.
            k: at least 1.
            modality: only points of this modality.
            filter: only points whose metadata has each of these fields with exactly this value.

        Raises:
            UnknownCollection: there is none of this name.
            InputError: the query is no point of the collection's space, or k is below 1.
        """
        ...

    def close(self) -> None:
        """Release what the store holds; nothing else may be called afterwards."""
        ...
