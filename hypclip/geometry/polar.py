"""Polar coordinates at curvature −1: the distance of points from the origin, and the gap between their directions.

With ρ the distance of a point from the origin, s = sinh ρ the length of its space components, and g the gap |u_x − u_y|
between two directions (g²/2 = 1 − cos θ, kept from 2 downwards in full precision because it is never 1 − something):

    sinh²(d/2) = sinh²((ρ_x − ρ_y)/2) + s_x s_y g²/4
    φ(x, y) = atan2(s_y sin θ, sinh(ρ_y − ρ_x) − cosh ρ_x s_y g²/2)

Every quantity of a pair follows from three numbers, so that the passes over the coordinates are few and shared:
`norms_and_gaps` makes them for many roles and pairs at once, and the rest is arithmetic on one number per row. A
space of curvature −c equals the space of curvature −1 with points √c x, distances divided by √c and the same angles.

Numerics: the gap carries the rounding of unit vectors, eps (2 + 2.5 g), which is up to 8e-7 in float32 and 2e-15 in
float64, and is exactly 0 for equal rows; every term added is ≥ 0. Source: the hyperbolic law of cosines.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry.precision import safe_sqrt


@torch.library.custom_op(
    "hypclip::norms_and_gaps",
    mutates_args=(),
    schema="(Tensor[] rows, int[] first, int[] second, int start, int stop) -> (Tensor, Tensor)",
)
def _norms_and_gaps(
    rows: list[Tensor], first: list[int], second: list[int], start: int, stop: int
) -> tuple[Tensor, Tensor]:
    size = _size(rows)
    norms = [torch.linalg.vector_norm(x, dim=-1) for x in rows]
    units = [x[:, start:stop] * _inverse(n)[:, start:stop, :, None] for x, n in zip(rows, norms, strict=True)]
    gaps = norms[0].new_empty(len(first), size[0], stop - start, size[2])
    spare: dict[torch.Size, Tensor] = {}
    for gap, a, b in zip(gaps, first, second, strict=True):
        # Rounded units, so that equal rows have gap 0: a fused product would round one side and not the other.
        shape = max(units[a].shape, units[b].shape)
        difference = torch.sub(units[a], units[b], out=spare.setdefault(shape, units[a].new_empty(shape)))
        gap.copy_(torch.linalg.vector_norm(difference, dim=-1))
    return torch.stack([n.expand(size) for n in norms]).double(), gaps.double()


@_norms_and_gaps.register_fake
def _(rows: list[Tensor], first: list[int], second: list[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
    size = _size(rows)
    return (
        rows[0].new_empty(len(rows), *size, dtype=torch.float64),
        rows[0].new_empty(len(first), size[0], stop - start, size[2], dtype=torch.float64),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, ctx.first, ctx.second, ctx.start, ctx.stop = inputs
    ctx.save_for_backward(*rows, *output)


def _backward(ctx: Any, d_norms: Tensor, d_gaps: Tensor) -> tuple[Any, ...]:
    *rows, norms, gaps = ctx.saved_tensors
    grads = _norms_and_gaps_backward(rows, norms, gaps, d_norms, d_gaps, ctx.first, ctx.second, ctx.start)
    return grads, None, None, None, None


_norms_and_gaps.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op(
    "hypclip::norms_and_gaps_backward",
    mutates_args=(),
    schema=(
        "(Tensor[] rows, Tensor norms, Tensor gaps, Tensor d_norms, Tensor d_gaps, int[] first, int[] second, "
        "int start) -> Tensor[]"
    ),
)
def _norms_and_gaps_backward(
    rows: list[Tensor],
    norms: Tensor,
    gaps: Tensor,
    d_norms: Tensor,
    d_gaps: Tensor,
    first: list[int],
    second: list[int],
    start: int,
) -> list[Tensor]:
    """Return the gradients of the rows: each is a sum of the rows themselves with one coefficient per row."""
    local = slice(start, start + gaps.shape[2])
    inverse = _inverse(norms)
    here = inverse[:, :, local]
    slope = torch.where(gaps > 0, d_gaps / gaps, 0)
    own = d_norms * inverse
    cosine = slope * (1 - gaps.square() / 2)
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        own[a][:, local] += cosine[p] * here[a].square()
        own[b][:, local] += cosine[p] * here[b].square()
    grads = [x * _fit(own[r], x) for r, x in enumerate(rows)]
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        across = -slope[p] * here[a] * here[b]
        for to, source in ((a, b), (b, a)):
            x, out = rows[source][:, local], grads[to][:, local]
            if out.shape[2] == across.shape[2]:
                out.addcmul_(x, across.unsqueeze(-1).to(x))
            elif x.shape[2] == 1:
                out.addcmul_(x, across.sum(-1)[..., None, None].to(x))
            else:
                out += torch.linalg.vecdot(x.mT, across.unsqueeze(2).to(x)).unsqueeze(2)
    return grads


@_norms_and_gaps_backward.register_fake
def _(rows: list[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in rows]


def norms_and_gaps(
    rows: list[Float[Tensor, "factors batch _ d"]],
    pairs: list[tuple[int, int]],
    local: slice | None = None,
) -> tuple[Float[Tensor, "roles factors batch boxes"], Float[Tensor, "pairs factors local boxes"]]:
    """Return the length of every row, and of pairs of rows the gap |u_x − u_y| between their directions, in float64.

    Args:
        rows: one tensor per role. Shapes agree except in the number of boxes, which is 1 (broadcast) or the same
            everywhere.
        pairs: pairs of indices into `rows`.
        local: the slice of the batch to compute gaps for; the whole batch when absent.

    A row of length 0 has no direction: its unit vector counts as 0. Gradients at gap 0 and at length 0 are 0. The
    gradient cannot be differentiated again.
    """
    start, stop, _ = (local or slice(None)).indices(rows[0].shape[1])
    found: tuple[Tensor, Tensor] = _norms_and_gaps(rows, [a for a, _ in pairs], [b for _, b in pairs], start, stop)
    return found


def distance(sinh_x: Tensor, sinh_y: Tensor, gap: Tensor) -> Tensor:
    """Return the distance of pairs; the gradient at coincident points is 0."""
    radial = torch.sinh((torch.asinh(sinh_x) - torch.asinh(sinh_y)) / 2)
    return 2 * torch.asinh(safe_sqrt(radial.square() + sinh_x * sinh_y * gap.square() / 4))


def exterior_angle(sinh_x: Tensor, sinh_y: Tensor, om: Tensor, op: Tensor) -> Tensor:
    """Return φ(x, y) from om = 1 − cos θ and op = 1 + cos θ, each computed where it does not cancel.

    Coincident points, and any y seen from the origin, have angle 0 and gradient 0.
    """
    along = torch.sinh(torch.asinh(sinh_y) - torch.asinh(sinh_x)) - torch.sqrt(1 + sinh_x.square()) * sinh_y * om
    return _direction(along, sinh_y * safe_sqrt(om * op), sinh_x)


def height(sinh_x: Tensor, sinh_y: Tensor, om: Tensor) -> Tensor:
    """Return the signed distance of y to the hyperplane through x across its ray; 0 where x is the origin."""
    along = torch.sinh(torch.asinh(sinh_y) - torch.asinh(sinh_x)) - torch.sqrt(1 + sinh_x.square()) * sinh_y * om
    return torch.where(sinh_x > 0, torch.asinh(along), 0)


def euclidean_height(norm_x: Tensor, norm_y: Tensor, om: Tensor) -> Tensor:
    """Return the signed distance of y to the hyperplane through x across its ray in Euclidean space."""
    return torch.where(norm_x > 0, norm_y - norm_x - norm_y * om, 0)


def euclidean_distance(norm_x: Tensor, norm_y: Tensor, gap: Tensor) -> Tensor:
    """Return the Euclidean distance from the same three numbers, the limit of small radii."""
    return safe_sqrt((norm_x - norm_y).square() + norm_x * norm_y * gap.square())


def euclidean_angle(norm_x: Tensor, norm_y: Tensor, om: Tensor, op: Tensor) -> Tensor:
    """Return the Euclidean exterior angle, between y − x and x, from the same numbers."""
    return _direction(norm_y - norm_x - norm_y * om, norm_y * safe_sqrt(om * op), norm_x)


def cosh_minus_one(sinh: Tensor) -> Tensor:
    """Return cosh ρ − 1 from sinh ρ, without the subtraction."""
    squared = sinh.square()
    return squared / (1 + torch.sqrt(1 + squared))


def half_aperture(sinh: Tensor, min_radius: float) -> Tensor:
    """Return asin(min(1, 2K/s)); where the cone is a half-space, its boundary included, the gradient is 0."""
    adjacent = safe_sqrt(sinh.square() - (2 * min_radius) ** 2)
    return torch.atan2(torch.full_like(adjacent, 2 * min_radius), adjacent)


def _direction(along: Tensor, across: Tensor, norm_x: Tensor) -> Tensor:
    undefined = (along.square() + across.square() == 0) | (norm_x == 0)
    return torch.atan2(torch.where(undefined, 0, across), torch.where(undefined, 1, along))


def _size(rows: list[Tensor]) -> tuple[int, int, int]:
    factors, batch = rows[0].shape[:2]
    return factors, batch, max(x.shape[2] for x in rows)


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, 0)


def _fit(coefficient: Tensor, x: Tensor) -> Tensor:
    """Return one coefficient per row of x, summed over boxes where x has one row for all of them."""
    if x.shape[2] == 1:
        coefficient = coefficient.sum(-1, keepdim=True)
    return coefficient.unsqueeze(-1).to(x)
