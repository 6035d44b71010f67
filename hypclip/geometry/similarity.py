"""The similarity a model is trained and evaluated with: one match over the geometry."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.geometry import lorentz
from hypclip.geometry._precision import Curv, full_precision

Geometry = Literal["lorentz", "sphere"]


@full_precision
def pairwise_similarity(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv, geometry: Geometry
) -> Float[Tensor, "n m"]:
    """Return what the logits are made of: −d(x_i, y_j) on the hyperboloid, the cosine on the sphere."""
    match geometry:
        case "lorentz":
            return -lorentz.pairwise_dist(x, y, curv)
        case "sphere":
            return normalize(x, dim=-1) @ normalize(y, dim=-1).T


@full_precision
def mean_point(x: Float[Tensor, "*batch n d"], curv: Curv, geometry: Geometry) -> Float[Tensor, "*batch d"]:
    """Average n embeddings of one thing, such as a prompt ensemble: in the tangent space, or on the sphere."""
    match geometry:
        case "lorentz":
            return lorentz.exp_map0(lorentz.log_map0(x, curv).mean(-2), curv)
        case "sphere":
            return normalize(normalize(x, dim=-1).mean(-2), dim=-1)


@full_precision
def lift(
    features: Float[Tensor, "*batch d"], scale: Tensor, curv: Curv, geometry: Geometry
) -> Float[Tensor, "*batch d"]:
    """Place tower features in the space: x = exp0(scale · features), or features of length 1."""
    match geometry:
        case "lorentz":
            return lorentz.exp_map0(features * scale, curv)
        case "sphere":
            return normalize(features, dim=-1)
