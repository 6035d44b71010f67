"""Conversion of points to the coordinates of responses."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.geometry import lorentz, poincare

Coordinates: TypeAlias = Literal["space", "lorentz", "tangent", "poincare"]


def coordinates(x: Float[Tensor, "n d"], kind: Coordinates, curv: float) -> NDArray[Any]:
    """Return float32 space components as they are, or in other coordinates in float64.

    `space`: D components on the hyperboloid. `lorentz`: D + 1 numbers, the time component first. `tangent`: the
    logarithm at the origin. `poincare`: the point of the ball |p| < 1/√curv.
    """
    if kind == "space":
        return x.numpy()
    exact = x.double()
    match kind:
        case "lorentz":
            converted = torch.cat([lorentz.time_component(exact, curv), exact], dim=-1)
        case "tangent":
            converted = lorentz.log_map0(exact, curv)
        case "poincare":
            converted = poincare.from_lorentz(exact, curv)
    return converted.numpy()


def radii(x: Float[Tensor, "n d"], curv: float) -> list[float]:
    """Return the distances from the origin, computed in float64."""
    radius: list[float] = lorentz.radius(x.double(), curv).tolist()
    return radius
