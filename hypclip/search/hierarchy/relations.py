"""Common ancestors and means of several points, and the order of two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Entailment
from hypclip.geometry.precision import as_number
from hypclip.search.checks import check_cone, check_page
from hypclip.search.exact import measure_cone
from hypclip.search.given import Vectors, as_vectors, shown
from hypclip.search.route import Route
from hypclip.search.space import Space
from hypclip.search.store import VectorStore
from hypclip.search.types import Hit, Page
from hypclip.search.where import ANYTHING, Where

Relation = Literal["general", "specific", "neither", "same"]
"""The relation of the first of two points to the second."""


@dataclass(frozen=True)
class Ordering:
    """Order of two points.

    Args:
        relation: of the first to the second.
        first_over_second: margin of the second in the cone or half-space of the first, as `Hit.margin`; inside where
            ≤ 0.
        second_over_first: margin of the first in that of the second.
        distance: between the two.
    """

    relation: Relation
    first_over_second: float
    second_over_first: float
    distance: float


def order(first: Vectors, second: Vectors, curv: float, cone: Entailment) -> Ordering:
    """Tell which of two points is the more general: the one whose cone, or half-space, holds the other.

    Near the origin, for η > 1 and for thresholds below 0, each may hold the other; then the one that holds it deeper is
    the more general.

    Args:
        first: space components (D,).
        second: space components (D,).
        curv: c > 0.
        cone: a `Cone` or a `Plane`.

    Raises:
        InputError: one of them is no point, or they have unequal lengths.
    """
    first, second = as_vectors(first, "the first point"), as_vectors(second, "the second point")
    if first.dim() != 1 or first.shape != second.shape:
        raise InputError(f"two points have one shape (D,), got {tuple(first.shape)} and {tuple(second.shape)}")
    check_cone(cone)
    space = Space("of the two points", curv, len(first))
    space.check_points(torch.stack([first.double(), second.double()]))
    curv = space.curv
    down, _ = measure_cone(second.unsqueeze(0), first, "descendants", cone, curv)
    up, _ = measure_cone(second.unsqueeze(0), first, "ancestors", cone, curv)
    assert down.margin is not None
    assert up.margin is not None
    over, under, distance = float(down.margin), float(up.margin), float(down.distance)
    relation: Relation
    if distance == 0:
        relation = "same"
    elif min(over, under) > 0:
        relation = "neither"
    else:
        relation = "general" if over <= under else "specific"
    return Ordering(relation, over, under, distance)


def mean(points: Vectors, curv: float, weights: Sequence[float] | None = None) -> Float[Tensor, " d"]:
    """Return the weighted mean of points, their Lorentz centroid; of two equal weights the midpoint.

    Args:
        points: space components (N, D), of at least one.
        curv: c > 0.
        weights: one per point, 0 or more, not all 0; equal when absent.

    Raises:
        InputError: no points, or weights that are none.
    """
    x = _several(points, "a mean is that")
    space = Space("of the points", curv, x.shape[1])
    space.check_points(x)
    curv = space.curv
    if weights is None:
        return lorentz.centroid(x.double(), curv)
    if not isinstance(weights, Iterable):
        raise InputError(f"weights must be a list of numbers, one per point, got {shown(weights)}")
    w = as_vectors([as_number(weight, "a weight") for weight in weights], "weights")
    if len(w) != len(x):
        raise InputError(f"a mean takes one weight per point, got {len(w)} for {len(x)}")
    if not (torch.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise InputError("the weights of a mean are finite, 0 or more, and not all 0")
    return lorentz.centroid(x.double(), curv, w / w.max())


def common_ancestors(
    store: VectorStore,
    name: str,
    of: Vectors,
    cone: Entailment | None = None,
    where: Where = ANYTHING,
    *,
    k: int = 10,
    offset: int = 0,
) -> Page:
    """Return the stored points whose cones contain all of some points, the most specific, furthest out, first.

    `cone` is a `Cone` or a `Plane`; the rule of the collection's space when absent. Of a hit, `distance` is to the
    farthest of the points, and angle and margin are of the one that is held least.

    Raises:
        UnknownCollection: there is none of this name.
        InputError: no points, or some that are none of the collection's space.
    """
    check_page(k, offset)
    if cone is not None:
        check_cone(cone)
    x = _several(of, "common ancestors are those")
    space = store.space(name)
    curv, cone = space.curv, space.entailment if cone is None else cone
    points, exact = store.route_candidates(name, Route(x[0], curv), cone, where)
    common = torch.ones(len(points.ids), dtype=torch.bool)
    measured = []
    for one in x:
        found, inside = measure_cone(points.vectors, one, "ancestors", cone, curv)
        common &= inside
        measured.append(found)
    margins = torch.stack([m.by("margin") for m in measured])
    distances = torch.stack([m.distance for m in measured])
    angles = torch.stack([m.angle for m in measured if m.angle is not None])
    apertures, radii = measured[0].aperture, measured[0].radius
    assert apertures is not None
    rows = sorted(torch.nonzero(common).flatten().tolist(), key=lambda row: (-float(radii[row]), points.ids[row]))
    hits = [
        Hit(
            points.ids[row],
            distance=float(distances[:, row].max()),
            radius=float(radii[row]),
            modality=points.modality[row],
            metadata=points.metadata[row],
            angle=float(angles[int(margins[:, row].argmax()), row]),
            aperture=float(apertures[row]),
            margin=float(margins[:, row].max()),
        )
        for row in rows[offset : offset + k]
    ]
    return Page(hits, exact, len(rows))


def _several(points: Vectors, what: str) -> Float[Tensor, "n d"]:
    given = as_vectors(points, "points")
    if not len(given):
        raise InputError(f"{what} of at least one point")
    if given.dim() != 2:
        raise InputError(f"points must have shape (N, D), got {tuple(given.shape)}")
    return given
