"""Planes in which a whole set of points can be drawn with nothing wrong about one or two of them.

A point y, the root and a focus x lie in one hyperbolic plane, whatever the dimension. Turned about the ray of x into
one and the same plane, every y keeps its radius and its angle to x, and with them its distance to x, the exterior
angles at x and at y, and so whether it lies in the cone or half-space of x, or x in its own. Distances between two
other points are not kept. About x, in the plane of x and a target, the same holds for x and the target.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry import lorentz
from hypclip.geometry.precision import Curv, as_curv, full_precision

Polar = tuple[Float[Tensor, " n"], Float[Tensor, " n"]]
"""Distances from a centre, and angles from an axis in radians, 0 to π."""

_BLOCK = 2**16
"""Coordinates at a time: in float64 they stay in the cache."""


@full_precision
def about_root(y: Float[Tensor, "n d"], x: Float[Tensor, " d"], curv: Curv) -> Polar:
    """Return the radii of points, and their angles at the root to a focus x.

    The angle is 2 atan2(|u_y − u_x|, |u_y + u_x|), of the directions; it is 0 of the root, and of all where x is it.

    Args:
        y: the points.
        x: the focus.
        curv: c > 0.

    Returns:
        radius: (n,), in units of the space's distance.
        angle: (n,), radians in [0, π].

    Numerics: in float64 inside; relative error of the radius ≤ 4e-16, absolute error of the angle ≤ 4e-16 rad.
    """
    c = as_curv(curv, y).double()
    _, _, axis = lorentz.polar(x.double(), c)
    rho, sinh, unit = lorentz.polar(y.double(), c)
    angle = torch.where((sinh > 0).squeeze(-1) & axis.any(), _between(unit - axis, unit + axis), 0)
    return (rho.squeeze(-1) / c.sqrt()).to(y.dtype), angle.to(y.dtype)


@full_precision
def about_point(y: Float[Tensor, "n d"], x: Float[Tensor, " d"], target: Float[Tensor, " d"], curv: Curv) -> Polar:
    """Return the distances of points from x, and their angles at x to the direction of a target.

    The isometry that takes x to the root leaves both as they are: y' = (y − x) − k x, with
    k = c (y − x)·(y + x)/(√c y_t + √c x_t) − c x·(y − x)/(1 + √c x_t), in which all terms vanish with y − x. The angle
    is atan2 of the parts of y' across and along the target's. It is 0 of x itself, and of all where the target is x.

    Args:
        y: the points.
        x: the centre.
        target: gives the direction.
        curv: c > 0.

    Returns:
        distance: (n,), from x.
        angle: (n,), radians in [0, π].

    Numerics: in float64 inside; the relative error of the distance is about 1e-15 cosh(√c r_x) cosh(√c r_y), that of y
    rounded to float64 apart, and the error of the angle the same in rad.
    """
    c = as_curv(curv, y).double()
    xd = x.double()
    ahead = _moved(target.double().unsqueeze(0), xd, c).squeeze(0)
    axis = ahead / torch.where(ahead.any(), torch.linalg.vector_norm(ahead), 1)
    found = []
    for block in torch.split(y, max(1, _BLOCK // y.shape[-1])):
        moved = _moved(block.double(), xd, c)
        along = moved @ axis
        across = torch.linalg.vector_norm(moved - along.unsqueeze(1) * axis, dim=-1)
        found.append((torch.hypot(along, across), torch.atan2(across, along)))
    length, angle = (torch.cat(column) for column in zip(*found, strict=True))
    distance = torch.asinh(c.sqrt() * length) / c.sqrt()
    return distance.to(y.dtype), torch.where(ahead.any(), angle, 0).to(y.dtype)


def _moved(y: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """Return rows (n, d) where the translation puts them that takes x to the root."""
    step = y - x
    yt, xt = (torch.sqrt(1 + c * torch.linalg.vector_norm(part, dim=-1).square()) for part in (y, x))
    dot = step @ x
    k = c * (torch.linalg.vector_norm(step, dim=-1).square() + 2 * dot) / (yt + xt) - c * dot / (1 + xt)
    moved: Tensor = step - k.unsqueeze(1) * x
    return moved


def _between(difference: Tensor, total: Tensor) -> Tensor:
    """Return the angle between unit vectors from their difference and their sum, which loses digits nowhere."""
    short, long = (torch.linalg.vector_norm(side, dim=-1) for side in (difference, total))
    return 2 * torch.atan2(short, long)
