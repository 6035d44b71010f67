"""Validation of distance matrices, shared by all measures."""

from __future__ import annotations

import torch
from torch import Tensor

from hypclip.errors import InputError

_TOLERANCE = 1e-3
"""Largest error of a float32 matmul on the diagonal, or between an entry and its mirror, relative to the diameter."""


def checked_distances(distances: Tensor, name: str, at_least: int = 2) -> Tensor:
    """Return a symmetric float64 copy with an exact 0 diagonal of an (n, n) distance matrix.

    The triangle inequality is not checked, which would take n³ steps.

    Raises:
        InputError: not a square float32 or float64 matrix of `at_least` points, or an entry that no distance can be.
    """
    if distances.dim() != 2 or len(distances) != distances.shape[1]:
        raise InputError(f"{name} must be a square matrix of distances, got shape {tuple(distances.shape)}")
    if distances.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} must be float32 or float64, got {distances.dtype}: compute the distances in float64")
    if len(distances) < at_least:
        raise InputError(f"{name} must hold at least {at_least} points, got {len(distances)}")
    d = distances.detach().double()
    if where := first(~d.isfinite()):
        raise InputError(f"{name} must be finite, got {d[where]} at {where}")
    if where := first(d < 0):
        raise InputError(f"{name} must not be negative, got {d[where]} at {where}")
    bound = _TOLERANCE * d.max()
    if where := first((d - d.T).abs() > bound):
        raise InputError(f"{name} must be symmetric, got {d[where]} at {where} and {d.T[where]} across the diagonal")
    if where := first(d.diagonal().diag() > bound):
        raise InputError(f"{name} must be 0 from a point to itself, got {d[where]} at {where}")
    return ((d + d.T) / 2).fill_diagonal_(0)


def first(wrong: Tensor) -> tuple[int, ...]:
    """Return the index of the first true entry; () when there is none."""
    found = wrong.nonzero()
    return tuple(found[0].tolist()) if len(found) else ()
