"""Logistic loss of points that lie in a region they should not, over all pairs of a batch, block by block.

For a general point i and every specific point j that it does not entail, softplus(scale · score_ij), the score being
how deep j lies in the region of i (see hypclip.geometry.entailment):

    plane        asinh(w_i · s_j) + offset_i      rows w = (cosh ρ u, −sinh ρ) and s = (sinh ρ u, cosh ρ)
    flat_plane   w_i · s_j + offset_i             rows w = (u, −|x|) and s = (x, 1)
    cone         offset_i − φ_ij                  rows are directions u, and φ follows from cos θ and both radii ρ
    flat_cone    the same in flat space, where a radius is |x|

No n × m matrix is kept, neither forward nor backward: each block of rows finds its scores, the gradient with respect to
them, and the products of that with the rows at once; the backward pass multiplies these by the incoming scalar.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hypclip.objective.blockwise import Bars, block_sizes

Form = Literal["plane", "flat_plane", "cone", "flat_cone"]


def outside(
    general: Tensor,
    specific: Tensor,
    *,
    form: Form,
    offset: Tensor,
    scale: Tensor,
    weight: Tensor,
    target: Tensor,
    bars: Bars,
    places: Tensor,
    general_radius: Tensor | None = None,
    specific_radius: Tensor | None = None,
) -> Tensor:
    """Return Σ_i weight_i · mean_j softplus(scale · score_ij), j over what i does not entail; differentiable once.

    Args:
        general: n rows, see the module.
        specific: m rows of as many columns.
        form: see the module.
        offset: (n,) added to the score: the half aperture times η, or minus the threshold.
        scale: 0-dim, positive.
        weight: (n,), what the mean of each row counts; a row without any j counts nothing.
        target: (n,) int64, the specific point that i does entail.
        bars: which others it entails, or which are not there; see `Bars`.
        places: (m,) int64, the number by which `target` names each specific point.
        general_radius: (n,) of cones.
        specific_radius: (m,) of cones.
    """
    none = general.new_empty(0)
    x = none if general_radius is None else general_radius
    y = none if specific_radius is None else specific_radius
    gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (general, specific, x, y, offset, scale))
    value, *_ = _outside(
        general.contiguous(), specific.contiguous(), x, y, offset, scale, weight, target, places, *bars, form, gradient
    )
    total: Tensor = value
    return total


_SCHEMA = (
    "(Tensor general, Tensor specific, Tensor general_radius, Tensor specific_radius, Tensor offset, Tensor scale, "
    "Tensor weight, Tensor target, Tensor places, Tensor query_ids, Tensor key_ids, Tensor absent, "
    "Tensor absent_query, str form, bool gradient) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("hypclip::outside", mutates_args=(), schema=_SCHEMA)
def _outside(
    general: Tensor,
    specific: Tensor,
    general_radius: Tensor,
    specific_radius: Tensor,
    offset: Tensor,
    scale: Tensor,
    weight: Tensor,
    target: Tensor,
    places: Tensor,
    query_ids: Tensor,
    key_ids: Tensor,
    absent: Tensor,
    absent_query: Tensor,
    form: str,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the value, and its gradients with respect to the first six arguments."""
    found = [torch.zeros_like(part) for part in (general, specific, general_radius, specific_radius, offset, scale)]
    d_general, d_specific, d_x, d_y, d_offset, d_scale = found
    value = torch.zeros_like(scale)
    n, m = len(general), len(specific)
    rows = max(1, min(n, block_sizes(general.device)[1] // m))
    bars = Bars(query_ids, key_ids, absent, absent_query)
    for a in range(0, n, rows):
        b = min(a + rows, n)
        product = general[a:b] @ specific.T
        entailed = _entailed(bars, target, places, a, b)
        share = weight[a:b] / (m - entailed.sum(1)).clamp(min=1)
        if form in ("cone", "flat_cone"):
            parts: tuple[Tensor, Tensor, Tensor] | None
            score, parts = _angle(product, general_radius[a:b, None], specific_radius, form == "flat_cone")
        else:
            score = torch.asinh(product) if form == "plane" else product
            parts = None
        score = score + offset[a:b, None]
        deep = (score * scale).masked_fill_(entailed, -torch.inf)
        value += torch.dot(share, torch.nn.functional.softplus(deep).sum(1))
        if not gradient:
            continue
        slope = torch.sigmoid(deep).mul_(share[:, None])  # with respect to scale · score
        d_scale += (slope * score).sum()
        slope = slope * scale
        d_offset[a:b] = slope.sum(1)
        if parts is not None:
            by_cos, by_x, by_y = parts
            d_x[a:b] = (slope * by_x).sum(1)
            d_y += (slope * by_y).sum(0)
            slope = slope * by_cos
        elif form == "plane":
            slope = slope / torch.sqrt(1 + product.square())
        d_general[a:b] = slope @ specific
        d_specific += slope.T @ general[a:b]
    return value, d_general, d_specific, d_x, d_y, d_offset, d_scale


def _entailed(bars: Bars, target: Tensor, places: Tensor, a: int, b: int) -> Tensor:
    """Return a mask of the specific points that are no negatives of rows a to b."""
    barred = target[a:b].unsqueeze(1) == places
    for query_id, key_id in zip(bars.query_ids, bars.key_ids, strict=True):
        barred |= query_id[a:b].unsqueeze(1) == key_id
    if bars.absent.numel():
        barred |= bars.absent
    if bars.absent_query.numel():
        barred |= bars.absent_query[a:b].unsqueeze(1)
    return barred


def _angle(cos: Tensor, x: Tensor, y: Tensor, flat: bool) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return −φ of each pair from cos θ and the radii, and its derivatives by cos θ, x and y."""
    cos = cos.clamp(-1, 1)
    om = 1 - cos
    sin = torch.sqrt(om * (1 + cos))
    if flat:
        along, across = y * cos - x, y * sin
        p_cos, p_x, p_y, r_y, length = y, torch.full_like(x, -1.0), cos, sin, y
    else:
        sinh_y, cosh_y, sinh_x, cosh_x = torch.sinh(y), torch.cosh(y), torch.sinh(x), torch.cosh(x)
        along, across = torch.sinh(y - x) - cosh_x * sinh_y * om, sinh_y * sin
        turn = torch.cosh(y - x)
        p_cos, p_x, p_y = cosh_x * sinh_y, -turn - sinh_x * sinh_y * om, turn - cosh_x * cosh_y * om
        r_y, length = cosh_y * sin, sinh_y
    squared = along.square() + across.square()
    inverse = torch.where(squared > 0, 1 / squared, 0)
    # sin θ has an infinite slope where directions meet: there, the angle does not turn with cos θ.
    r_cos = torch.where(sin > 1e-4, -length * cos / sin, 0)
    by = (
        along.mul(r_cos).sub_(across * p_cos).mul_(-inverse),
        across.mul(p_x).mul_(inverse),
        along.mul(r_y).sub_(across * p_y).mul_(-inverse),
    )
    return -torch.atan2(across, along), by


@_outside.register_fake
def _(general: Tensor, specific: Tensor, x: Tensor, y: Tensor, offset: Tensor, scale: Tensor, *_: Any) -> Any:
    return torch.empty_like(scale), *(torch.empty_like(part) for part in (general, specific, x, y, offset, scale))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _multiply(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Any, ...]:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling() and type(upstream) is Tensor:
        raise NotImplementedError("the gradient of outside cannot be differentiated again")
    return *(upstream * part for part in ctx.saved_tensors), *[None] * 9


_outside.register_autograd(_multiply, setup_context=_keep)
