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

    The unit tangent vectors v at x towards them have the angle 2 atan2(‖v_y − v_t‖, ‖v_y + v_t‖), with lengths of
    tangent vectors at x. It is 0 of x itself, and of all where the target is x.

    Args:
        y: the points.
        x: the centre.
        target: gives the direction.
        curv: c > 0.

    Returns:
        distance: (n,), from x.
        angle: (n,), radians in [0, π].

    Numerics: in float64 inside; the error of the angle is that of `lorentz.log_map`, about
    1e-15 (cosh(√c r_x) + cosh(√c r_y)) rad over the distance times √c.
    """
    c = as_curv(curv, y).double()
    xd = x.double()
    ahead, towards = _unit(xd, target.double(), c), _unit(xd.expand_as(y), y.double(), c)
    moved = towards.any(-1) & ahead.any()
    sides = (lorentz.tangent_norm(xd.expand_as(y), towards + sign * ahead, c).unsqueeze(-1) for sign in (-1, 1))
    angle = torch.where(moved, _between(*sides), 0)
    return lorentz.dist(y.double(), xd.expand_as(y), c).to(y.dtype), angle.to(y.dtype)


def _unit(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """Return the tangent vector of length 1 at x towards y; 0 where they coincide."""
    v = lorentz.log_map(x, y, c)
    length = lorentz.tangent_norm(x, v, c).unsqueeze(-1)
    return v / torch.where(length > 0, length, 1)


def _between(difference: Tensor, total: Tensor) -> Tensor:
    """Return the angle between unit vectors from their difference and their sum, which loses digits nowhere."""
    short, long = (torch.linalg.vector_norm(side, dim=-1) for side in (difference, total))
    return 2 * torch.atan2(short, long)
