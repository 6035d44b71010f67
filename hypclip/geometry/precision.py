"""Precision rules that every function of this package follows."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from hypclip.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
Curv = float | Tensor
"""c > 0, a float or a 0-dim tensor (one number per factor for a product); the sectional curvature is −c."""


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` outside any autocast region and refuse half-precision points.

    Autocast would run the matmuls in bfloat16, which costs 4 % (up to 17 %) of a distance; upcasting points that were
    already rounded would hide the loss, so they are refused instead.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = "cpu"
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.dim() > 0:
                if value.dtype not in (torch.float32, torch.float64, torch.bool):  # a mask, which is no points
                    raise InputError(
                        f"{function.__name__} needs float32 or float64 points, got {value.dtype}: "
                        "cast the features before the scale and the lift"
                    )
                device = value.device.type
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return wrapped


def as_number(value: object, what: str) -> float:
    """Return a number of Python, of numpy or of a tensor without dimensions as a float.

    Raises:
        InputError: it is none; the message begins with `what`.
    """
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        shape = tuple(getattr(value, "shape", ()))
        got = f"of shape {shape}" if shape else f"{value!r:.60}"
        raise InputError(f"{what} must be a number, got {type(value).__name__} {got}")
    return float(value)


READABLE_DEVICES = frozenset({"cpu"})
"""Devices whose values are there as soon as an operation returns; on others, reading one waits for all work."""


def is_readable(tensor: Tensor) -> bool:
    """Return whether the values of a tensor can be read without waiting: on a CPU, and not under torch.compile."""
    return tensor.device.type in READABLE_DEVICES and not torch.compiler.is_compiling()


def as_curv(curv: Curv, like: Tensor) -> Tensor:
    """Return `curv` as a tensor of the dtype and device of `like`; refuse values that are not positive and finite.

    The values of a tensor are checked where that waits for nothing, see `is_readable`.
    """
    if isinstance(curv, Tensor):
        if is_readable(curv):
            value = curv.detach()
            if not bool(((value > 0) & value.isfinite()).all()):
                raise InputError(f"curv must be positive and finite (the sectional curvature is −curv), got {value}")
        return curv.to(like)
    if not 0 < curv < math.inf:
        raise InputError(f"curv must be positive and finite (the sectional curvature is −curv), got {curv}")
    return like.new_full((), curv)


def gap(p: Tensor, c: Tensor) -> Tensor:
    """Return 1 − c|p|², which is NaN for a point that is not inside the ball of radius 1/√c."""
    inside = 1 - c * p.square().sum(-1, keepdim=True)
    return torch.where(inside > 0, inside, torch.nan)


def safe_sqrt(squared: Tensor) -> Tensor:
    """Return the square root, with value and gradient 0 where `squared` is 0 or less; NaN and inf stay what they are.

    The gradient at exactly 0 does not depend on the gradient of clamp, which differs between versions of torch.
    """
    zero = squared <= 0
    return torch.where(zero, 0, torch.where(zero, 1, squared).sqrt())
