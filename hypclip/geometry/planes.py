"""Entailment by half-spaces: the hyperplane through a point, across its ray, and the side away from the origin.

x entails y when `height(x, y) >= 0`: x is general, y is specific. The half-space of x is a cone of half aperture π/2
with its apex at x; in the Klein ball it is {k : ⟨k_x, k⟩ ≥ |k_x|²}. The further out x lies, the smaller it is, so that
the radius of a concept is the threshold of what counts as an instance.

With w_x = (cosh ρ_x u_x, −sinh ρ_x) and s_y = (sinh ρ_y u_y, cosh ρ_y), both of D + 1 components,

    sinh height(x, y) = w_x · s_y = cosh ρ_x sinh ρ_y cos θ − sinh ρ_x cosh ρ_y

one inner product per pair. Source: hyperbolic geometry; half-spaces as entailment regions are the limit of
Ganea et al. 2018 (arXiv:1804.01882) at a right angle, and the half-space shadows of Yu et al. 2023 (arXiv:2305.15215).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry import lorentz, polar
from hypclip.geometry.precision import Curv, as_curv, full_precision


@full_precision
def height(x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch"]:
    """Return √c times the signed distance of y to the hyperplane through x across its ray, row by row.

    It is positive beyond the hyperplane, ρ_y − ρ_x for a y straight behind x, and −ρ_x for the origin. x at the origin
    has no ray: every y has height 0 over it.

    Numerics: absolute error ≤ 2e-7 (1 + |height|) in float32 and 1e-14 (1 + |height|) in float64, for radii √c r up
    to 5, and e^(ρ_x + ρ_y − |height|) times the unit roundoff beyond.
    """
    c = as_curv(curv, x).double()
    _, sinh_x, unit_x = lorentz.polar(x.double(), c)
    _, sinh_y, unit_y = lorentz.polar(y.double(), c)
    om = (unit_x - unit_y).square().sum(-1, keepdim=True) / 2
    return polar.height(sinh_x, sinh_y, om).squeeze(-1).to(x.dtype)


@full_precision
def pairwise_height(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], curv: Curv) -> Float[Tensor, "n m"]:
    """Return height(x_i, y_j) for all pairs, by one matmul.

    Numerics: sinh of the height is a sum of terms up to cosh ρ_x sinh ρ_y, and carries their rounding error.
    """
    return torch.asinh(as_general(x, curv) @ as_specific(y, curv).T)


@full_precision
def as_general(x: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d+1"]:
    """Return w_x = (cosh ρ_x u_x, −sinh ρ_x): its inner product with `as_specific` of y is sinh height(x, y)."""
    rho, sinh, unit = lorentz.polar(x, as_curv(curv, x))
    return torch.cat([torch.cosh(rho) * unit, -sinh], dim=-1)


@full_precision
def as_specific(y: Float[Tensor, "*batch d"], curv: Curv) -> Float[Tensor, "*batch d+1"]:
    """Return s_y = (sinh ρ_y u_y, cosh ρ_y), which is √c times the point in the ambient space."""
    c = as_curv(curv, y)
    return torch.cat([y, lorentz.time_component(y, c)], dim=-1) * c.sqrt()
