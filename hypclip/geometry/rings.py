"""Round distances for the rings of a disk."""

from __future__ import annotations

import math

_RINGS = 3
"""At least so many rings are drawn."""


def rings(largest: float) -> list[float]:
    """Return round radii, evenly spaced up to the largest: at least three, at most seven; none where it is not > 0."""
    if not largest > 0:
        return []
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(part for part in (5, 2, 1, 0.5, 0.2, 0.1) if largest >= _RINGS * part * power)
    return [float(f"{step * power * i:.6g}") for i in range(1, int(largest / (step * power)) + 1)]
