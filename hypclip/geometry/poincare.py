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

from hypclip.geometry._precision import Curv, as_curv, full_precision, safe_sqrt
from hypclip.geometry.lorentz import time_component

_SERIES_BELOW = 1e-3
"""Below this value of c|v|² the quotients tanh(z)/z and atanh(z)/z are summed as series, exact to float64."""


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
    return (2 * p.double() / _gap(p.double(), as_curv(curv, p).double())).to(p.dtype)


@full_precision
def mobius_add(p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Return the Möbius sum p ⊕ q = ((1 + 2c p·q + c|q|²)p + (1 − c|p|²)q)/(1 + 2c p·q + c²|p|²|q|²), row by row.

    Numerator and denominator are taken as (1 − c|p|²)(p+q) + c|p+q|² p and (1 − c|p|²)(1 − c|q|²) + c|p+q|², which are
    the same and subtract no large terms: p ⊕ −p is exactly 0.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    gap, total = _gap(pd, c), pd + qd
    squared = c * total.square().sum(-1, keepdim=True)
    return ((gap * total + squared * pd) / (gap * _gap(qd, c) + squared)).to(p.dtype)


@full_precision
def exp_map0(v: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map tangent vectors at the origin into the ball: p = tanh(√c|v|)/(√c|v|) · v, at distance 2|v| from the origin.

    Numerics: relative error ≤ 1e-7 in float32, 1e-15 in float64.
    """
    squared = as_curv(curv, v).double() * v.double().square().sum(-1, keepdim=True)
    small = squared < _SERIES_BELOW
    z = torch.where(small, 1, squared).sqrt()
    series = 1 - squared * (1 / 3 - squared * (2 / 15 - squared * (17 / 315 - squared * 62 / 2835)))
    return (torch.where(small, series, torch.tanh(z) / z) * v.double()).to(v.dtype)


@full_precision
def log_map0(p: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d"]:
    """Map points of the ball to the tangent space at the origin: v = atanh(√c|p|)/(√c|p|) · p.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p.
    """
    squared = as_curv(curv, p).double() * p.double().square().sum(-1, keepdim=True)
    small = squared < _SERIES_BELOW
    z = torch.where(small, 0.5, squared).sqrt()
    series = 1 + squared * (1 / 3 + squared * (1 / 5 + squared * (1 / 7 + squared * (1 / 9 + squared / 11))))
    return (torch.where(small, series, torch.atanh(z) / z) * p.double()).to(p.dtype)


@full_precision
def dist(p: Float[Tensor, "*batch d"], q: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return the geodesic distance of paired rows, d = (2/√c) asinh(√c|p−q|/sqrt((1 − c|p|²)(1 − c|q|²))).

    The gradient at coincident rows is 0.

    Numerics: relative error ≤ 1e-7 in float32, 1e-9 in float64, counted from the given p and q.
    """
    c = as_curv(curv, p).double()
    pd, qd = p.double(), q.double()
    apart = safe_sqrt((pd - qd).square().sum(-1, keepdim=True))
    half = c.sqrt() * apart / (_gap(pd, c) * _gap(qd, c)).sqrt()
    return (2 / c.sqrt() * torch.asinh(half)).squeeze(-1).to(p.dtype)


def _gap(p: Tensor, c: Tensor) -> Tensor:
    """Return 1 − c|p|², NaN for points that are not inside the ball."""
    gap = 1 - c * p.square().sum(-1, keepdim=True)
    return torch.where(gap > 0, gap, torch.nan)
