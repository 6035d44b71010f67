"""Textbook hyperbolic geometry at 50 digits, and the points the library is held against.

Rows are numpy arrays of mpmath numbers, taken from tensors by `exact` without rounding. The formulas are the ones with
acosh and acos that lose everything in floating point: they share no rearrangement with the library.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mpmath import mp, mpf
from torch import Tensor

mp.dps = 50

Exact = Any
"""An mpmath number, or a numpy array of them."""

CURVS = (0.1, 1.0, 10.0)
# √c · radius and √c · distance
RADII = (1e-6, 1e-3, 0.1, 1.0, 4.0, 10.0, 15.0)
SEPARATIONS = (1e-6, 1e-5, 1e-3, 0.1, 1.0, 10.0)


def _each(function: Callable[..., Any]) -> Callable[..., Exact]:
    return np.frompyfunc(function, 1, 1)


number = _each(mpf)
sqrt, asin, sinh, asinh, cosh, tanh, atanh = map(
    _each, (mp.sqrt, mp.asin, mp.sinh, mp.asinh, mp.cosh, mp.tanh, mp.atanh)
)
# The 50th digit may fall on the wrong side of the ends of their domain.
acosh = _each(lambda z: mp.acosh(max(z, mpf(1))))
acos = _each(lambda z: mp.acos(min(max(z, mpf(-1)), mpf(1))))


def exact(tensor: Tensor) -> Exact:
    """Take the numbers of a tensor as they are."""
    return number(tensor.detach().double().numpy())


def norm(x: Exact) -> Exact:
    return sqrt((x * x).sum(-1))


# Hyperboloid ----------------------------------------------------------------------------------------------------------


def time_component(x: Exact, c: Exact) -> Exact:
    return sqrt(1 / c + (x * x).sum(-1))


def inner(x: Exact, y: Exact, c: Exact) -> Exact:
    return (x * y).sum(-1) - time_component(x, c) * time_component(y, c)


def dist(x: Exact, y: Exact, c: Exact) -> Exact:
    return acosh(-c * inner(x, y, c)) / sqrt(c)


def radius(x: Exact, c: Exact) -> Exact:
    return acosh(sqrt(c) * time_component(x, c)) / sqrt(c)


def exp_map0(v: Exact, c: Exact) -> Exact:
    z = sqrt(c) * norm(v)[..., None]
    return sinh(z) / z * v


def log_map0(x: Exact, c: Exact) -> Exact:
    return radius(x, c)[..., None] * x / norm(x)[..., None]


def geodesic(x: Exact, y: Exact, t: Exact, c: Exact) -> Exact:
    z = sqrt(c) * dist(x, y, c)[..., None]
    return (sinh((1 - t) * z) * x + sinh(t * z) * y) / sinh(z)


def centroid(x: Exact, weights: Exact, c: Exact) -> Exact:
    space = (weights[..., None] * x).sum(-2)
    time = (weights * time_component(x, c)).sum(-1)
    return space / (sqrt(c) * sqrt(time * time - (space * space).sum(-1)))[..., None]


def tangent_inner(x: Exact, v: Exact, u: Exact, c: Exact) -> Exact:
    v_time, u_time = ((x * t).sum(-1) / time_component(x, c) for t in (v, u))
    return (v * u).sum(-1) - v_time * u_time


def exp_map(x: Exact, v: Exact, c: Exact) -> Exact:
    z = sqrt(c * tangent_inner(x, v, v, c))[..., None]
    return cosh(z) * x + sinh(z) / z * v


def log_map(x: Exact, y: Exact, c: Exact) -> Exact:
    product = -c * inner(x, y, c)[..., None]
    return acosh(product) / sqrt(product * product - 1) * (y - product * x)


def parallel_transport(x: Exact, y: Exact, v: Exact, c: Exact) -> Exact:
    there, back = log_map(x, y, c), log_map(y, x, c)
    return v - (tangent_inner(x, there, v, c) / tangent_inner(x, there, there, c))[..., None] * (there + back)


def half_aperture(x: Exact, c: Exact, min_radius: float) -> Exact:
    return _each(lambda ratio: mp.asin(min(mpf(1), ratio)))(2 * mpf(min_radius) / (sqrt(c) * norm(x)))


def oxy_angle(x: Exact, y: Exact, c: Exact) -> Exact:
    product = c * inner(x, y, c)
    return acos(
        (time_component(y, c) + time_component(x, c) * product) / (norm(x) * sqrt(product * product - 1)),
    )


# Ball -----------------------------------------------------------------------------------------------------------------


def ball_from_lorentz(x: Exact, c: Exact) -> Exact:
    return x / (1 + sqrt(c) * time_component(x, c))[..., None]


def ball_to_lorentz(p: Exact, c: Exact) -> Exact:
    return 2 * p / (1 - c * (p * p).sum(-1))[..., None]


def ball_mobius_add(p: Exact, q: Exact, c: Exact) -> Exact:
    pp, qq, pq = ((a * b).sum(-1)[..., None] for a, b in ((p, p), (q, q), (p, q)))
    return ((1 + 2 * c * pq + c * qq) * p + (1 - c * pp) * q) / (1 + 2 * c * pq + c * c * pp * qq)


def ball_exp_map0(v: Exact, c: Exact) -> Exact:
    z = sqrt(c) * norm(v)[..., None]
    return tanh(z) / z * v


def ball_log_map0(p: Exact, c: Exact) -> Exact:
    z = sqrt(c) * norm(p)[..., None]
    return atanh(z) / z * p


def ball_exp_map(p: Exact, v: Exact, c: Exact) -> Exact:
    return ball_mobius_add(p, ball_exp_map0(v / (1 - c * (p * p).sum(-1))[..., None], c), c)


def ball_log_map(p: Exact, q: Exact, c: Exact) -> Exact:
    return (1 - c * (p * p).sum(-1))[..., None] * ball_log_map0(ball_mobius_add(-p, q, c), c)


def ball_geodesic(p: Exact, q: Exact, t: Exact, c: Exact) -> Exact:
    return ball_exp_map(p, t * ball_log_map(p, q, c), c)


def ball_parallel_transport(p: Exact, q: Exact, v: Exact, c: Exact) -> Exact:
    # gyr[q, −p]w = −(q ⊕ −p) ⊕ (q ⊕ (−p ⊕ w)) is linear in w, a point of the ball
    shrink = 1 / (2 * sqrt(c) * norm(v))[..., None]
    there = ball_mobius_add(q, ball_mobius_add(-p, shrink * v, c), c)
    turned = ball_mobius_add(-ball_mobius_add(q, -p, c), there, c) / shrink
    gap_p, gap_q = ((1 - c * (t * t).sum(-1))[..., None] for t in (p, q))
    return turned * gap_q / gap_p


def ball_dist(p: Exact, q: Exact, c: Exact) -> Exact:
    pp, qq, apart = ((a * a).sum(-1) for a in (p, q, p - q))
    return acosh(1 + 2 * c * apart / ((1 - c * pp) * (1 - c * qq))) / sqrt(c)


# Klein ball, half-space, hemisphere -----------------------------------------------------------------------------------


def klein_from_lorentz(x: Exact, c: Exact) -> Exact:
    return x / (sqrt(c) * time_component(x, c))[..., None]


def klein_to_lorentz(k: Exact, c: Exact) -> Exact:
    return k / sqrt(1 - c * (k * k).sum(-1))[..., None]


def klein_dist(k: Exact, m: Exact, c: Exact) -> Exact:
    kk, mm, km = ((a * b).sum(-1) for a, b in ((k, k), (m, m), (k, m)))
    return acosh((1 - c * km) / sqrt((1 - c * kk) * (1 - c * mm))) / sqrt(c)


def half_space_from_lorentz(x: Exact, c: Exact) -> Exact:
    height = 1 / (c * (time_component(x, c) - x[..., -1]))[..., None]
    return np.concatenate([sqrt(c) * height * x[..., :-1], height], -1)


def half_space_to_lorentz(h: Exact, c: Exact) -> Exact:
    height = h[..., -1:]
    up = ((h * h).sum(-1)[..., None] - 1 / c) / (2 * height)
    return np.concatenate([h[..., :-1] / (sqrt(c) * height), up], -1)


def half_space_dist(h: Exact, g: Exact, c: Exact) -> Exact:
    return acosh(1 + ((h - g) ** 2).sum(-1) / (2 * h[..., -1] * g[..., -1])) / sqrt(c)


def hemisphere_from_lorentz(x: Exact, c: Exact) -> Exact:
    time = time_component(x, c)[..., None]
    return np.concatenate([x / (sqrt(c) * time), 1 / (c * time)], -1)


def hemisphere_to_lorentz(j: Exact, c: Exact) -> Exact:
    return j[..., :-1] / (sqrt(c) * j[..., -1:])


def hemisphere_dist(j: Exact, i: Exact, c: Exact) -> Exact:
    return dist(hemisphere_to_lorentz(j, c), hemisphere_to_lorentz(i, c), c)


# Points ---------------------------------------------------------------------------------------------------------------


def directions(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw unit vectors in float64, every fourth along an axis: there float32 loses nothing to the other components."""
    unit = torch.nn.functional.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=-1)
    unit[::4] = torch.eye(dim, dtype=torch.float64)[0]
    return unit


def vectors(norms: Sequence[float], dim: int, dtype: torch.dtype, each: int = 8, seed: int = 0) -> Tensor:
    """Draw `each` vectors of every norm."""
    lengths = torch.tensor(norms, dtype=torch.float64).repeat_interleave(each)
    unit = directions(len(lengths), dim, torch.Generator().manual_seed(seed))
    return (lengths[:, None] * unit).to(dtype)


def points(curv: Tensor, dim: int, radii: Sequence[float] = RADII, each: int = 8, seed: int = 0) -> Tensor:
    """Draw space components of `each` points at every √c · radius, in the dtype of `curv`."""
    rho = torch.tensor(radii, dtype=torch.float64).repeat_interleave(each)
    unit = directions(len(rho), dim, torch.Generator().manual_seed(seed))
    return (rho.sinh()[:, None] * unit / curv.double().sqrt()).to(curv.dtype)


def pairs(
    curv: Tensor,
    dim: int,
    radii: Sequence[float] = RADII,
    separations: Sequence[float] = SEPARATIONS,
    each: int = 8,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draw pairs (x, y), x at every √c · radius and y at every √c · distance from it, in the dtype of `curv`.

    y lies outwards, inwards, across and at random from x. Rounding y moves it by about eps · sinh(√c · radius), so that
    float32 pairs far out are further apart than asked, save those along an axis. Pairs that coincide after rounding and
    those with y at the origin are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*(torch.tensor(v, dtype=torch.float64) for v in (radii, separations)))
    rho, apart = grid.repeat_interleave(each, 0).T
    unit = directions(len(rho), dim, generator)
    other = torch.randn(len(rho), dim, generator=generator, dtype=torch.float64)
    aside = torch.nn.functional.normalize(other - (other * unit).sum(-1, keepdim=True) * unit, dim=-1)
    angle = torch.rand(len(rho), generator=generator, dtype=torch.float64) * torch.pi
    kind = torch.arange(len(rho)) // 2 % 4
    cos = torch.where(kind == 0, 1, torch.where(kind == 1, -1, torch.where(kind == 2, 0, angle.cos())))
    sin = torch.where(kind < 2, 0, torch.where(kind == 2, 1, angle.sin()))
    x = rho.sinh()[:, None] * unit
    outwards = rho.sinh() * apart.cosh() + rho.cosh() * apart.sinh() * cos
    y = outwards[:, None] * unit + (apart.sinh() * sin)[:, None] * aside
    scale = curv.double().sqrt()
    x, y = (x / scale).to(curv.dtype), (y / scale).to(curv.dtype)
    proper = (x != y).any(-1) & (y != 0).any(-1)
    return x[proper], y[proper]


class Pairs(NamedTuple):
    """Pairs of points with what 50 digits say of them; distance and radii are times √c."""

    x: Tensor
    y: Tensor
    exact_x: Exact
    exact_y: Exact
    c: Exact
    exact_dist: Exact
    separation: Tensor
    rho_x: Tensor
    rho_y: Tensor


@functools.cache
def known_pairs(dtype: torch.dtype, curv: float, dim: int = 8, each: int = 6) -> Pairs:
    """Pairs at every radius and separation, and pairs on opposite sides of the origin."""
    c = torch.tensor(curv, dtype=dtype)
    x, y = pairs(c, dim, each=each)
    z = points(c, dim, each=2)
    x, y = torch.cat([x, z, z]), torch.cat([y, -1.001 * z, -0.3 * z])
    exact_x, exact_y, exact_c = exact(x), exact(y), exact(c)
    root = sqrt(exact_c)
    exact_dist = dist(exact_x, exact_y, exact_c)
    rho_x, rho_y = (rounded(root * radius(p, exact_c)) for p in (exact_x, exact_y))
    return Pairs(x, y, exact_x, exact_y, exact_c, exact_dist, rounded(root * exact_dist), rho_x, rho_y)


# Errors ---------------------------------------------------------------------------------------------------------------


def relative(got: Tensor, want: Exact) -> Tensor:
    """Return |got − want|/|want| of numbers, in float64."""
    return rounded(abs(exact(got) - want) / abs(want))


def relative_rows(got: Tensor, want: Exact) -> Tensor:
    """Return |got − want|/|want| of the rows of a matrix, in float64."""
    return rounded(norm(exact(got) - want) / norm(want))


def absolute(got: Tensor, want: Exact) -> Tensor:
    """Return |got − want|, in float64."""
    return rounded(abs(exact(got) - want))


def rounded(values: Exact) -> Tensor:
    """Round to a float64 tensor."""
    return torch.from_numpy(np.asarray(values).astype(np.float64))
