"""Traversal from a point to the origin or to another point: the nearest stored point at every place of the route.

Two forms. With steps, the algorithm of Desai et al. 2023 (arXiv:2304.09172): at every step the nearest point whose cone
contains the place; the origin, whose cone contains everything, always counts. Without, the same along the geodesic: at
the place (1 − r) S + r E of the ambient space, −<z, x>_L of a point is a line in r but for a factor of the place, and
its cone, or half-space, meets the geodesic where a quadratic in r has its sign. So the answer is the lower envelope of
lines that are valid on intervals, and every place where the nearest changes is found, between steps too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hypclip.geometry import cones, lorentz, planes, polar
from hypclip.geometry.entailment import Entailment, Plane
from hypclip.search.exact import one_thread
from hypclip.search.limits import sinh_threshold
from hypclip.search.route import Route
from hypclip.search.store import VectorStore
from hypclip.search.where import ANYTHING, Modality, Where

ROOT = "[ROOT]"
"""Id of the origin in a traversal; no store has it."""

_PARALLEL = 1e-3
_PAIRS = 2**16


@dataclass(frozen=True)
class Stop:
    """The nearest point from some place of the route on.

    Args:
        t: fraction of the route where it first is the nearest; 0 is the start.
        id: a stored point, or `ROOT`.
        distance: from that place to the point.
        radius: of the point.
        modality: of the point; None for the origin.
        metadata: of the point.
    """

    t: float
    id: str
    distance: float
    radius: float
    modality: Modality | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Traversal:
    """The stops of a route in order, each once. `exact` is False where one may be missing."""

    stops: list[Stop]
    exact: bool


def traverse(
    store: VectorStore, name: str, route: Route, cone: Entailment | None = None, where: Where = ANYTHING
) -> Traversal:
    """Go along a route through the points of a collection and the origin.

    Args:
        store: where the points are.
        name: the collection.
        route: from where to where, in steps or along the geodesic.
        cone: only points whose cone or half-space contains a place may be its nearest; all points where absent.
            That of the collection is store.space(name).entailment. With `strict` a point does not entail its
            own place.
        where: which points take part at all.

    Raises:
        UnknownCollection, InputError: as the store.
    """
    points, exact = store.route_candidates(name, route, cone, where)
    x = torch.cat([points.vectors.double(), torch.zeros(1, len(route.start), dtype=torch.float64)])
    with one_thread():
        found = _geodesic(x, route, cone) if route.steps is None else _steps(x, route, cone)
        places = route.places(torch.tensor([t for t, _ in found], dtype=torch.float64))
        rows = [row for _, row in found]
        distances = lorentz.dist(places, x[rows], route.curv).tolist()
        radii = lorentz.radius(x[rows], route.curv).tolist()
    stops = [
        Stop(t, ROOT, distance, radius, None, {})
        if row == len(points.ids)
        else Stop(t, points.ids[row], distance, radius, points.modality[row], points.metadata[row])
        for (t, row), distance, radius in zip(found, distances, radii, strict=True)
    ]
    return Traversal(stops, exact)


def _steps(x: Float[Tensor, "n d"], route: Route, cone: Entailment | None) -> list[tuple[float, int]]:
    """Return (fraction, row) of the nearest at every step, each row where it comes first; the last is the origin."""
    fractions = route.fractions()
    places = route.places(fractions)
    inner = torch.from_numpy(places.numpy() @ x.numpy().T)
    inner -= lorentz.time_component(places, route.curv) * lorentz.time_component(x, route.curv).T
    if cone is not None:
        entails = _entails(x, places, route, cone)
        entails[-1] = True
        inner = torch.where(entails.T, inner, -torch.inf)
    first: dict[int, float] = {}
    for t, row in zip(fractions.tolist(), inner.argmax(1).tolist(), strict=True):
        first.setdefault(row, t)
    return [(t, row) for row, t in first.items()]


def _entails(
    x: Float[Tensor, "n d"], places: Float[Tensor, "s d"], route: Route, cone: Entailment
) -> Bool[Tensor, "n s"]:
    """Tell which points entail which places."""
    _, sinh_x, unit_x = lorentz.polar(x, route.curv)
    _, sinh_z, unit_z = lorentz.polar(places, route.curv)
    if route.end is None:  # all places but the origin lie in one direction
        gap, sum_ = (torch.linalg.vector_norm(unit_x + sign * unit_z[0], dim=1, keepdim=True) for sign in (-1, 1))
        om, op = gap.square() / 2, sum_.square() / 2
    else:
        om, op = _one_minus_plus_cosine(unit_x, unit_z)
    if isinstance(cone, Plane):
        along = (
            torch.sinh(torch.asinh(sinh_z).T - torch.asinh(sinh_x)) - torch.sqrt(1 + sinh_x.square()) * sinh_z.T * om
        )
        entails = torch.where(sinh_x > 0, torch.asinh(along), 0) >= cone.threshold
    else:
        angles = polar.exterior_angle(sinh_x, sinh_z.T, om, op)
        apertures = cones.half_aperture(x, route.curv, cone.min_radius).unsqueeze(1)
        entails = angles <= cone.eta * apertures
    if cone.strict:
        for at in (0, -1):  # stored points may be the ends; what lies between was computed
            entails[(x == places[at]).all(1), at] = False
    return entails


def _one_minus_plus_cosine(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor]:
    """Return 1 − cos θ and 1 + cos θ of all pairs of unit vectors, from their gap where they are nearly parallel."""
    cosine = x @ y.T
    found = []
    for sign in (-1, 1):
        value = 1 + sign * cosine
        rows, columns = torch.nonzero(value < _PARALLEL, as_tuple=True)
        for r, c in zip(torch.split(rows, _PAIRS), torch.split(columns, _PAIRS), strict=True):
            value[r, c] = (x[r] + sign * y[c]).square().sum(1) / 2
        found.append(value)
    return found[0], found[1]


def _geodesic(x: Float[Tensor, "n d"], route: Route, cone: Entailment | None) -> list[tuple[float, int]]:
    """Return (fraction, row) wherever another row becomes the nearest. The last row is the origin."""
    sqrt_c = math.sqrt(route.curv)
    ends = sqrt_c * torch.stack([route.start, route.target])
    scaled = sqrt_c * x
    lines = -lorentz.pairwise_inner(ends, scaled, 1.0)
    if cone is None:
        rows = torch.arange(len(x))
        low, high = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
    else:
        rows, low, high = _intervals(scaled, ends, lines, cone)
    walked = _envelope(lines[0, rows], lines[1, rows], low, high)
    first: dict[int, float] = {}
    for r, item in walked:
        first.setdefault(int(rows[item]), route.fraction_of(r))
    return [(t, row) for row, t in first.items()]


def _intervals(
    x: Float[Tensor, "n d"], ends: Float[Tensor, "2 d"], lines: Float[Tensor, "2 n"], cone: Entailment
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (rows, low, high): the intervals of r in which points entail the place, at curvature −1.

    Seen from X, with e the unit tangent vector outwards, cos φ = p / sqrt(a² − n) with p = <Z, e>_L, a = −<Z, X>_L and
    n = −<Z, Z>_L for any multiple Z of the place. So the border of the cone is p² = cos²α (a² − n), a quadratic in r;
    and since sinh height = p/√n, that of a half-space is p² = sinh² t n, t its threshold.
    Between its roots, and that of p, nothing changes, and the exact angle or height in the middle decides.
    """
    _, sinh, unit = lorentz.polar(x, 1.0)
    times, end_times = lorentz.time_component(x, 1.0), lorentz.time_component(ends, 1.0)
    p = ((times * unit) @ ends.T - sinh * end_times.T).T
    length = -lorentz.inner(ends[0], ends[1], 1.0)
    r = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).unsqueeze(1)
    n = (1 - r) ** 2 + r**2 + 2 * r * (1 - r) * length
    if isinstance(cone, Plane):
        behind = sinh_threshold(cone.threshold) ** 2 * n
    else:
        angles = torch.clamp(cone.eta * cones.half_aperture(x, 1.0, cone.min_radius), max=math.pi)
        behind = torch.cos(angles) ** 2 * (((1 - r) * lines[0] + r * lines[1]) ** 2 - n)
    f = ((1 - r) * p[0] + r * p[1]) ** 2 - behind
    a, b = 2 * (f[0] + f[2] - 2 * f[1]), 4 * f[1] - 3 * f[0] - f[2]
    q = -(b + torch.where(b < 0, -1, 1) * torch.sqrt(torch.clamp(b * b - 4 * a * f[0], min=0))) / 2
    cuts = torch.stack([q / a, f[0] / q, p[0] / (p[0] - p[1])])
    cuts = torch.where(cuts.isfinite(), cuts, 0).clamp(0, 1)
    edges = torch.cat([torch.zeros_like(cuts[:1]), cuts.sort(0).values, torch.ones_like(cuts[:1])])
    low, high = edges[:-1], edges[1:]
    middle = (low + high) / 2
    place = (1 - middle).unsqueeze(-1) * ends[0] + middle.unsqueeze(-1) * ends[1]
    norm = (1 - middle) ** 2 + middle**2 + 2 * middle * (1 - middle) * length
    place = place / norm.sqrt().unsqueeze(-1)
    if isinstance(cone, Plane):
        holds = planes.height(x.expand_as(place), place, 1.0) >= cone.threshold
    else:
        holds = cones.oxy_angle(x.expand_as(place), place, 1.0) <= angles
    inside = holds & (high > low)
    inside[:, -1] = high[:, -1] > low[:, -1]  # the origin
    which, rows = torch.nonzero(inside, as_tuple=True)
    return rows, low[which, rows], high[which, rows]


def _envelope(
    at_start: Float[Tensor, " n"], at_end: Float[Tensor, " n"], low: Float[Tensor, " n"], high: Float[Tensor, " n"]
) -> list[tuple[float, int]]:
    """Return (r, line) wherever another line becomes the lowest, r from 0 to 1; some line must be valid everywhere.

    A line falls below the present one where they cross, or where its interval begins. All lines are compared once per
    change, and the first such place is the next one.
    """
    slope = at_end - at_start
    place, found = 0.0, []
    current = _lowest(at_start + place * slope, slope, low <= place)
    while True:
        found.append((place, current))
        steeper = slope - slope[current]
        gap = at_start - at_start[current]
        crossing = torch.where(steeper < 0, -gap / steeper, torch.inf)
        entry = torch.where((low > place) & (gap + low * steeper < 0), low, torch.inf)
        falls = torch.minimum(torch.clamp(crossing, min=place).maximum(low), entry)
        falls = torch.where(falls < high, falls, torch.inf)
        falls[current] = high[current] if high[current] < 1 else torch.inf
        while True:
            following = float(falls.min())
            if not following < 1:
                return found
            valid = (low <= following) & (high > following)
            lowest = _lowest(at_start + following * slope, slope, valid)
            if lowest != current:
                break
            falls[falls <= following] = torch.inf  # they only touch it
        place, current = following, lowest


def _lowest(value: Tensor, slope: Tensor, valid: Tensor) -> int:
    """Return the lowest line that is valid; of those that meet, the one that falls fastest."""
    value = torch.where(valid, value, torch.inf)
    smallest = value.min()
    tied = value <= smallest + 1e-12 * smallest.abs()
    return int(torch.where(tied, slope, torch.inf).argmin())
