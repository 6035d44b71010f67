"""The Lorentz (hyperboloid) model of hyperbolic space with curvature −c.

A point is stored by its space components x ∈ R^D; its time component is x_t = sqrt(1/c + |x|²), and the Lorentzian
inner product is <x, y>_L = x·y − x_t y_t. Row-wise functions pair the rows of two tensors of shape (..., D) and work in
float64 inside; `pairwise_*` functions compare all rows of (N, D) with all rows of (M, D) by one matmul in the dtype of
the points. In float32 the squares overflow beyond √c · radius = 44.

A tangent vector v at x is stored by its space components too: <x, v>_L = 0 makes its time component v_t = x·v/x_t. Far
out that costs digits: the components of the part of v along x are cosh(√c r) times its length, and their rounding hides
a part across x that is smaller by this factor and the precision. `exp_map0` and `log_map0` are the maps at the origin,
where v_t = 0.

Convention and formulas: Desai et al. 2023, arXiv:2304.09172. The polar form of the distance (radius and direction
apart) follows from the hyperbolic law of cosines and has no subtraction of large terms. Numerics: measured against 50
digits of the same inputs at √c · radius 1e-6…15, for c from 0.1 to 10.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry._pairwise import pairwise_lorentz_dist
from hypclip.geometry._quotients import asinhc, sinh_ratio, sinhc
from hypclip.geometry._row_distance import chord_squared, lorentz_dist
from hypclip.geometry.precision import Curv, as_curv, full_precision, is_readable, safe_sqrt


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
    rows is 0, and cannot be differentiated again.

    Numerics: relative error ≤ 1e-7 in float32 and 2e-15 cosh(√c r) in float64, r the larger radius, for separations of
    1e-6 and more.
    """
    x, y = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
    rows = (points.reshape(-1, points.shape[-1]) for points in (x, y))
    d: Tensor = lorentz_dist(*rows, as_curv(curv, x))
    return d.view(x.shape[:-1])


@full_precision
def pairwise_dist(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv, *, exact_within: float | None = None
) -> Float[Tensor, "n m"]:
    """Return the geodesic distance of all pairs by one matmul, d = acosh(1 + w)/√c.

    w = 2 sinh²(√c d/2) = h_x + h_y + h_x h_y − c x·y, with h = √c x_t − 1 = c|x|²/(1 + √c x_t), is the polar form
    2 sinh²((ρ_x − ρ_y)/2) + sinh ρ_x sinh ρ_y (1 − cos θ) multiplied out. A sum that comes out below 0 is a rounding
    error: distance and gradient are 0 there. The gradient cannot be differentiated again.

    Args:
        x: n points.
        y: m points.
        curv: c > 0.
        exact_within: recompute by `dist` the pairs whose distance comes out below this, or whose rounding error may
            reach 1 % of it. Their number must fit in memory D times.

    Numerics: in float32 sinh²(√c d/2) is wrong by up to 1e-6 · (sinh ρ_x sinh ρ_y + (1 + ρ_x + ρ_y) sinh²(√c d/2)):
    right for logits, not for near pairs. With `exact_within` those have the error of `dist`. Finite while
    ρ_x + ρ_y ≤ 88.
    """
    c = as_curv(curv, x)
    d: Tensor = pairwise_lorentz_dist(x, y, c)[0]
    if exact_within is None:
        return d
    # The rounding of w, a part of sinh ρ_x sinh ρ_y, reaches 1 % of d where cosh(√c d) − 1 is less than this.
    sinh_x, sinh_y = (c.sqrt() * torch.linalg.vector_norm(points.detach(), dim=-1) for points in (x, y))
    unsure = (
        2 * torch.sinh(c.sqrt() * d.detach() / 2).square()
        < 500 * torch.finfo(x.dtype).eps * sinh_x.unsqueeze(1) * sinh_y
    )
    i, j = torch.nonzero((d < exact_within) | unsure, as_tuple=True)
    return d.index_put((i, j), dist(x[i], y[j], c))


@full_precision
def exp_map0(v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map tangent vectors at the origin onto the hyperboloid: x = sinh(√c|v|)/(√c|v|) · v.

    Raises:
        InputError: a finite v with √c|v| beyond 88 in float32 or 709 in float64, where sinh overflows. The check runs
            on the CPU and not under torch.compile; elsewhere the point comes out infinite.

    Numerics: relative error ≤ 2e-6 in float32 for √c|v| up to 15 and 5e-6 up to 32.
    """
    squared = as_curv(curv, v) * torch.linalg.vector_norm(v, dim=-1, keepdim=True).square()
    if is_readable(v):
        limit = 88.0 if v.dtype == torch.float32 else 709.0
        far = squared.detach() > limit**2
        if bool(far.any()) and bool((far & v.detach().isfinite().all(-1, keepdim=True)).any()):
            raise InputError(
                f"a tangent vector v has √c|v| beyond {limit:.0f}, where sinh overflows {v.dtype}: scale it down"
            )
    return sinhc(squared) * v


@full_precision
def log_map0(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map points of the hyperboloid to the tangent space at the origin: v = asinh(√c|x|)/(√c|x|) · x.

    Numerics: relative error ≤ 4e-7 in float32.
    """
    return asinhc(as_curv(curv, x) * torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()) * x


@full_precision
def tangent_norm(x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the length of a tangent vector at x, sqrt(|v|² − v_t²): the distance that `exp_map` moves x.

    It is summed as b² + (a/(√c x_t))², a the part of v along x and b the part across. The gradient at v = 0 is 0.

    Numerics: relative error ≤ 1e-7 in float32, 2e-15 cosh(√c r) in float64, r the radius of x.
    """
    c = as_curv(curv, x).double()
    return safe_sqrt(_tangent_squared(x.double(), v.double(), c)).squeeze(-1).to(x.dtype)


@full_precision
def exp_map(x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Follow the geodesic that leaves x with velocity v for unit time: cosh(z) x + sinh(z)/z · v, z = √c · length of v.

    Numerics: the point is off by a distance of at most 1e-15 cosh(√c r) cosh(z)/√c, r the radius of x. In float32 its
    own rounding comes on top, 1e-7 of its time component.
    """
    c = as_curv(curv, x).double()
    xd, vd = x.double(), v.double()
    squared = c * _tangent_squared(xd, vd, c)
    quotient = sinhc(squared)
    return (torch.sqrt(1 + squared * quotient.square()) * xd + quotient * vd).to(x.dtype)


@full_precision
def log_map(x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Return the tangent vector at x that `exp_map` takes to y: z/sinh z · (y − cosh(z) x), z = √c d(x, y).

    With h = sinh²(z/2) from the chord of `dist`, it is asinh(√h)/√(h + h²) · ((y − x) − 2h x).

    Numerics: the error is itself a tangent vector at x; its length is at most 1e-7 cosh(√c r_x) d in float32 and
    1e-15 (cosh(√c r_x) + cosh(√c r_y)) d in float64.
    """
    c = as_curv(curv, x).double()
    xd, yd = x.double(), y.double()
    half = c / 4 * chord_squared(xd, yd, c)
    return (asinhc(half) / torch.sqrt(1 + half) * ((yd - xd) - 2 * half * xd)).to(x.dtype)


@full_precision
def parallel_transport(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], curv: Curv
) -> Float[Tensor, "*batch d"]:
    """Carry the tangent vector v at x along the geodesic to y: v + c <y, v>_L/(1 − c <x, y>_L) · (x + y).

    With h = sinh²(√c d/2) from the chord of `dist`, 1 − c <x, y>_L = 2 (1 + h), and <y, v>_L = <y − x, v>_L is summed
    as across + along/(c x_t²) − 2h x·v/(c x_t²): the products of the parts of y − x and v across and along x.

    Numerics: the error is itself a tangent vector at y; its length is at most 1e-7 (cosh(√c r_x) + cosh(√c r_y)) times
    that of v in float32, 1e-15 of the same in float64.
    """
    c = as_curv(curv, x).double()
    xd, yd, vd = x.double(), y.double(), v.double()
    step, unit = yd - xd, _unit(xd)
    step_along, v_along = ((t * unit).sum(-1, keepdim=True) for t in (step, vd))
    across = ((step - step_along * unit) * (vd - v_along * unit)).sum(-1, keepdim=True)
    half = c / 4 * chord_squared(xd, yd, c)
    dot = (xd * vd).sum(-1, keepdim=True)
    product = across + (step_along * v_along - 2 * half * dot) / (1 + c * _squared(xd))
    return (vd + c / 2 * product / (1 + half) * (xd + yd)).to(x.dtype)


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
    return (sinh_ratio(1 - fraction, z) * x.double() + sinh_ratio(fraction, z) * y.double()).to(x.dtype)


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


def _tangent_squared(x: Tensor, v: Tensor, c: Tensor) -> Tensor:
    along, across = _split(v, _unit(x))
    return across + along.square() / (1 + c * _squared(x))
