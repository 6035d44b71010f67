"""Row-wise Lorentz distance as one operator: float64 inside, a few rows at a time, with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypclip.geometry.precision import safe_sqrt

CHUNK = 1 << 15
"""Coordinates processed at once: in float64 they stay in the cache from one pass to the next."""


def chord_squared(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """Return m² = |x−y|² − (x_t−y_t)² as the sum that `lorentz.dist` describes, (..., 1)."""
    squared_x, squared_y = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    xt, yt = torch.sqrt(1 / c + squared_x), torch.sqrt(1 / c + squared_y)
    total, difference = x + y, x - y
    squared_total = total.square().sum(-1, keepdim=True)
    unit = total / torch.where(squared_total > 0, squared_total, 1).sqrt()
    along = (difference * unit).sum(-1, keepdim=True)
    across = (difference - along * unit).square().sum(-1, keepdim=True)
    dot, times = (x * y).sum(-1, keepdim=True), xt * yt
    positive = 1 / c.square() + (squared_x + squared_y) / c + squared_total * across / 4
    minus_inner = torch.where(dot > 0, positive / (times + dot.abs()), times - dot)
    return across + 2 * (1 / c + minus_inner) * (along / (xt + yt)).square()


@torch.library.custom_op("hypclip::lorentz_dist", mutates_args=(), schema="(Tensor x, Tensor y, Tensor curv) -> Tensor")
def lorentz_dist(x: Tensor, y: Tensor, curv: Tensor) -> Tensor:
    """Return the distances (n,) of rows (n, d); the gradient cannot be differentiated again."""
    found, c = x.new_empty(x.shape[0]), curv.double()
    for rows in _chunks(x):
        half = c.sqrt() / 2 * safe_sqrt(chord_squared(x[rows].double(), y[rows].double(), c)).squeeze(-1)
        found[rows] = 2 / c.sqrt() * torch.asinh(half)
    return found


@lorentz_dist.register_fake
def _(x: Tensor, y: Tensor, curv: Tensor) -> Tensor:
    return x.new_empty(x.shape[0])


@torch.library.custom_op(
    "hypclip::lorentz_dist_backward",
    mutates_args=(),
    schema="(Tensor upstream, Tensor d, Tensor x, Tensor y, Tensor curv) -> (Tensor, Tensor, Tensor)",
)
def _gradients(upstream: Tensor, d: Tensor, x: Tensor, y: Tensor, curv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients, with z = √c d, τ = x_t − y_t: by x √c/sinh z · (x − y − τ/x_t · x), by y the mirror image.

    By c it is −d/2c + (2 sinh²(z/2) − τ²/(2 x_t y_t))/(c √c sinh z).
    """
    d_x, d_y, c = torch.empty_like(x), torch.empty_like(y), curv.double()
    by_c = torch.zeros_like(c)
    for rows in _chunks(x):
        xd, yd, g, dd = (part[rows].double() for part in (x, y, upstream, d))
        xt, yt = (torch.sqrt(1 / c + part.square().sum(-1)) for part in (xd, yd))
        difference = xd - yd
        tau = (difference * (xd + yd)).sum(-1) / (xt + yt)
        z = c.sqrt() * dd
        factor = torch.where(dd == 0, 0, g / torch.sinh(z))
        scale = (c.sqrt() * factor).unsqueeze(-1)
        d_x[rows] = scale * (difference - (tau / xt).unsqueeze(-1) * xd)
        d_y[rows] = scale * ((tau / yt).unsqueeze(-1) * yd - difference)
        bent = 2 * torch.sinh(z / 2).square() - tau.square() / (2 * xt * yt)
        by_c += (factor * bent / c.sqrt() - g * dd / 2).sum() / c
    return d_x, d_y, by_c.to(curv)


@_gradients.register_fake
def _(upstream: Tensor, d: Tensor, x: Tensor, y: Tensor, curv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(curv)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _gradients(upstream, *ctx.saved_tensors)
    return found


lorentz_dist.register_autograd(_backward, setup_context=_keep)


def _chunks(x: Tensor) -> list[slice]:
    rows = max(1, CHUNK // max(1, x.shape[1]))
    return [slice(start, start + rows) for start in range(0, x.shape[0], rows)]
