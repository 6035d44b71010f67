"""Codec between spaces and points, and the collections and structs of Qdrant."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from qdrant_client import models
from torch import Tensor

from hypclip.errors import StoreError
from hypclip.geometry import lorentz, planes
from hypclip.geometry.entailment import Cone, Plane
from hypclip.search.exact import Measures, measure
from hypclip.search.limits import MAX_RHO
from hypclip.search.rules import as_entry, of_entry
from hypclip.search.space import Space
from hypclip.search.types import Hit, OrderBy, Points, join
from hypclip.search.where import (
    ANYTHING,
    Where,
    matches,
)

FORMAT = 1

SHELLS = 1 + math.floor(4 * MAX_RHO)
"""Shells of radii are a quarter of 1/√c thick, counted from 1; 0 holds the points at the origin, without direction."""


READ = ["id", "modality", "json"]
"""The payload that comes back. The metadata are in it as text, since the numbers of an engine may lose digits."""


REQUEST_BYTES = 2**23
"""Size of requests and answers aimed at; a server refuses requests above 32 MB unless told otherwise."""


_IDS = uuid.UUID("6f4d9a52-4f0f-5d0c-9c65-3d1f6f0f7f5e")

_T = TypeVar("_T")


def vectors(space: Space) -> dict[str, models.VectorParams]:
    """Return the vectors of a collection; `general` where half-spaces are searched, see planes.py.

    A graph on `lorentz` would spoil even the rescoring of candidates; cones are always found exactly, without one.
    """
    flat, dim = models.HnswConfigDiff(m=0), space.dim
    general = models.VectorParams(size=dim + 1, distance=models.Distance.DOT, hnsw_config=flat)
    return {
        "tangent": models.VectorParams(size=dim, distance=models.Distance.EUCLID),
        "lorentz": models.VectorParams(size=dim + 1, distance=models.Distance.DOT, hnsw_config=flat),
        "direction": models.VectorParams(size=dim, distance=models.Distance.COSINE, hnsw_config=flat),
    } | ({"general": general} if isinstance(space.entailment, Plane) else {})


def own_metadata(space: Space) -> dict[str, Any]:
    """Return the metadata that mark a Qdrant collection as ours."""
    ours = {"model_id": space.model_id, "revision": space.revision, "curv": space.curv, "dim": space.dim}
    return {"hypclip": {"format": FORMAT, **ours, "entailment": as_entry(space.entailment)}}


def is_ours(info: models.CollectionInfo) -> bool:
    """Tell whether hypclip made a Qdrant collection."""
    return "hypclip" in (info.config.metadata or {})


def space_of(name: str, info: models.CollectionInfo) -> Space:
    """Return the space of a collection.

    Raises:
        StoreError: hypclip did not make it, or it has another format or other vectors than ours.
    """
    if not is_ours(info):
        raise StoreError(f"the Qdrant collection of the name {name!r} was not made by hypclip, which leaves it alone")
    ours = (info.config.metadata or {})["hypclip"]
    if not isinstance(ours, dict) or ours.get("format") != FORMAT:
        found = ours.get("format") if isinstance(ours, dict) else ours
        raise StoreError(f"collection {name!r} has format {found}; this version of hypclip reads format {FORMAT}")
    try:
        rule = of_entry(ours["entailment"]) if "entailment" in ours else Cone()
        space = Space(ours["model_id"], float(ours["curv"]), int(ours["dim"]), ours["revision"], rule)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the metadata of collection {name!r} is damaged: {error!r}") from error
    there = info.config.params.vectors
    for vector, wanted in vectors(space).items():
        found = there.get(vector) if isinstance(there, dict) else None
        if found is None:
            raise StoreError(f"collection {name!r} lacks its {vector!r} vectors: make it again from its points")
        if (found.size, found.distance) != (wanted.size, wanted.distance):
            raise StoreError(
                f"the {vector!r} vectors of collection {name!r} have size {found.size} and distance {found.distance}, "
                f"expected {wanted.size} and {wanted.distance}"
            )
        if wanted.hnsw_config is not None and (found.hnsw_config is None or found.hnsw_config.m != 0):
            raise StoreError(
                f"the {vector!r} vectors of collection {name!r} have a graph, which spoils searches: set m=0"
            )
    return space


def point_uuid(point_id: str) -> str:
    """Return the name that a point has in Qdrant."""
    return str(uuid.uuid5(_IDS, point_id))


def request_ends(space: Space, texts: Sequence[str]) -> list[int]:
    """Cut the points with these metadata into requests, and return where each ends."""
    ends, size = [], 0
    numbers = sum(vector.size for vector in vectors(space).values())
    for row, text in enumerate(texts):
        # At most 22 characters per number, and the metadata twice.
        own = 22 * numbers + 2 * len(text.encode()) + 1024
        if row and size + own > REQUEST_BYTES:
            ends.append(row)
            size = 0
        size += own
    return [*ends, len(texts)] if texts else []


def to_structs(space: Space, points: Points, texts: Sequence[str], start: int, end: int) -> list[models.PointStruct]:
    """Return some of the points as Qdrant takes them; `texts` are the metadata of all."""
    x = points.vectors[start:end].detach().cpu().float().double()
    rho, sinh, unit = lorentz.polar(x, space.curv)
    shell = torch.where(sinh > 0, 1 + (4 * rho).floor().clamp(max=SHELLS - 1), 0).squeeze(-1).int().tolist()
    unit[:, 0] = torch.where(sinh.squeeze(-1) > 0, unit[:, 0], 1)
    columns = {
        "tangent": lorentz.log_map0(x, space.curv).float().tolist(),
        "lorentz": torch.cat([x, lorentz.time_component(x, space.curv)], dim=1).float().tolist(),
        "direction": unit.float().tolist(),
    }
    if isinstance(space.entailment, Plane):
        columns["general"] = planes.as_general(x, space.curv).float().tolist()
    radius = lorentz.radius(x, space.curv).tolist()
    structs = []
    for row, (point_id, text, modality) in enumerate(
        zip(points.ids[start:end], texts[start:end], points.modality[start:end], strict=True)
    ):
        metadata = json.loads(text)
        own = {"id": point_id, "modality": modality, "radius": radius[row], "shell": shell[row]}
        payload = {**own, "fields": list(metadata), "metadata": metadata, "json": text}
        vector = {name: column[row] for name, column in columns.items()}
        structs.append(models.PointStruct(id=point_uuid(point_id), vector=vector, payload=payload))
    return structs


def to_points(
    space: Space, records: Iterable[models.Record] | Iterable[models.ScoredPoint], where: Where = ANYTHING
) -> Points:
    """Return the points of an answer that meet the conditions on metadata and modality."""
    columns: tuple[list[str], list[Any], list[Any], list[Any]] = ([], [], [], [])
    for record in records:
        payload, named = record.payload or {}, cast(dict[str, list[float]], record.vector)
        metadata = metadata_of(payload)
        if where.modality in (None, payload["modality"]) and matches(metadata, where.conditions):
            for column, value in zip(
                columns, (payload["id"], named["lorentz"][: space.dim], payload["modality"], metadata), strict=True
            ):
                column.append(value)
    x = torch.from_numpy(np.array(columns[1], dtype=np.float32).reshape(-1, space.dim))
    return Points(columns[0], x, columns[2], columns[3])


def metadata_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a point from the payload that comes back."""
    metadata: dict[str, Any] = json.loads(payload["json"])
    return metadata


def joined(space: Space, blocks: Iterable[Points]) -> Points:
    """Return the points of all blocks, of which there may be none."""
    return join([to_points(space, []), *blocks])


def to_hits(points: Points, measures: Measures, inside: Tensor) -> list[Hit]:
    """Return the points that are inside, a mask, with what was measured."""
    columns = {name: None if c is None else c.tolist() for name, c in vars(measures).items()}
    found = []
    for row in inside.nonzero().squeeze(-1).tolist():
        measured: dict[str, Any] = {name: None if column is None else column[row] for name, column in columns.items()}
        found.append(Hit(points.ids[row], modality=points.modality[row], metadata=points.metadata[row], **measured))
    return found


def hits_within(space: Space, blocks: Iterable[Points], query: Float[Tensor, " d"], distance: float) -> list[Hit]:
    """Return the points of all blocks that are at most a distance away."""
    found = []
    for block in blocks:
        measures = measure(block.vectors, query, space.curv)
        found += to_hits(block, measures, measures.distance <= distance)
    return found


def ordered(hits: list[Hit], order_by: OrderBy) -> list[Hit]:
    """Sort by a measure, then by id."""
    return sorted(hits, key=lambda hit: (getattr(hit, order_by), hit.id))


def rows_per_answer(space: Space) -> int:
    """Return the number of points with vectors that an answer of fitting size has."""
    return max(1, min(4096, REQUEST_BYTES // (16 * (space.dim + 1))))


def batches(items: Sequence[_T], rows: int) -> Iterator[Sequence[_T]]:
    """Yield items in slices."""
    for start in range(0, len(items), rows):
        yield items[start : start + rows]
