"""Searches of Qdrant by half-spaces: inner products with a threshold, in either direction.

sinh height(g, s) = as_general(g)·as_specific(s), see geometry/planes.py. The `lorentz` vectors are as_specific/√c and
find what is in the half-space of a query; collections whose models entail by half-spaces have as_general as a fourth
vector, `general`, which finds those whose half-space holds it. The rounding of a float32 score grows with the radius of
the stored point, so that points are asked for in bands of radii, each with a threshold of its own. In collections of
other models, whose points lack that vector, a half-space is looked for as a cone is, by its range of cosines in shells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jaxtyping import Float
from qdrant_client import models
from torch import Tensor

from hypclip.geometry import lorentz, planes
from hypclip.geometry.entailment import Plane
from hypclip.search.limits import MAX_RHO
from hypclip.search.qdrant import codec, filters
from hypclip.search.qdrant.searches import cosine_slack, threshold_search
from hypclip.search.route import Route, places_and_limit
from hypclip.search.space import Space
from hypclip.search.where import Where

Asked = tuple[list[int] | None, list[models.QueryRequest]]
"""Shells to take whole, None for all points, and searches."""

_BAND = 2.0
"""So much of √c · radius is asked for at once: the rounding within is up to e² of what it must be."""
_NEAR = 0.25


def descendants(space: Space, q: Float[Tensor, " d"], plane: Plane, where: Where) -> Asked:
    """Return the searches whose answers contain all points in the half-space of a query."""
    rho = math.sqrt(space.curv) * float(lorentz.radius(q, space.curv))
    if plane.threshold <= -2 * MAX_RHO or (rho == 0 and plane.threshold <= 0):
        return None, []
    if plane.threshold > MAX_RHO or rho == 0:
        return [], []
    # No height is more than ρ_s − ρ_g.
    vector = (math.sqrt(space.curv) * planes.as_general(q, space.curv)).tolist()
    searches = [
        threshold_search("lorentz", vector, floor, [*filters.conditions(where), band])
        for band, floor in _bands(space, rho, plane.threshold, max(0.0, rho + plane.threshold), MAX_RHO)
    ]
    return [], searches


def ancestors(space: Space, q: Float[Tensor, " d"], plane: Plane, where: Where) -> Asked:
    """Return the searches whose answers contain all points whose half-space holds a query."""
    return _holding(space, [(q, plane.threshold)], where)


def ancestors_on_route(space: Space, route: Route, plane: Plane, where: Where) -> Asked:
    """Return the searches whose answers contain all points whose half-space holds a place of a route."""
    fractions, limit = places_and_limit(route, plane)
    return _holding(space, list(_centres(route.places(fractions), math.asinh(limit), space.curv)), where)


def _holding(space: Space, centres: list[tuple[Float[Tensor, " d"], float]], where: Where) -> Asked:
    """Return the searches for all points over which a place has a height, of any of some pairs (place, height)."""
    shells: set[int] = set()
    searches: list[models.QueryRequest] = []
    by_shell: list[tuple[int, models.QueryRequest]] = []
    for place, threshold in centres:
        if threshold <= -2 * MAX_RHO:
            return None, []
        rho = math.sqrt(space.curv) * float(lorentz.radius(place, space.curv))
        # No height is more than ρ_s − ρ_g; over the origin all are 0, which is in the first band.
        most = rho - threshold
        if most < 0:
            continue
        if isinstance(space.entailment, Plane):
            vector = planes.as_specific(place, space.curv).tolist()
            searches += [
                threshold_search("general", vector, floor, [*filters.conditions(where), band])
                for band, floor in _bands(space, rho, threshold, 0.0, min(most, MAX_RHO))
            ]
        else:
            whole, more = _in_shells(space, place, threshold, most, where)
            shells.update(whole)
            by_shell += more
    # No point twice: not by a search in a shell that is taken whole.
    return sorted(shells), [*searches, *(search for shell, search in by_shell if shell not in shells)]


def _bands(
    space: Space, rho: float, threshold: float, low: float, high: float
) -> Iterator[tuple[models.FieldCondition, float]]:
    """Yield ranges of radii and the score that points of them in the half-space are above.

    The sum of D + 1 float32 products is wrong by at most (D + 1) 2⁻²⁴ |w||s|, and |w|² = |s|² = cosh 2ρ; what is added
    covers the roundings of both vectors, of the score and of this bound.
    """
    sqrt_c, limit = math.sqrt(space.curv), math.sinh(threshold)
    while low <= high:
        above = min(low + _BAND, MAX_RHO)
        norms = math.sqrt(math.cosh(2 * rho) * math.cosh(2 * above))
        floor = limit - (space.dim + 16) * 2.0**-24 * norms - 2.0**-22 * abs(limit)
        ends = low / sqrt_c * (1 - 1e-9) - 1e-12 / sqrt_c, min(above, high) / sqrt_c * (1 + 1e-9) + 1e-12 / sqrt_c
        yield filters.between("radius", ends[0], ends[1] if above < MAX_RHO else math.inf), floor
        low = above if above < MAX_RHO else math.inf


def _in_shells(
    space: Space, place: Float[Tensor, " d"], threshold: float, most: float, where: Where
) -> tuple[list[int], list[tuple[int, models.QueryRequest]]]:
    """Return shells to take whole, and searches by direction in others with the shell of each.

    A point at ρ holds the place where cos θ ≥ (sinh t + sinh ρ cosh ρ_s)/(cosh ρ sinh ρ_s), which has no minimum within
    a shell but at its edges.
    """
    _, sinh, unit = lorentz.polar(place, space.curv)
    length, limit = float(sinh), math.sinh(threshold)
    whole = [0] if threshold <= 0 else []
    searches: list[tuple[int, models.QueryRequest]] = []
    for shell in range(1, codec.SHELLS + 1):
        edges = ((shell - 1) / 4, shell / 4)
        if edges[0] > most + 1e-9:
            break
        if length < 1e-6:
            whole.append(shell)
            continue
        cosines = [(limit + math.sinh(rho) * math.hypot(1, length)) / (math.cosh(rho) * length) for rho in edges]
        floor = min(cosines) - cosine_slack(space)
        if floor <= -1:
            whole.append(shell)
        elif floor <= 1:
            found = [*filters.conditions(where), filters.between("shell", float(shell), float(shell))]
            searches.append((shell, threshold_search("direction", unit.tolist(), floor, found)))
    return whole, searches


def _centres(
    places: Float[Tensor, "n d"], threshold: float, curv: float
) -> Iterator[tuple[Float[Tensor, " d"], float]]:
    """Cover places by few of them, with lower thresholds: a height changes by no more than √c times a distance."""
    start = 0
    while start < len(places):
        rest = places[start:]
        away = math.sqrt(curv) * lorentz.dist(rest, rest[:1].expand_as(rest), curv)
        beyond = (away > _NEAR).nonzero()
        reach = int(beyond[0]) if len(beyond) else len(away)
        yield places[start], threshold - float(away[:reach].max()) * (1 + 1e-6)
        start += reach
