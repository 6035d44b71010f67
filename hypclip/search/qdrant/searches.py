"""Searches of Qdrant whose answers contain every true one, whatever the rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from qdrant_client import models
from torch import Tensor

from hypclip.geometry import cones, lorentz
from hypclip.geometry.entailment import Cone
from hypclip.search.limits import MAX_RHO
from hypclip.search.qdrant.codec import READ, SHELLS, rows_per_answer
from hypclip.search.qdrant.filters import all_of, between, conditions
from hypclip.search.space import Space
from hypclip.search.where import (
    Where,
)

_NARROW = 1e-2
"""Cones that seen from the origin are narrower need not be told apart, in radians."""

_ULP = 2.0**-24


def threshold_search(
    using: str, vector: Sequence[float], floor: float, found: Sequence[models.Condition]
) -> models.QueryRequest:
    """Return the search for the names of all points whose exact score is above a floor."""
    exactly = models.SearchParams(exact=True)
    return models.QueryRequest(
        query=list(vector), using=using, score_threshold=floor, filter=all_of(found), params=exactly, limit=4096
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
            query=tangent, using="tangent", limit=limit, params=params, filter=all_of(conditions(where))
        )
    whole = limit <= rows_per_answer(space)
    return models.QueryRequest(
        prefetch=prefetch,
        query=lorentz_query(space, query),
        using="lorentz",
        filter=all_of(conditions(where)) if exact else None,
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
    """Return the search for all points in a cone but those at the origin; None where all points may be in it."""
    angle = (cone.eta * cones.half_aperture(q, space.curv, cone.min_radius)).clamp(max=math.pi)
    spread = float(cones.origin_angle(lorentz.radius(q, space.curv), angle, space.curv))
    _, sinh, unit = lorentz.polar(q, space.curv)
    floor = math.cos(spread) - cosine_slack(space)
    if float(sinh) == 0 or floor <= -1:
        return None
    return threshold_search("direction", unit.tolist(), floor, [*conditions(where), between("shell", 1.0, math.inf)])


def ancestor_searches(
    space: Space, places: Float[Tensor, "n d"], cone: Cone, where: Where
) -> tuple[list[int], list[models.QueryRequest]]:
    """Return the shells to take whole, and the searches, that find all points whose cone holds one of the places."""
    sqrt_c = math.sqrt(space.curv)
    _, sinh, units = lorentz.polar(places, space.curv)
    away = sinh.squeeze(-1) > 0
    units, radii = units[away], lorentz.radius(places[away], space.curv)
    # At the inner edge of a shell cones are widest, seen from their apex and from the origin.
    edges = torch.arange(SHELLS, dtype=torch.float64) / (4 * sqrt_c)
    rims = (torch.sinh(sqrt_c * edges) / sqrt_c).unsqueeze(-1)
    angles = (cone.eta * cones.half_aperture(rims, space.curv, cone.min_radius)).clamp(max=math.pi)
    spreads = cones.origin_angle(edges, angles, space.curv)
    whole, searches = [0], []
    for shell in range(1, SHELLS + 1):
        edge, angle, spread = (float(column[shell - 1]) for column in (edges, angles, spreads))
        outermost = spread <= _NARROW
        # A cone of at most a right angle holds nothing nearer the origin than its apex.
        near = units if angle > math.pi / 2 else units[radii >= edge * (1 - 1e-9)]
        centres = [
            (unit, math.cos(min(math.pi, spread + off)) - cosine_slack(space))
            for unit, off in arcs(near, max(spread, _NARROW))
        ]
        if angle > math.pi - 1e-6 or any(floor <= -1 for _, floor in centres):
            # With π also the origin is in the cone, which is seen in no direction.
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
    sqrt_c, most = math.sqrt(space.curv), MAX_RHO
    rho, z = sqrt_c * float(lorentz.radius(query, space.curv)), sqrt_c * distance
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
