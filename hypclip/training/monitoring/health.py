"""Warnings about degenerate geometry."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from hypclip.model import LOG_CURV_RANGE

_AT_BOUND = 1e-3
_ALL = 0.99


def find_trouble(seen: Mapping[str, object], curv: Tensor, *, learned: bool = True) -> dict[str, str]:
    """Return warnings by a short name that stays the same from step to step; none for a healthy run.

    Args:
        seen: what `Objective.describe` returned, as numbers; anything else in it is passed over.
        curv: c, one number or one per factor.
        learned: whether the curvature is learned; a fixed curvature is not checked.
    """
    found: dict[str, str] = {}
    if learned:
        for name, bound in zip(("lowest", "highest"), LOG_CURV_RANGE, strict=True):
            share = ((curv.detach().log() - bound).abs() < _AT_BOUND).float().mean().item()
            if share > 0.5:
                found[f"curv {name}"] = (
                    f"the curvature is at its {name} value {math.exp(bound):g} and no longer learns: distances would "
                    "rather be flatter" if name == "lowest" else
                    f"the curvature is at its {name} value {math.exp(bound):g} and no longer learns: points would "
                    "rather be further apart"
                )  # fmt: skip
    values = [value for name, value in seen.items() if name.startswith("clamped/") and isinstance(value, float)]
    clamped = [value for value in values if not math.isnan(value)]  # NaN: no pair had that edge
    if clamped and min(clamped) >= _ALL:
        found["cones open"] = (
            "every entailment cone has opened to a half-space (general points within √c · radius asinh 2K of the "
            "origin): the order edges no longer order anything; see violation, clamped and radius in the log"
        )
    return found
