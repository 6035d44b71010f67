"""The space and distance of a model, as one value that dispatches over the geometries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.errors import ConfigError
from hypclip.geometry import lorentz, product
from hypclip.geometry.precision import Curv, full_precision, safe_sqrt

Geometry = Literal["lorentz", "sphere", "euclidean", "product"]
Distance = Literal["geodesic", "squared", "l1", "l1_mean", "l2"]

_DISTANCES: dict[str, tuple[str, ...]] = {
    "lorentz": ("geodesic",),
    "sphere": ("geodesic",),
    "euclidean": ("geodesic", "squared"),
    "product": ("l1", "l1_mean", "l2"),
}


@dataclass(frozen=True)
class Metric:
    """A geometry and the distance that similarities are computed from.

    `lorentz` is the hyperboloid; `sphere` uses the cosine similarity; `euclidean` the distance or its square;
    `product` has hyperboloids of `factor_dim` dimensions, whose distances are combined (see hypclip.geometry.product).

    Raises:
        ConfigError: a distance that the geometry does not have, or a `factor_dim` without a product.
    """

    geometry: Geometry = "lorentz"
    distance: Distance = "geodesic"
    factor_dim: int | None = None

    def __post_init__(self) -> None:
        if self.distance not in _DISTANCES[self.geometry]:
            known = ", ".join(_DISTANCES[self.geometry])
            raise ConfigError(f"distance must be one of {known} for geometry {self.geometry}, got {self.distance!r}")
        if self.factor_dim is not None and self.factor_dim < 1:
            raise ConfigError(f"factor_dim must be at least 1, got {self.factor_dim}")
        if (self.factor_dim is not None) != (self.geometry == "product"):
            raise ConfigError(
                f"factor_dim, the dimension of one factor, belongs to geometry product and only there; "
                f"got factor_dim {self.factor_dim} with geometry {self.geometry}"
            )

    def factors(self, dim: int) -> int:
        """Return the number of factors of points with `dim` components, 1 but for a product.

        Raises:
            ConfigError: `dim` is not a multiple of `factor_dim`.
        """
        if self.factor_dim is None:
            return 1
        if dim % self.factor_dim:
            raise ConfigError(f"factor_dim {self.factor_dim} does not divide the embedding's {dim} dimensions")
        return dim // self.factor_dim

    @property
    def is_hyperbolic(self) -> bool:
        """True when the geometry has a curvature to learn."""
        return self.geometry in ("lorentz", "product")

    @property
    def has_cones(self) -> bool:
        """True when points have a radius, and so entailment cones."""
        return self.geometry != "sphere"

    def initial_log_scale(self, dim: int) -> float:
        """Return the log of the scale that gives features of unit variance an expected length of 1 in each factor."""
        return -0.5 * math.log(self.factor_dim or dim)

    @full_precision
    def lift(self, features: Float[Tensor, "*batch d"], scale: Tensor, curv: Curv) -> Float[Tensor, "*batch d"]:
        """Place tower features in the space, on the hyperboloid x = exp0(scale · features), one `scale` per factor."""
        match self.geometry:
            case "lorentz":
                return lorentz.exp_map0(features * scale, curv)
            case "sphere":
                return normalize(features, dim=-1)
            case "euclidean":
                return features * scale
            case "product":
                scaled = product.split(features, self._factor_dim) * scale.unsqueeze(-1)
                return product.exp_map0(scaled.flatten(-2), curv, self._factor_dim)

    @full_precision
    def pairwise_similarity(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv) -> Float[Tensor, "n m"]:
        """Return the unscaled logits of all pairs: minus the distance, or the cosine on the sphere."""
        match self.geometry:
            case "lorentz":
                return -lorentz.pairwise_dist(x, y, curv)
            case "sphere":
                return normalize(x, dim=-1) @ normalize(y, dim=-1).T
            case "euclidean":
                squared = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.T
                return -squared.clamp(min=0) if self.distance == "squared" else -safe_sqrt(squared)
            case "product":
                return -product.pairwise_dist(x, y, curv, self._factor_dim, self._combine)

    @full_precision
    def mean(self, x: Float[Tensor, "*batch n d"], curv: Curv) -> Float[Tensor, "*batch d"]:
        """Average n embeddings of the same item, such as a prompt ensemble: in the tangent space, or on the sphere."""
        match self.geometry:
            case "lorentz":
                return lorentz.exp_map0(lorentz.log_map0(x, curv).mean(-2), curv)
            case "sphere":
                return normalize(normalize(x, dim=-1).mean(-2), dim=-1)
            case "euclidean":
                return x.mean(-2)
            case "product":
                tangent = product.log_map0(x, curv, self._factor_dim).mean(-2)
                return product.exp_map0(tangent, curv, self._factor_dim)

    @full_precision
    def radius(self, x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
        """Return the distance to the origin; 1 on the sphere, which has none."""
        match self.geometry:
            case "lorentz":
                return lorentz.radius(x, curv)
            case "sphere" | "euclidean":
                return safe_sqrt(x.square().sum(-1))
            case "product":
                return product.radius(x, curv, self._factor_dim, self._combine)

    @property
    def _factor_dim(self) -> int:
        assert self.factor_dim is not None
        return self.factor_dim

    @property
    def _combine(self) -> product.Combine:
        assert self.distance in ("l1", "l1_mean", "l2")
        return self.distance
