"""What is said to Qdrant and what comes back: conditions, searches, bounds of rounding, points.

Conditions have the meaning of `where.matches`. Qdrant tells numbers, truth values and strings apart as JSON does, looks
into lists one level deep, and never into objects. Three things need care. Its exact match knows no floats, so a number
is asked for as a range from itself to itself. Its integer index forgets 1.0, so numbers are indexed as floats. And it
compares integers as float64, so that beyond 2^53 neighbours fall together: there bounds are widened, and the client
decides.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from qdrant_client import models
from torch import Tensor

from hypclip.errors import StoreError
from hypclip.geometry import cones, lorentz, planes
from hypclip.geometry.entailment import Cone, Plane
from hypclip.search.exact import Measures, measure
from hypclip.search.rules import as_entry, of_entry
from hypclip.search.store import MAX_SINH_RADIUS, Hit, Order, Points, Space, join
from hypclip.search.where import (
    ANYTHING,
    MAX_INTEGER,
    Condition,
    Equal,
    Scalar,
    Where,
    Within,
    check_where,
    is_number,
    matches,
)

FieldType = Literal["keyword", "integer", "float", "bool"]
"""What the values of an indexed metadata field are."""

FORMAT = 1
SHELLS = 1 + math.floor(4 * math.asinh(MAX_SINH_RADIUS) * (1 + 1e-6))
"""Shells of radii are a quarter of 1/√c thick, counted from 1; 0 holds the points at the root, without direction."""

READ = ["id", "modality", "json"]
"""The payload that comes back. The metadata are in it as text, since the numbers of an engine may lose digits."""

REQUEST_BYTES = 2**23
"""Size of requests and answers aimed at; a server refuses requests above 32 MB unless told otherwise."""

_IDS = uuid.UUID("6f4d9a52-4f0f-5d0c-9c65-3d1f6f0f7f5e")
_NARROW = 1e-2
"""Cones that seen from the root are narrower need not be told apart, in radians."""
_ULP = 2.0**-24
_T = TypeVar("_T")


def conditions(where: Where) -> list[models.Condition]:
    """Return what must hold; points beyond those that `where` means pass only where it is not `decided`."""
    check_where(where)
    found = [_condition(field_key(name), condition) for name, condition in where.conditions.items()]
    if where.modality is not None:
        found.append(equals("modality", where.modality))
    if where.by_radius:
        found.append(between("radius", float(where.min_radius), float(where.max_radius)))
    return found


def decided(where: Where) -> bool:
    """Tell whether the conditions alone decide, so that the engine can count."""
    check_where(where)
    return not any(abs(number) >= MAX_INTEGER for c in where.conditions.values() for number in _numbers(c))


def field_key(name: str) -> str:
    """Return the path of a metadata field, whatever characters it has but quotes and backslashes."""
    return f"metadata.{name}" if all(sign.isalnum() or sign in "_-" for sign in name) else f'metadata."{name}"'


def field_index(kind: FieldType) -> models.PayloadSchemaType:
    """Return the index of a metadata field that leaves the meaning of conditions as it is."""
    return models.PayloadSchemaType("float" if kind == "integer" else kind)


def equals(key: str, value: str | int) -> models.FieldCondition:
    """Return the condition that a string or an integer of our own is this one."""
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def one_of(key: str, values: list[int]) -> models.FieldCondition:
    """Return the condition that an integer of our own is one of these."""
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def between(key: str, low: float, high: float) -> models.FieldCondition:
    """Return the condition that a number lies within bounds, which may be infinite."""
    bounds = models.Range(gte=low if low > -math.inf else None, lte=high if high < math.inf else None)
    return models.FieldCondition(key=key, range=bounds)


def both(found: Sequence[models.Condition]) -> models.Filter | None:
    """Return the filter that all conditions hold."""
    return models.Filter(must=list(found)) if found else None


def vectors(space: Space) -> dict[str, models.VectorParams]:
    """Return the vectors of a collection; `general` where half-spaces are searched, see qdrant_planes.py.

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
    """Return what a Qdrant collection says about itself if it is ours."""
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
        # At most 22 characters a number, and the metadata twice.
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
    """Return those points of an answer that meet the conditions on metadata and modality."""
    columns: tuple[list[str], list[Any], list[Any], list[Any]] = ([], [], [], [])
    for record in records:
        payload, named = record.payload or {}, cast(dict[str, list[float]], record.vector)
        metadata = json.loads(payload["json"])
        if where.modality in (None, payload["modality"]) and matches(metadata, where.conditions):
            for column, value in zip(
                columns, (payload["id"], named["lorentz"][: space.dim], payload["modality"], metadata), strict=True
            ):
                column.append(value)
    x = torch.from_numpy(np.array(columns[1], dtype=np.float32).reshape(-1, space.dim))
    return Points(columns[0], x, columns[2], columns[3])


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


def ordered(hits: list[Hit], order: Order) -> list[Hit]:
    """Sort by what comes first, then by id."""
    return sorted(hits, key=lambda hit: (getattr(hit, order), hit.id))


def threshold_search(
    using: str, vector: Sequence[float], floor: float, found: Sequence[models.Condition]
) -> models.QueryRequest:
    """Return the search for the names of all points whose exact score is above a floor."""
    exactly = models.SearchParams(exact=True)
    return models.QueryRequest(
        query=list(vector), using=using, score_threshold=floor, filter=both(found), params=exactly, limit=4096
    )


def nearest_search(
    space: Space, query: Float[Tensor, " d"], limit: int, where: Where, exact: bool
) -> models.QueryRequest:
    """Return the search for the points of the best Lorentz products, all of them or candidates near in the tangents.

    Few come with their vectors, more than fit an answer only by name.
    """
    prefetch = None
    if not exact:
        tangent, params = lorentz.log_map0(query, space.curv).tolist(), models.SearchParams(hnsw_ef=max(128, limit))
        prefetch = models.Prefetch(
            query=tangent, using="tangent", limit=limit, params=params, filter=both(conditions(where))
        )
    whole = limit <= rows_per_answer(space)
    return models.QueryRequest(
        prefetch=prefetch,
        query=lorentz_query(space, query),
        using="lorentz",
        filter=both(conditions(where)) if exact else None,
        params=models.SearchParams(exact=True),
        limit=limit,
        with_payload=READ if whole else False,
        with_vector=["lorentz"] if whole else False,
    )


def ball_search(
    space: Space, query: Float[Tensor, " d"], distance: float, floor: float, where: Where
) -> models.QueryRequest:
    """Return the search for all points that score more than a floor, at radii that the distance allows."""
    # The radii of two points differ by their distance at most.
    radius = float(lorentz.radius(query, space.curv))
    reach = distance + 1e-9 * (radius + distance + 1 / math.sqrt(space.curv))
    found = [*conditions(where), between("radius", radius - reach, radius + reach)]
    return threshold_search("lorentz", lorentz_query(space, query), floor, found)


def descendant_search(space: Space, q: Float[Tensor, " d"], cone: Cone, where: Where) -> models.QueryRequest | None:
    """Return the search for all points in a cone but those at the root; None where all points may be in it."""
    angle = (cone.eta * cones.half_aperture(q, space.curv, cone.min_radius)).clamp(max=math.pi)
    spread = float(cones.root_angle(lorentz.radius(q, space.curv), angle, space.curv))
    _, sinh, unit = lorentz.polar(q, space.curv)
    floor = math.cos(spread) - cosine_slack(space)
    if float(sinh) == 0 or floor <= -1:
        return None
    return threshold_search("direction", unit.tolist(), floor, [*conditions(where), between("shell", 1.0, math.inf)])


def ancestor_searches(
    space: Space, places: Float[Tensor, "n d"], cone: Cone, where: Where
) -> tuple[list[int], list[models.QueryRequest]]:
    """Return how to find all points whose cone holds one of the places: shells to take whole, and searches."""
    root = math.sqrt(space.curv)
    _, sinh, units = lorentz.polar(places, space.curv)
    away = sinh.squeeze(-1) > 0
    units, radii = units[away], lorentz.radius(places[away], space.curv)
    # At the inner edge of a shell cones are widest, seen from their apex and from the root.
    edges = torch.arange(SHELLS, dtype=torch.float64) / (4 * root)
    rims = (torch.sinh(root * edges) / root).unsqueeze(-1)
    angles = (cone.eta * cones.half_aperture(rims, space.curv, cone.min_radius)).clamp(max=math.pi)
    spreads = cones.root_angle(edges, angles, space.curv)
    whole, searches = [0], []
    for shell in range(1, SHELLS + 1):
        edge, angle, spread = (float(column[shell - 1]) for column in (edges, angles, spreads))
        outermost = spread <= _NARROW
        # A cone of at most a right angle holds nothing nearer the root than its apex.
        near = units if angle > math.pi / 2 else units[radii >= edge * (1 - 1e-9)]
        centres = [
            (unit, math.cos(min(math.pi, spread + off)) - cosine_slack(space))
            for unit, off in arcs(near, max(spread, _NARROW))
        ]
        if angle > math.pi - 1e-6 or any(floor <= -1 for _, floor in centres):
            # With π also the root is in the cone, which is seen in no direction.
            whole.append(shell)
            continue
        found = [*conditions(where), between("shell", float(shell), math.inf if outermost else float(shell))]
        searches += [threshold_search("direction", unit.tolist(), floor, found) for unit, floor in centres]
        if outermost:
            break
    return whole, searches


def lorentz_query(space: Space, query: Float[Tensor, " d"]) -> list[float]:
    """Return the vector whose dot products with `lorentz` are Lorentz products."""
    return [*query.tolist(), -float(lorentz.time_component(query, space.curv))]


def least_score(space: Space, query: Float[Tensor, " d"], distance: float) -> float:
    """Return a float32 score that all points at most a distance away are above; −∞ where these are all there are.

    The sum of D + 1 float32 products has an error of at most (D + 1) 2⁻²⁴ |q||x| (time components included) in
    whatever order; the roundings of q, of the times, of the score and of this bound are covered by raising D + 1 to
    D + 12. Points within the distance are no farther out than the query and the distance together.
    """
    root, most = math.sqrt(space.curv), math.asinh(MAX_SINH_RADIUS) * (1 + 1e-6)
    rho, z = root * float(lorentz.radius(query, space.curv)), root * distance
    if z >= rho + most:
        return -math.inf
    norms = math.sqrt(math.cosh(2 * rho) * math.cosh(2 * min(rho + z, most))) / space.curv
    return -math.cosh(z) / space.curv - (space.dim + 12) * _ULP * norms


def cosine_slack(space: Space) -> float:
    """Return how far a float32 cosine of stored directions may be off, and more for the roundings of a threshold."""
    return (2 * space.dim + 24) * _ULP


def arcs(units: Float[Tensor, "n d"], spread: float) -> Iterator[tuple[Float[Tensor, " d"], float]]:
    """Cover directions by few of them: yield one and how far off those are, up to `spread`, that it stands for."""
    start = 0
    while start < len(units):
        away = 2 * torch.asin((torch.linalg.vector_norm(units[start:] - units[start], dim=1) / 2).clamp(max=1))
        beyond = (away > spread).nonzero()
        reach = int(beyond[0]) if len(beyond) else len(away)
        yield units[start], float(away[:reach].max())
        start += reach


def rows_per_answer(space: Space) -> int:
    """Return how many points with their vectors make an answer of fitting size."""
    return max(1, min(4096, REQUEST_BYTES // (16 * (space.dim + 1))))


def batches(items: Sequence[_T], rows: int) -> Iterator[Sequence[_T]]:
    """Yield items in slices."""
    for start in range(0, len(items), rows):
        yield items[start : start + rows]


def _condition(key: str, condition: Condition) -> models.Condition:
    match condition:
        case Within(bounds):
            return models.FieldCondition(key=key, range=models.Range(**dict(_widened(*bound) for bound in bounds)))
        case Equal(values):
            choices = _choices(key, values)
            return choices[0] if len(choices) == 1 else models.Filter(should=choices)


def _choices(key: str, values: tuple[Scalar, ...]) -> list[models.Condition]:
    found: list[models.Condition] = []
    if strings := [value for value in values if isinstance(value, str)]:
        found.append(models.FieldCondition(key=key, match=models.MatchAny(any=strings)))
    for value in values:
        if value is None:
            found.append(models.FieldCondition(key=key, is_null=True))
        elif isinstance(value, bool):
            found.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
        elif not isinstance(value, str):
            found.append(between(key, float(value), float(value)))
    return found


def _widened(kind: str, limit: float) -> tuple[str, float]:
    return (kind if abs(limit) < MAX_INTEGER else kind[:2] + "e", limit)


def _numbers(condition: Condition) -> list[float]:
    match condition:
        case Within(bounds):
            return [limit for _, limit in bounds]
        case Equal(values):
            return [float(value) for value in values if isinstance(value, (int, float)) and is_number(value)]
