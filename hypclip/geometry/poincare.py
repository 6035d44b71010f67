"""The Poincaré ball of curvature −c: |p| < 1/√c, and the isometry between it and the hyperboloid.

Row-wise functions on tensors of shape (..., D). All of them work in float64 inside, because near the rim the geometry
hangs on the gap 1 − c|p|², of which float32 keeps little: a float32 point of the ball at radius 15 fixes that radius
to no better than 0.1, and beyond 17 it may round onto the rim. Store points as space components of the hyperboloid and
come here to draw them. Nothing is clamped: a point on the rim or outside has no image and comes out as NaN or infinite.

A ball tangent v at the origin is the Lorentz tangent 2v, since the metric there is 4 times the Euclidean one: the
distance of `exp_map0(v)` from the origin is 2|v|. Formulas: Ganea et al. 2018, arXiv:1805.09112. Numerics: measured
against 50 digits of the same inputs at √c · radius 1e-6…15, for c from 0.1 to 10.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry._quotients import asinhc, atanhc, sinh_ratio, tanhc
from hypclip.geometry.lorentz import time_component
from hypclip.geometry.precision import Curv, as_curv, full_precision, gap, safe_sqrt


@full_precision
def from_lorentz(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map space components on the hyperboloid to the ball: p = x/(1 + √c x_t).

    Numerics: relative error ≤ 1e-7 in float32, 1e-15 in float64.
    """
    c = as_curv(curv, x).double()
    return (x.double() / (1 + c.sqrt() * time_component(x.double(), c))).to(x.dtype)


@full_precision
def to_lorentz(p: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map points of the ball to space components on the hyperboloid: x = 2p/(1 − c|p|²), the inverse of `from_lorentz`.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p.
    """
    return (2 * p.double() / gap(p.double(), as_curv(curv, p).double())).to(p.dtype)


@full_precision
def mobius_add(p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Return the Möbius sum p ⊕ q = ((1 + 2c p·q + c|q|²)p + (1 − c|p|²)q)/(1 + 2c p·q + c²|p|²|q|²), row by row.

    Numerator and denominator are taken as (1 − c|p|²)(p+q) + c|p+q|² p and (1 − c|p|²)(1 − c|q|²) + c|p+q|², which are
    the same and subtract no large terms: p ⊕ −p is exactly 0.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    return _mobius_add(pd, qd, gap(pd, c), gap(qd, c), c).to(p.dtype)


@full_precision
def exp_map0(v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map tangent vectors at the origin into the ball: p = tanh(√c|v|)/(√c|v|) · v, at distance 2|v| from the origin.

    Numerics: relative error ≤ 1e-7 in float32, 1e-15 in float64.
    """
    squared = as_curv(curv, v).double() * v.double().square().sum(-1, keepdim=True)
    return (tanhc(squared) * v.double()).to(v.dtype)


@full_precision
def log_map0(p: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map points of the ball to the tangent space at the origin: v = atanh(√c|p|)/(√c|p|) · p.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p.
    """
    squared = as_curv(curv, p).double() * p.double().square().sum(-1, keepdim=True)
    return (atanhc(squared) * p.double()).to(p.dtype)


@full_precision
def exp_map(p: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Follow the geodesic that leaves p with velocity v for unit time: p ⊕ exp0(v/(1 − c|p|²)).

    The point lies at distance 2|v|/(1 − c|p|²) from p. Of the second term 1 − c|q|² is taken as 1/cosh².

    Numerics: error ≤ 1e-7/√c in float32, 2e-15/(√c (1 − c|p|²)) in float64, counted from the given p and v.
    """
    c = as_curv(curv, p).double()
    pd, gap_p = p.double(), gap(p.double(), c)
    step = v.double() / gap_p
    squared = c * step.square().sum(-1, keepdim=True)
    decay = torch.exp(-2 * safe_sqrt(squared))
    return _mobius_add(pd, tanhc(squared) * step, gap_p, 4 * decay / (1 + decay).square(), c).to(p.dtype)


@full_precision
def log_map(p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Return the tangent vector at p that `exp_map` takes to q: (1 − c|p|²) log0(−p ⊕ q).

    With h the argument of asinh in `dist` it is asinh(h)/h · ((1 − c|p|²)(q−p) − c|q−p|² p)/((1 − c|q|²) sqrt(1 + h²)).

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p and q.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    gap_p, gap_q, step = gap(pd, c), gap(qd, c), qd - pd
    squared = c * step.square().sum(-1, keepdim=True)
    half = squared / (gap_p * gap_q)
    return (asinhc(half) / ((1 + half).sqrt() * gap_q) * (gap_p * step - squared * pd)).to(p.dtype)


@full_precision
def geodesic(
    p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], t: float | Tensor, curv: Curv
) -> Float[Tensor, "*batch d"]:
    """Return the point at fraction t of the way from p to q, p ⊕ exp0(t log0(−p ⊕ q)).

    It is the image of `lorentz.geodesic`: 2(ap + bq)/(1 + a(1 + c|p|²) + b(1 + c|q|²)), where a and b are the weights
    of the ends there divided by 1 − c|p|² and 1 − c|q|².

    Args:
        p: start, t = 0.
        q: end, t = 1.
        t: a number, or a tensor that broadcasts against (..., 1).
        curv: c > 0.

    Numerics: error ≤ 1e-7/√c in float32, 1e-10/√c in float64, counted from the given p and q.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    fraction = torch.as_tensor(t, dtype=torch.float64, device=p.device)
    z = (c.sqrt() * dist(pd, qd, c)).unsqueeze(-1)
    gap_p, gap_q = gap(pd, c), gap(qd, c)
    at_p, at_q = sinh_ratio(1 - fraction, z) / gap_p, sinh_ratio(fraction, z) / gap_q
    return (2 * (at_p * pd + at_q * qd) / (1 + at_p * (2 - gap_p) + at_q * (2 - gap_q))).to(p.dtype)


@full_precision
def parallel_transport(
    p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"], curv: Curv
) -> Float[Tensor, "*batch d"]:
    """Carry the tangent vector v at p along the geodesic to q: gyr[q, −p]v · (1 − c|q|²)/(1 − c|p|²).

    The gyration turns v in the plane of p and q. With s = q − p it is summed as
    v + 2c ((g s·v − c|s|² p·v) p − ((g' + c|s|²) p·v + c|p|² s·v) s)/(g g' + c|s|²), g = 1 − c|p|² and g' = 1 − c|q|².

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p and q.
    """
    c = as_curv(curv, p).double()
    pd, qd, vd = p.double(), q.double(), v.double()
    gap_p, gap_q, step = gap(pd, c), gap(qd, c), qd - pd
    squared = c * step.square().sum(-1, keepdim=True)
    pv, sv = (pd * vd).sum(-1, keepdim=True), (step * vd).sum(-1, keepdim=True)
    turn = (gap_p * sv - squared * pv) * pd - ((gap_q + squared) * pv + (1 - gap_p) * sv) * step
    return ((vd + 2 * c * turn / (gap_p * gap_q + squared)) * gap_q / gap_p).to(p.dtype)


@full_precision
def dist(p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the geodesic distance of paired rows, d = (2/√c) asinh(√c|p−q|/sqrt((1 − c|p|²)(1 − c|q|²))).

    The gradient at coincident rows is 0.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p and q.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    apart = safe_sqrt((pd - qd).square().sum(-1, keepdim=True))
    half = c.sqrt() * apart / (gap(pd, c) * gap(qd, c)).sqrt()
    return (2 / c.sqrt() * torch.asinh(half)).squeeze(-1).to(p.dtype)


def _mobius_add(p: Tensor, q: Tensor, gap_p: Tensor, gap_q: Tensor, c: Tensor) -> Tensor:
    total = p + q
    squared = c * total.square().sum(-1, keepdim=True)
    return (gap_p * total + squared * p) / (gap_p * gap_q + squared)
