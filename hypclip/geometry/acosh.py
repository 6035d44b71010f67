"""acosh(1 + w) for w ≥ 0, in place and differentiable: the last step of every distance that comes from a matmul."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def acosh1p_(w: Tensor, slope: Tensor, work: Tensor, spare: Tensor) -> Tensor:
    """Put acosh(1 + w) in place of w, and its derivative 1/sqrt(w (w + 2)) into `slope`, 0 where w ≤ 0.

    acosh(1 + w) = log(1 + v), v = w + sqrt(w (w + 2)). On the CPU log1p has no vector form and takes ten times as long
    as log; the digits that 1 + v drops are added back to first order instead. w < 0, a rounding error, counts as 0.

    Args:
        w: any shape.
        slope: written, of the same shape.
        work: overwritten, of the same shape.
        spare: overwritten, of the same shape.

    Numerics: relative error ≤ 4e-7 in float32, 1e-15 in float64.
    """
    torch.add(w.clamp_(min=0), 2, out=work).sqrt_()
    sinh = torch.sqrt(w, out=slope).mul_(
        work
    )  # w (w + 2) itself overflows in float32 from d = 44 on
    v = w.add_(sinh)
    torch.div(sinh, torch.mul(sinh, sinh, out=work).add_(torch.finfo(w.dtype).tiny), out=slope)  # 0/tiny at 0
    torch.add(v, 1, out=work)
    lost = v.sub_(torch.sub(work, 1, out=spare)).div_(work)
    return lost.add_(work.log_())


def acosh1p(w: Tensor) -> Tensor:
    """Return acosh(1 + w); value and gradient are 0 where w ≤ 0."""
    found: Tensor = _Acosh1p.apply(w)
    return found


class _Acosh1p(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        slope, work, spare = (torch.empty_like(w) for _ in range(3))
        value = acosh1p_(w.clone(), slope, work, spare)
        ctx.save_for_backward(w, slope)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        w, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            slope = torch.where(w > 0, torch.rsqrt(w * (w + 2)), 0)
        gradient: Tensor = upstream * slope
        return gradient
