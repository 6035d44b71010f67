"""All-pairs Lorentz distance as one operator with its own backward: three matmuls and few passes over the pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hypclip.geometry.acosh import acosh1p_
from hypclip.geometry.polar import cosh_minus_one

CHUNK = 1 << 18
"""Pairs processed at once: small enough to stay in the cache from one elementwise pass to the next."""


@torch.library.custom_op(
    "hypclip::pairwise_lorentz_dist",
    mutates_args=(),
    schema="(Tensor x, Tensor y, Tensor curv) -> (Tensor, Tensor)",
)
def pairwise_lorentz_dist(x: Tensor, y: Tensor, curv: Tensor) -> tuple[Tensor, Tensor]:
    """Return d = acosh(1 + w)/√c of all pairs (n, m), w = h_x + h_y + h_x h_y − c x·y, and √c times its slope in w.

    h = cosh ρ − 1 from the length of x. The gradient cannot be differentiated again.
    """
    hx, hy = (cosh_minus_one(curv.sqrt() * torch.linalg.vector_norm(points, dim=-1)) for points in (x, y))
    w = torch.addcmul(hy, hx.unsqueeze(1), 1 + hy)
    w.addmm_(x * -curv, y.T)
    slope = torch.empty_like(w)
    rows = max(1, CHUNK // max(1, w.shape[1]))
    work, spare = w.new_empty(2, min(rows, w.shape[0]), w.shape[1])
    for part, its_slope in zip(torch.split(w, rows), torch.split(slope, rows), strict=True):
        acosh1p_(part, its_slope, work[: len(part)], spare[: len(part)])
    return w.div_(curv.sqrt()), slope


@pairwise_lorentz_dist.register_fake
def _(x: Tensor, y: Tensor, curv: Tensor) -> tuple[Tensor, Tensor]:
    shape = x.shape[0], y.shape[0]
    return x.new_empty(shape), x.new_empty(shape)


@torch.library.custom_op(
    "hypclip::pairwise_lorentz_dist_backward",
    mutates_args=(),
    schema=(
        "(Tensor upstream, Tensor d, Tensor slope, Tensor x, Tensor y, Tensor curv, bool for_curv) -> "
        "(Tensor, Tensor, Tensor)"
    ),
)
def _gradients(
    upstream: Tensor, d: Tensor, slope: Tensor, x: Tensor, y: Tensor, curv: Tensor, for_curv: bool
) -> tuple[Tensor, Tensor, Tensor]:
    by_w = upstream * slope
    norms = [torch.linalg.vector_norm(points, dim=-1, keepdim=True) for points in (x, y)]
    cosh_x, cosh_y = (torch.sqrt(1 + curv * norm.square()) for norm in norms)
    by_hx, by_hy = (by_w @ cosh_y) / cosh_x, (by_w.T @ cosh_x) / cosh_y
    d_x, d_y = by_w @ y, by_w.T @ x
    sqrt_c = curv.sqrt()
    d_curv = torch.zeros_like(curv)
    if for_curv:
        by_h = (by_hx * norms[0].square()).sum() + (by_hy * norms[1].square()).sum()
        by_w_and_c = by_h / 2 - torch.linalg.vecdot(x, d_x).sum()
        d_curv = by_w_and_c / sqrt_c - torch.linalg.vecdot(upstream, d).sum() / (2 * curv)
    d_x.mul_(-sqrt_c).addcmul_(x, sqrt_c * by_hx)
    d_y.mul_(-sqrt_c).addcmul_(y, sqrt_c * by_hy)
    return d_x, d_y, d_curv


@_gradients.register_fake
def _(
    upstream: Tensor, d: Tensor, slope: Tensor, x: Tensor, y: Tensor, curv: Tensor, for_curv: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y), torch.empty_like(curv)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, *inputs)


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _gradients(upstream, *ctx.saved_tensors, ctx.needs_input_grad[2])
    return found


pairwise_lorentz_dist.register_autograd(_backward, setup_context=_keep)
