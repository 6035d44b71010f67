"""When one point entails another: where it lies in the cone of the general one, or in the half-space beyond it.

Which of the two it is belongs to a model, as it was trained: it is in the model's config, and all that ask what is an
instance of what take it from there.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from hypclip.errors import ConfigError, InputError
from hypclip.geometry import lorentz, planes, polar, product
from hypclip.geometry._precision import Curv, as_curv, full_precision
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.metric import Metric

_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Cone:
    """y is in the cone of x where φ(x, y) ≤ η ω(x): see hypclip.geometry.cones.

    Args:
        eta: η > 0, the factor on the half aperture ω.
        min_radius: K of the half aperture asin(2K/√c|x|), > 0.
        strict: a point does not entail points at its very place, which are inside its cone.

    Raises:
        InputError: eta or min_radius is not positive and finite.
    """

    eta: float = 1.0
    min_radius: float = MIN_RADIUS
    strict: bool = True
    form: Literal["cone"] = "cone"

    __pydantic_config__: ClassVar[ConfigDict] = _KEYS

    def __post_init__(self) -> None:
        for name in ("eta", "min_radius"):
            value = _number(getattr(self, name), f"{name} of a cone")
            object.__setattr__(self, name, value)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} of a cone must be positive and finite, got {value}")


@dataclass(frozen=True)
class Plane:
    """y is in the half-space of x where height(x, y) ≥ threshold: see hypclip.geometry.planes.

    Args:
        threshold: √c times a signed distance; 0 is the hyperplane through x, more is stricter.
        strict: a point does not entail points at its very place, which are on its hyperplane.

    Raises:
        InputError: the threshold is not finite.
    """

    threshold: float = 0.0
    strict: bool = True
    form: Literal["plane"] = "plane"

    __pydantic_config__: ClassVar[ConfigDict] = _KEYS

    def __post_init__(self) -> None:
        value = _number(self.threshold, "threshold of a plane")
        object.__setattr__(self, "threshold", value)
        if not math.isfinite(value):
            raise InputError(f"threshold of a plane must be finite, got {value}")


Entailment = Cone | Plane


@full_precision
def pairwise_score(
    entailment: Entailment, general: Float[Tensor, "n d"], specific: Float[Tensor, "m d"], metric: Metric, curv: Curv
) -> Float[Tensor, "n m"]:
    """Return how deep each specific point lies in the region of each general one: ≥ 0 inside, in float64.

    That is η ω − φ in radians of a cone, and height − threshold, √c times a distance, of a half-space. Flat space has
    the same regions in Euclidean geometry; a product has the mean of its factors.

    Numerics: as `cones.pairwise_oxy_angle` and `planes.pairwise_height` in float64.

    Raises:
        ConfigError: the geometry is the sphere, where no point is more general than another.
    """
    x, y = general.double(), specific.double()
    if metric.geometry == "sphere":
        raise ConfigError("entailment needs another geometry than sphere, where every point has radius 1")
    if metric.geometry == "product":
        assert metric.factor_dim is not None
        parts = zip(*(product.split(z, metric.factor_dim).unbind(-2) for z in (x, y)), strict=True)
        curvs = product.curv_of_factors(as_curv(curv, x), x.shape[-1] // metric.factor_dim).unbind()
        flat = [pairwise_score(entailment, a, b, Metric(), c) for (a, b), c in zip(parts, curvs, strict=True)]
        return torch.stack(flat).mean(0)
    c = as_curv(curv, x) if metric.is_hyperbolic else x.new_ones(())
    _, norm_x, unit_x = lorentz.polar(x, c)
    _, norm_y, unit_y = lorentz.polar(y, c)
    if isinstance(entailment, Plane):
        heights = planes.pairwise_height(x, y, c) if metric.is_hyperbolic else unit_x @ y.T - norm_x
        return heights - entailment.threshold
    om = 1 - unit_x @ unit_y.T
    measure = polar.exterior_angle if metric.is_hyperbolic else polar.flat_angle
    k = entailment.min_radius if metric.is_hyperbolic else entailment.min_radius / 2
    return entailment.eta * polar.half_aperture(norm_x, k) - measure(norm_x, norm_y.T, om, 2 - om)


def _number(value: object, what: str) -> float:
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} must be a number, got {type(value).__name__} {value!r}")
    return float(value)
