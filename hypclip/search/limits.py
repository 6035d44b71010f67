"""How far out points of a store may lie, and so how high heights may be."""

from __future__ import annotations

import math

MAX_SINH_RADIUS = 1e7
"""Largest √c|x| = sinh(√c·radius) of a point, a radius of 16.8/√c. Beyond it neighbouring float32 points are further
apart than the scale 1/√c of the space itself, so that distances would be noise."""

MAX_RHO = math.asinh(MAX_SINH_RADIUS) * (1 + 1e-6)
"""Upper bound of √c·radius; heights lie between −2 and 1 times it."""

_BEYOND_HEIGHTS = 40.0


def sinh_threshold(threshold: float) -> float:
    """Return sinh of the threshold of a half-space; one beyond every height stays so, and does not overflow."""
    return math.sinh(max(-_BEYOND_HEIGHTS, min(_BEYOND_HEIGHTS, threshold)))
