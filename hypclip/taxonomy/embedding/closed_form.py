"""A tree placed in hyperbolic space without training: Sarkar 2011; in D dimensions Sala et al. 2018, arXiv:1804.03329.

Every child stands τ away from its parent, and the neighbours of a point stand in well separated directions around it.
Points are kept as a radius and a direction, and a child is found by the triangle of the origin, its parent and itself:
no large numbers are subtracted, as they would be in coordinates. The curvature is −1.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.taxonomy.graph import Taxonomy

_ROOM = 10
"""How many of the places that a dtype can tell apart must lie within τ at the farthest radius."""
_STEPS = 400


def place(
    taxonomy: Taxonomy, dim: int, tau: float = 0.5, dtype: torch.dtype = torch.float32
) -> tuple[list[str], Float[Tensor, "n d"]]:
    """Return the phrases, parents first, and their space components, computed in float64 and rounded to `dtype`.

    A phrase of several parents stands by the first that the edges name. Of several roots each is a child of the origin;
    a single root is the origin.

    Args:
        taxonomy: the tree.
        dim: D, at least 2; as many as the most children of a phrase give siblings one distance from each other.
        tau: distance of a child and its parent.
        dtype: float32 or float64.

    Raises:
        InputError: the dimension or τ makes no sense, or the deepest phrase would lie where `dtype` cannot tell points
            τ apart; the message has its radius, and the largest that can be held.
    """
    if dim < 2:
        raise InputError(f"dim must be at least 2, for directions to differ, got {dim}")
    if not 0 < tau < math.inf:
        raise InputError(f"tau must be positive, got {tau}")
    parent = first_parents(taxonomy)
    children: dict[str | None, list[str]] = {}
    for phrase, up in parent.items():
        children.setdefault(up, []).append(phrase)
    generator = torch.Generator().manual_seed(0)
    origin = _Place(0.0, torch.eye(1, dim, dtype=torch.float64)[0], None)
    placed: dict[str | None, _Place] = {None: origin}
    if len(children[None]) == 1:
        placed[children[None][0]] = origin
    for point in (None, *parent):
        if point is not None or len(children[None]) > 1:
            below = children.get(point, [])
            placed.update(zip(below, _around(placed[point], len(below), tau, generator), strict=True))
    phrases = list(parent)
    found = torch.stack([math.sinh(placed[phrase].radius) * placed[phrase].direction for phrase in phrases])
    radius = max(place.radius for place in placed.values())
    largest = largest_radius(tau, dtype)
    if radius > largest:
        raise InputError(
            f"the deepest phrase would lie at radius {radius:.1f}, and {str(dtype).removeprefix('torch.')} tells "
            f"points {tau:g} apart up to radius {largest:.1f}: take a smaller tau, at most about "
            f"{tau * largest / radius:.2g}, or float64"
        )
    return phrases, found.to(dtype)


def largest_radius(tau: float, dtype: torch.dtype) -> float:
    """Return the radius up to which points τ apart differ in at least ten steps of `dtype`.

    A component of a point at radius r is up to sinh r, and its step is eps · sinh r; across the ray from the origin a
    distance of a step is as long as the step itself.
    """
    return math.asinh(tau / (_ROOM * torch.finfo(dtype).eps))


def first_parents(taxonomy: Taxonomy) -> dict[str, str | None]:
    """Return the parent of each phrase that the edges name first, parents before children; None of a root."""
    first: dict[str, str] = {}
    for child, up in taxonomy.edges:
        first.setdefault(child, up)
    return {phrase: first.get(phrase) for phrase in taxonomy.phrases}


@functools.cache
def spherical_code(k: int, dim: int) -> Float[Tensor, "k d"]:
    """Return k unit vectors of D dimensions that are well apart from each other, the same ones at every call.

    A regular polygon, a regular simplex where k ≤ D + 1, the ends of orthogonal axes where k ≤ 2 D, else points that
    have pushed each other apart.
    """
    if dim == 2:
        angle = torch.arange(k, dtype=torch.float64) * (2 * math.pi / k)
        return torch.stack([angle.cos(), angle.sin()], 1)
    if k == 1:
        return torch.eye(1, dim, dtype=torch.float64)
    if k <= dim + 1:
        simplex = torch.eye(k, dtype=torch.float64) - 1 / k
        basis = torch.linalg.qr(simplex[:, : k - 1]).Q
        corners = torch.zeros(k, dim, dtype=torch.float64)
        corners[:, : k - 1] = _unit(simplex @ basis)
        return corners
    if k <= 2 * dim:
        axes = torch.eye(dim, dtype=torch.float64)
        return torch.cat([axes, -axes])[:k]
    return _pushed_apart(k, dim)


def _pushed_apart(k: int, dim: int) -> Float[Tensor, "k d"]:
    """Return k points of the sphere whose nearest ones have pushed each other apart more and more alone."""
    generator = torch.Generator().manual_seed(0)
    x = _unit(torch.randn(k, dim, dtype=torch.float64, generator=generator))
    for step in range(_STEPS):
        done = step / _STEPS
        cosine = (x @ x.T).fill_diagonal_(-torch.inf)
        push = torch.softmax(cosine * 10 ** (1 + done), dim=1) @ x
        x = _unit(x - 0.5 * (1 - done) * push)
    return x


class _Place(NamedTuple):
    """A point: its radius, its direction from the origin, and the direction of its parent where it has one.

    The direction of the parent is as seen after the reflection that swaps the point and the origin: then the origin is
    in the point's own direction, and what is across that direction has stayed as it was.
    """

    radius: float
    direction: Float[Tensor, " d"]
    to_parent: Float[Tensor, " d"] | None


def _around(x: _Place, k: int, tau: float, generator: torch.Generator) -> list[_Place]:
    """Return k points τ away from x, in directions apart from each other and from that of the parent of x."""
    if not k:
        return []
    dim = len(x.direction)
    up = x.to_parent
    directions = spherical_code(k, dim) if up is None else _turned(spherical_code(k + 1, dim), up, generator)[1:]
    if not x.radius:
        return [_Place(tau, direction, direction) for direction in directions]
    along = directions @ x.direction
    across = directions - along[:, None] * x.direction
    width = across.norm(dim=1)
    across = across / width.clamp(min=1e-300)[:, None]
    ch, sh, cr, sr = (f(v) for v in (tau, x.radius) for f in (math.cosh, math.sinh))
    # The triangle of origin, x and y, whose angle at x has the cosine `along` and the sine `width`.
    out, aside = ch * sr - sh * cr * along, sh * width
    radius = torch.asinh(torch.hypot(out, aside))
    at_origin, at_child = torch.atan2(aside, out), torch.atan2(sr * width, cr * sh - sr * ch * along)
    direction = at_origin.cos()[:, None] * x.direction + at_origin.sin()[:, None] * across
    to_x = at_origin.sin()[:, None] * x.direction - at_origin.cos()[:, None] * across  # across the child's direction
    to_parent = at_child.cos()[:, None] * direction + at_child.sin()[:, None] * to_x
    return [_Place(float(r), u, v) for r, u, v in zip(radius, _unit(direction), _unit(to_parent), strict=True)]


def _turned(code: Tensor, first: Tensor, generator: torch.Generator) -> Tensor:
    """Return a code turned so that its first direction is a given one, and else at random.

    Turned alike at every point, a line of descent would curl in one plane and come back to where it was.
    """
    dim = len(first)
    turn = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q
    turned: Tensor = code @ turn
    across = turned[0] - first
    if across.norm() > 1e-12:
        across = across / across.norm()
        turned -= 2 * (turned @ across)[:, None] * across
    return turned


def _unit(x: Tensor) -> Tensor:
    unit: Tensor = torch.nn.functional.normalize(x, dim=1)
    return unit
