"""Arguments and results of stores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.search.errors import ModelMismatch
from hypclip.search.given import Vectors, as_ids, as_metadata, as_vectors, shown
from hypclip.search.space import Space
from hypclip.search.where import Modality, check_modality

Side = Literal["ancestors", "descendants"]
"""Direction of a search: points whose cone or half-space contains the query, or points in that of the query."""


OrderBy = Literal["distance", "margin", "radius"]
"""Measure that hits are sorted by: nearest, deepest inside the cone or half-space, or most general first."""


MAX_METADATA_BYTES = 2**16
"""Most bytes of a point's metadata as JSON."""


MAX_METADATA_DEPTH = 100
"""Most levels of a point's metadata; SQLite reads JSON of about 2,000."""


def check_space(name: str, stored: Space, asked: Space) -> None:
    """Refuse the points of another model than that of a collection.

    Raises:
        ModelMismatch: the model, its curvature, its dimension or its rule of entailment differ.
    """
    if not stored.same_as(asked):
        raise ModelMismatch(name, stored, asked)


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
        check_space(self.name, self.space, space)


@dataclass(frozen=True, init=False)
class Points:
    """N points in columns.

    Args:
        ids: unique strings.
        vectors: space components (N, D), float32 or float64, a tensor, an array or lists; stores keep float32.
        modality: one per point.
        metadata: one per point, mappings that JSON can hold; None, of a point or of all, for none.

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
            raise InputError(f"modality must be a list, one per point, got the string {modality!r}")
        if not isinstance(modality, Iterable):
            raise InputError(f"modality must be a list, one per point, got {shown(modality)}")
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
    """A point of an answer: its distance from the query, and its radius, the distance from the origin.

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
class Page:
    """A page of the hits of a search, best first.

    `exact` is False where a better point may have been missed. `total` counts all hits, of which `hits` is a page; None
    where the search did not count them.
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
    """Return numbers of numpy as those of Python."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{shown(value)} is no text, number, list or mapping")


def nesting(value: object, stop: int) -> int:
    """Return the depth of a JSON value, or `stop` if it is at least that deep."""
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
