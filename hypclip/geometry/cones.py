"""Entailment cones on the hyperboloid: the half aperture of a cone, and the exterior angle of a point from its axis.

x entails y when `oxy_angle(x, y) <= eta * half_aperture(x)`: x is general, y is specific.
Source: Ganea et al. 2018 (arXiv:1804.01882), in Lorentz form Desai et al. 2023 (arXiv:2304.09172).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry import lorentz, polar
from hypclip.geometry.precision import Curv, as_curv, full_precision

MIN_RADIUS = 0.1
"""K of the cones: at √c|x| ≤ 2K the half aperture is π/2 and the cone is a half-space."""


@full_precision
def half_aperture(x: Float[Tensor, "*batch d"], curv: Curv, min_radius: float = MIN_RADIUS) -> Float[Tensor, "*batch"]:
    """Return ω(x) = asin(min(1, 2K/(√c|x|))) in radians, K = `min_radius`.

    Where the cone is a half-space, its boundary included, the gradient is 0.

    Numerics: absolute error ≤ 1e-7 rad in float32 and float64; the edge of the half-space limits the latter.
    """
    _, sinh, _ = lorentz.polar(x.double(), as_curv(curv, x).double())
    return polar.half_aperture(sinh, min_radius).squeeze(-1).to(x.dtype)


@full_precision
def origin_angle(
    radius: Float[Tensor, "*batch"], angle: Float[Tensor, "*batch"] | float, curv: Curv
) -> Float[Tensor, "*batch"]:
    """Return the largest angle at the origin between x and a point whose exterior angle at x is at most `angle`.

    φ(x, y) ≤ α implies θ(x, y) ≤ 2 atan(exp(−√c r_x) tan(α/2)), a bound that y far out on the border approaches: so one
    range of cosines contains a whole cone. The isometry that takes x to the origin maps directions seen from x to
    directions seen from the origin in this way.

    Args:
        radius: distance r_x of x from the origin.
        angle: α in [0, π].
        curv: c > 0.

    Numerics: absolute error ≤ 4e-7 rad in float32.
    """
    c = as_curv(curv, radius).double()
    half = torch.as_tensor(angle, dtype=torch.float64, device=radius.device) / 2
    return (2 * torch.atan2(torch.sin(half) * torch.exp(-c.sqrt() * radius.double()), torch.cos(half))).to(radius.dtype)


@full_precision
def oxy_angle(x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the exterior angle φ(x, y) at x of the triangle origin–x–y, row by row, in radians.

    φ = atan2(r, p) with p = sinh(ρ_y − ρ_x) − cosh ρ_x sinh ρ_y (1 − cos θ), r = sinh ρ_y sin θ: the parts of log_x(y)
    along and across the outward ray, with 1 ∓ cos θ = |u_x ∓ u_y|²/2 and sin²θ their product. It is 0 for a point
    straight behind x, π for one towards the origin. Coincident points, and any y seen from the origin, have angle 0 and
    gradient 0.

    Numerics: absolute error ≤ 4e-7 rad in float32 and 2e-15 (1 + sinh(√c r_y)/sinh(√c d)) rad in float64, for
    separations of 1e-6 and more.
    """
    c = as_curv(curv, x).double()
    _, sinh_x, unit_x = lorentz.polar(x.double(), c)
    _, sinh_y, unit_y = lorentz.polar(y.double(), c)
    om = (unit_x - unit_y).square().sum(-1, keepdim=True) / 2
    op = (unit_x + unit_y).square().sum(-1, keepdim=True) / 2
    return polar.exterior_angle(sinh_x, sinh_y, om, op).squeeze(-1).to(x.dtype)


@full_precision
def pairwise_oxy_angle(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv) -> Float[Tensor, "n m"]:
    """Return φ(x_i, y_j) for all pairs by one matmul, in radians.

    Numerics: the cosine carries the rounding of a dot product, which is up to 5e-4 rad of θ for nearly parallel
    directions in float32. φ is wrong by up to (1e-3 + 3e-7 cosh ρ_x) sinh ρ_y/sinh(√c d) rad where that is below 1, and
    means nothing for nearer pairs: use `oxy_angle` on those rows.
    """
    c = as_curv(curv, x)
    _, sinh_x, unit_x = lorentz.polar(x, c)
    _, sinh_y, unit_y = lorentz.polar(y, c)
    cos = unit_x @ unit_y.T
    return polar.exterior_angle(sinh_x, sinh_y.T, 1 - cos, 1 + cos)
