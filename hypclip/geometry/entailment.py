"""Entailment rules: a general point entails the points in its cone, or in the half-space beyond it.

A model is trained with one of the two rules. The rule is part of the model's config, and evaluation, search and server
read it from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from torch import Tensor

from hypclip.errors import ConfigError, InputError
from hypclip.geometry import lorentz, planes, polar, product
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.metric import Metric
from hypclip.geometry.precision import Curv, as_curv, as_number, full_precision

_KEYS = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Cone:
    """y is in the cone of x where φ(x, y) ≤ η ω(x): see hypclip.geometry.cones.

    Args:
        eta: η > 0, the factor on the half aperture ω.
        min_radius: K of the half aperture asin(2K/√c|x|), > 0.
        strict: a point does not entail points equal to it, which are inside its cone.
        form: what tells this rule from the other one.

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
            value = as_number(getattr(self, name), f"{name} of a cone")
            object.__setattr__(self, name, value)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} of a cone must be positive and finite, got {value}")


@dataclass(frozen=True)
class Plane:
    """y is in the half-space of x where height(x, y) ≥ threshold: see hypclip.geometry.planes.

    Args:
        threshold: √c times a signed distance; 0 is the hyperplane through x, more is stricter.
        strict: a point does not entail points equal to it, which are on its hyperplane.
        form: what tells this rule from the other one.

    Raises:
        InputError: the threshold is not finite.
    """

    threshold: float = 0.0
    strict: bool = True
    form: Literal["plane"] = "plane"

    __pydantic_config__: ClassVar[ConfigDict] = _KEYS

    def __post_init__(self) -> None:
        value = as_number(self.threshold, "threshold of a plane")
        object.__setattr__(self, "threshold", value)
        if not math.isfinite(value):
            raise InputError(f"threshold of a plane must be finite, got {value}")


Entailment = Cone | Plane


def score(entailment: Entailment, general: Tensor, specific: Tensor, om: Tensor, *, hyperbolic: bool) -> Tensor:
    """Score the depth of specific points in the regions of general ones, ≥ 0 inside; see `pairwise_score`.

    Args:
        entailment: the rule.
        general: sinh ρ of the general points, in flat space |x|.
        specific: sinh ρ of the specific points, in flat space |y|.
        om: 1 − cos θ of their directions.
        hyperbolic: whether the space is hyperbolic rather than flat.
    """
    if isinstance(entailment, Plane):
        height = polar.height if hyperbolic else polar.euclidean_height
        return height(general, specific, om) - entailment.threshold
    angle = polar.exterior_angle if hyperbolic else polar.euclidean_angle
    return half_aperture(entailment, general, hyperbolic) * entailment.eta - angle(general, specific, om, 2 - om)


def half_aperture(cone: Cone, general: Tensor, hyperbolic: bool) -> Tensor:
    """Return ω of cones from sinh ρ of their apexes; in flat space from |x|, with K/|x| in place of 2K/sinh ρ."""
    return polar.half_aperture(general, cone.min_radius if hyperbolic else cone.min_radius / 2)


@full_precision
def pairwise_score(
    entailment: Entailment,
    general: Float[Tensor, "n d"],
    specific: Float[Tensor, "m d"],
    metric: Metric,
    curv: Curv,
    equal: Bool[Tensor, "n m"] | None = None,
) -> Float[Tensor, "n m"]:
    """Score the depth of each specific point in the region of each general one: ≥ 0 inside.

    The score is η ω − φ in radians for a cone, and height − threshold, √c times a distance, for a half-space.
    Flat space has the same regions in Euclidean geometry; a product has the mean score of its factors. A point lies in
    its own cone, at angle 0.

    Numerics: as `cones.pairwise_oxy_angle` and `planes.pairwise_height`, in the dtype of the points.

    Args:
        entailment: the rule.
        general: space components (N, D).
        specific: space components (M, D).
        metric: the space.
        curv: c > 0; one per factor of a product.
        equal: `coincident(general, specific)`, where the caller has it.

    Raises:
        ConfigError: the geometry is the sphere, where no point is more general than another.
    """
    if metric.geometry == "sphere":
        raise ConfigError("entailment needs another geometry than sphere, where every point has radius 1")
    if metric.geometry == "product":
        assert metric.factor_dim is not None
        parts = zip(*(product.split(z, metric.factor_dim).unbind(-2) for z in (general, specific)), strict=True)
        curvs = product.curv_of_factors(as_curv(curv, general), general.shape[-1] // metric.factor_dim).unbind()
        scores = [pairwise_score(entailment, x, y, Metric(), c) for (x, y), c in zip(parts, curvs, strict=True)]
        return torch.stack(scores).mean(0)
    if metric.is_hyperbolic and isinstance(entailment, Plane):  # one matmul, and no sinh of any pair
        return planes.pairwise_height(general, specific, curv) - entailment.threshold
    c = as_curv(curv, general) if metric.is_hyperbolic else general.new_ones(())
    _, norm_x, unit_x = lorentz.polar(general, c)
    _, norm_y, unit_y = lorentz.polar(specific, c)
    om = 1 - unit_x @ unit_y.T
    # The angle at the apex itself is 0, which rounding in the product would leave open; a height there is 0 either way.
    if isinstance(entailment, Cone):
        om = om.masked_fill(coincident(general, specific) if equal is None else equal, 0)
    return score(entailment, norm_x, norm_y.T, om, hyperbolic=metric.is_hyperbolic)


def coincident(general: Float[Tensor, "n d"], specific: Float[Tensor, "m d"]) -> Bool[Tensor, "n m"]:
    """Mark pairs of equal points, which a strict rule excludes, without an n × m × d comparison."""
    index = torch.unique(torch.cat([general, specific]), dim=0, return_inverse=True)[1]
    same: Tensor = index[: len(general), None] == index[len(general) :]
    return same
