"""The Lorentz (hyperboloid) model of hyperbolic space with curvature −c.

A point is stored by its space components x ∈ R^D; its time component is x_t = sqrt(1/c + |x|²), and the Lorentzian
inner product is <x, y>_L = x·y − x_t y_t. Row-wise functions pair the rows of two tensors of shape (..., D) and work in
float64 inside; `pairwise_*` functions compare all rows of (N, D) with all rows of (M, D) by one matmul in the dtype of
the points. In float32 the squares overflow beyond √c · radius = 44.

Convention and formulas: Desai et al. 2023, arXiv:2304.09172. The polar form of the distance (radius and direction
apart) follows from the hyperbolic law of cosines and has no subtraction of large terms. Numerics: measured against 50
digits of the same inputs at √c · radius 1e-6…15, for c from 0.1 to 10.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry._precision import Curv, as_curv, full_precision, safe_sqrt

_SERIES_BELOW = 1e-3
"""Below this value of (√c r)² the quotients sinh(z)/z and asinh(z)/z are summed as series, exact to float64."""


@full_precision
def time_component(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch 1"]:
    """Return the time component x_t = sqrt(1/c + |x|²) of points given by their space components.

    Numerics: relative error ≤ 3e-7 in float32.
    """
    return torch.sqrt(1 / as_curv(curv, x) + _squared(x))


@full_precision
def inner(x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the Lorentzian inner product <x, y>_L = x·y − x_t y_t ≤ −1/c, row by row.

    Numerics: absolute error ≤ 1e-7 |<x, y>_L| + 1e-15 x_t y_t in float32. The two terms cancel for near points far out:
    use `dist` for distances, never acosh of this.
    """
    xd, yd = x.double(), y.double()
    xt, yt = time_component(xd, curv), time_component(yd, curv)
    return ((xd * yd).sum(-1) - (xt * yt).squeeze(-1)).to(x.dtype)


@full_precision
def pairwise_inner(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv) -> Float[Tensor, "n m"]:
    """Return <x_i, y_j>_L for all pairs. Its order is the reverse order of the distances.

    Numerics: absolute error ≤ 1e-6 · x_t y_t in float32; ranks of far neighbours survive, values of near pairs do not.
    """
    return x @ y.T - time_component(x, curv) * time_component(y, curv).T


@full_precision
def dist(x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the geodesic distance of paired rows, d = (2/√c) asinh(√c/2 · m), m² = |x−y|² − (x_t−y_t)².

    Far out the two squares are huge and nearly equal. With s = x + y, a the part of x−y along s and b the part across,
    m² = b² + 2 (1/c − <x, y>_L) (a/(x_t+y_t))², and for x·y > 0
    −<x, y>_L = (1/c² + (|x|²+|y|²)/c + |s|² b²/4)/(x_t y_t + x·y): only terms ≥ 0 are added. The gradient at coincident
    rows is 0.

    Numerics: relative error ≤ 1e-7 in float32 and 2e-15 cosh(√c r) in float64, r the larger radius, for separations of
    1e-6 and more.
    """
    c = as_curv(curv, x).double()
    xd, yd = x.double(), y.double()
    xt, yt = time_component(xd, c), time_component(yd, c)
    total = xd + yd
    along, across = _split(xd - yd, _unit(total))
    dot, times = (xd * yd).sum(-1, keepdim=True), xt * yt
    positive = 1 / c.square() + (_squared(xd) + _squared(yd)) / c + _squared(total) * across / 4
    minus_inner = torch.where(dot > 0, positive / (times + dot.abs()), times - dot)
    chord = safe_sqrt(across + 2 * (1 / c + minus_inner) * (along / (xt + yt)).square()).squeeze(-1)
    return (2 / c.sqrt() * torch.asinh(c.sqrt() / 2 * chord)).to(x.dtype)


@full_precision
def pairwise_dist(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv) -> Float[Tensor, "n m"]:
    """Return the geodesic distance of all pairs by one matmul, in the polar form.

    sinh²(√c d/2) = sinh²((ρ_x − ρ_y)/2) + ½ sinh ρ_x sinh ρ_y (1 − u_x·u_y), with ρ = asinh(√c|x|) and u = x/|x|. Every
    term is ≥ 0, so there is no clamp at 1 and no NaN; the gradient is 0 where the sum is 0.

    Numerics: the cosine carries the rounding of a dot product, so that in float32 sinh²(√c d/2) is wrong by up to
    1e-6 · (sinh ρ_x sinh ρ_y + (1 + ρ_x + ρ_y) sinh²(√c d/2)): right for logits, not for near pairs (use `dist` on
    those rows). Finite while ρ_x + ρ_y ≤ 88.
    """
    c = as_curv(curv, x)
    rho_x, sinh_x, unit_x = polar(x, c)
    rho_y, sinh_y, unit_y = polar(y, c)
    angular = 0.5 * sinh_x * sinh_y.T * (1 - unit_x @ unit_y.T)
    # The rounding of the cosine can leave a coincident pair slightly below 0; safe_sqrt reads that as 0.
    half = safe_sqrt(torch.sinh((rho_x - rho_y.T) / 2).square() + angular)
    return 2 / c.sqrt() * torch.asinh(half)


@full_precision
def exp_map0(v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map tangent vectors at the origin onto the hyperboloid: x = sinh(√c|v|)/(√c|v|) · v.

    Numerics: relative error ≤ 2e-6 in float32 for √c|v| up to 15 and 5e-6 up to 32; infinite from √c|v| = 90 on.
    """
    squared = as_curv(curv, v) * _squared(v)
    small = squared < _SERIES_BELOW
    z = torch.where(small, 1, squared).sqrt()
    series = 1 + squared / 6 * (1 + squared / 20 * (1 + squared / 42 * (1 + squared / 72)))
    return torch.where(small, series, torch.sinh(z) / z) * v


@full_precision
def log_map0(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map points of the hyperboloid to the tangent space at the origin: v = asinh(√c|x|)/(√c|x|) · x.

    Numerics: relative error ≤ 4e-7 in float32.
    """
    squared = as_curv(curv, x) * _squared(x)
    small = squared < _SERIES_BELOW
    z = torch.where(small, 1, squared).sqrt()
    series = 1 - squared / 6 * (
        1 - squared * 9 / 20 * (1 - squared * 25 / 42 * (1 - squared * 49 / 72 * (1 - squared * 81 / 110)))
    )
    return torch.where(small, series, torch.asinh(z) / z) * x


@full_precision
def radius(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the distance to the origin, asinh(√c|x|)/√c. Its gradient at the origin is 0.

    Numerics: relative error ≤ 4e-7 in float32.
    """
    c = as_curv(curv, x)
    return torch.asinh(c.sqrt() * safe_sqrt(x.square().sum(-1))) / c.sqrt()


@full_precision
def geodesic(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], t: float | Tensor, curv: Curv
) -> Float[Tensor, "*batch d"]:
    """Return the point at fraction t of the way from x to y: (sinh((1−t)z) x + sinh(tz) y)/sinh z, z = √c d(x, y).

    Args:
        x: start, t = 0.
        y: end, t = 1.
        t: a number, or a tensor that broadcasts against (..., 1).
        curv: c > 0.

    Numerics: error ≤ 1e-7 of the time component of the result in float32, 1e-10 in float64. Between coincident points
    the weights are their limits, 1 − t and t.
    """
    c = as_curv(curv, x).double()
    fraction = torch.as_tensor(t, dtype=torch.float64, device=x.device)
    z = (c.sqrt() * dist(x.double(), y.double(), c)).unsqueeze(-1)
    near = z < 1e-6
    safe = torch.where(near, 1, z)
    at_x = torch.where(near, 1 - fraction, torch.sinh((1 - fraction) * safe) / torch.sinh(safe))
    at_y = torch.where(near, fraction, torch.sinh(fraction * safe) / torch.sinh(safe))
    return (at_x * x.double() + at_y * y.double()).to(x.dtype)


@full_precision
def centroid(
    x: Float[Tensor, "*batch n d"], curv: Curv, weights: Float[Tensor, "*batch n"] | None = None
) -> Float[Tensor, "*batch d"]:
    """Return the Lorentz centroid: Σ w_i X_i (time components included) scaled onto the hyperboloid.

    Args:
        x: n points.
        curv: c > 0.
        weights: non-negative, not all 0; equal when absent. Only their ratios matter.

    Source: Law et al. 2019, "Lorentzian Distance Learning for Hyperbolic Representations".
    Numerics: error ≤ 1e-7 of the time component of the result in float32, 1e-10 in float64.
    """
    c = as_curv(curv, x).double()
    xd = x.double()
    xt = time_component(xd, c)
    w = torch.ones_like(xt) if weights is None else weights.double().unsqueeze(-1)
    space, time = (w * xd).sum(-2), (w * xt).sum(-2)
    # time² − |space|² as a product; its factor time − |space| summed point by point, where far out it would cancel.
    along, across = _split(xd, _unit(space).unsqueeze(-2))
    far = xt + along.abs()
    lag = (w * torch.where(along > 0, (1 / c + across) / far, far)).sum(-2)
    norm = (lag * (time + safe_sqrt(_squared(space)))).sqrt()
    return (space / (c.sqrt() * norm)).to(x.dtype)


@full_precision
def polar(
    x: Float[Tensor, "*batch d"], curv: Curv
) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"], Float[Tensor, "*batch d"]]:
    """Split points into ρ = √c · radius, sinh ρ = √c|x| and unit direction; the origin has direction 0."""
    c = as_curv(curv, x)
    sinh = c.sqrt() * safe_sqrt(_squared(x))
    return torch.asinh(sinh), sinh, _unit(x)


def _squared(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True)


def _unit(x: Tensor) -> Tensor:
    """Return x/|x|, and 0 for 0."""
    squared = _squared(x)
    return x / torch.where(squared > 0, squared, 1).sqrt()


def _split(x: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of x along a unit vector, with its sign, and the square of the part across."""
    along = (x * unit).sum(-1, keepdim=True)
    return along, _squared(x - along * unit)
