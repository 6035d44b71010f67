"""Quotients that are 0/0 at 0, with their limit and their slope there.

All but the last take the square of their argument, in which they are smooth, so that no square root has to be
differentiated at 0. Below `_SERIES_BELOW` they are summed as series, exact to float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SERIES_BELOW = 1e-3
_LIMIT_BELOW = 1e-6


def sinhc(squared: Tensor) -> Tensor:
    """Return sinh(z)/z of z²."""
    found: Tensor = _Sinhc.apply(squared)
    return found


class _Sinhc(torch.autograd.Function):
    """sinh(z)/z of z², its slope in closed form, (cosh z − sinh(z)/z)/(2z²): half the steps of autograd."""

    @staticmethod
    def forward(ctx: Any, squared: Tensor) -> Tensor:
        small = squared < _SERIES_BELOW
        z = torch.where(small, 1, squared).sqrt()
        series = 1 + squared / 6 * (1 + squared / 20 * (1 + squared / 42 * (1 + squared / 72)))
        value = torch.where(small, series, torch.sinh(z) / z)
        ctx.save_for_backward(squared, value)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        squared, value = ctx.saved_tensors
        small = squared < _SERIES_BELOW
        safe = torch.where(small, 1, squared)
        series = (1 + squared / 10 * (1 + squared / 28 * (1 + squared / 54))) / 6
        slope: Tensor = torch.where(small, series, (torch.cosh(safe.sqrt()) - value) / (2 * safe))
        return upstream * slope


def asinhc(squared: Tensor) -> Tensor:
    """Return asinh(z)/z of z²."""
    small = squared < _SERIES_BELOW
    z = torch.where(small, 1, squared).sqrt()
    series = 1 - squared / 6 * (
        1 - squared * 9 / 20 * (1 - squared * 25 / 42 * (1 - squared * 49 / 72 * (1 - squared * 81 / 110)))
    )
    return torch.where(small, series, torch.asinh(z) / z)


def tanhc(squared: Tensor) -> Tensor:
    """Return tanh(z)/z of z²."""
    small = squared < _SERIES_BELOW
    z = torch.where(small, 1, squared).sqrt()
    series = 1 - squared * (1 / 3 - squared * (2 / 15 - squared * (17 / 315 - squared * 62 / 2835)))
    return torch.where(small, series, torch.tanh(z) / z)


def atanhc(squared: Tensor) -> Tensor:
    """Return atanh(z)/z of z²."""
    small = squared < _SERIES_BELOW
    z = torch.where(small, 0.5, squared).sqrt()
    series = 1 + squared * (1 / 3 + squared * (1 / 5 + squared * (1 / 7 + squared * (1 / 9 + squared / 11))))
    return torch.where(small, series, torch.atanh(z) / z)


def sinh_ratio(t: Tensor, z: Tensor) -> Tensor:
    """Return sinh(tz)/sinh(z), the weight of an end of a geodesic of length z, and t for z near 0."""
    near = z < _LIMIT_BELOW
    safe = torch.where(near, 1, z)
    return torch.where(near, t, torch.sinh(t * safe) / torch.sinh(safe))
