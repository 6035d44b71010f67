"""Exact float64 re-scoring of candidates, shared by all stores.

Indexes and engines only select candidates, from float32 coordinates; distances, radii and angles are computed here. So
stores agree, near pairs keep their digits, and d(x, x) = 0.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.geometry import lorentz, polar
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.search.types import OrderBy, Side

_BLOCK = 2**15 - 1
"""Most numbers per block, so that intermediate results stay in the cache."""
_BLOCK_IN_CACHE = 2**17
"""The same where one block of float64 is all there is."""
_NEAR = 0.9
"""Cosine from which on 1 minus it would lose digits."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have torch use one thread, in this thread, for a while.

    A search has torch work on a few hundred rows. Its square roots and cosines start the threads of MKL however few the
    numbers are, and while the threads of numpy's product still hold the other cores that takes up to 15 ms.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Measures:
    """Measures of n candidates, each a tensor (n,) in float64; the last three of searches by cones only."""

    distance: Tensor
    radius: Tensor
    angle: Tensor | None = None
    aperture: Tensor | None = None
    margin: Tensor | None = None

    def columns(self, rows: Sequence[int]) -> dict[str, list[float]]:
        """Return the measures of some candidates as lists of numbers, by name."""
        at = np.asarray(rows, np.intp)
        return {name: column.numpy()[at].tolist() for name, column in vars(self).items() if column is not None}

    def by(self, order_by: OrderBy) -> Tensor:
        """Return the column to sort by, ascending."""
        key = {"distance": self.distance, "radius": self.radius, "margin": self.margin}[order_by]
        assert key is not None
        return key


def measure(x: Float[Tensor, "n d"], query: Float[Tensor, " d"], curv: float) -> Measures:
    """Return the distances of points to a query, and their radii.

    Numerics: relative error ≤ 1e-12 up to √c r = 8 and 5e-11 at 15, for the given float32 points.
    """
    blocks = [(lorentz.dist(b, query.double().expand_as(b), curv), lorentz.radius(b, curv)) for b in _blocks(x)]
    return Measures(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def measure_cone(
    x: Float[Tensor, "n d"], of: Float[Tensor, " d"], side: Side, cone: Entailment, curv: float
) -> tuple[Measures, Tensor]:
    """Return the distances, radii and angles of points, and the mask (n,) of the ancestors or descendants.

    The margin, φ − η ω of a cone and threshold − height of a half-space, is that of the general point's: of x among
    ancestors, of the query among descendants. The half aperture of a half-space is π/2.

    Numerics: distances to 2e-14 of the unit 1/√c up to √c r = 5 and 1e-9 at 15, copies exactly 0 apart.
    """
    return seen_from(x, of, cone, curv).measures(side)


@dataclass(frozen=True)
class _ByCones:
    """What both sides of a query follow from by cones: of n points, each (n, 1), and of the query, (1, 1)."""

    rho: Tensor
    sinh: Tensor
    gap: Tensor
    opposite: Tensor
    apart: Tensor
    sinh_q: Tensor
    cone: Cone
    sqrt_c: float

    def measures(self, side: Side) -> tuple[Measures, Tensor]:
        """Return what `measure_cone` does."""
        general, specific = (self.sinh, self.sinh_q) if side == "ancestors" else (self.sinh_q, self.sinh)
        distance = torch.where(self.apart, polar.distance(self.sinh, self.sinh_q, self.gap) / self.sqrt_c, 0)
        angle = polar.exterior_angle(general, specific, self.gap.square() / 2, self.opposite.square() / 2)
        aperture = polar.half_aperture(general, self.cone.min_radius).expand_as(angle)
        margin = angle - self.cone.eta * aperture
        columns = (distance, self.rho / self.sqrt_c, angle, aperture, margin)
        inside = margin <= 0
        inside = inside & (distance > 0) if self.cone.strict else inside
        return Measures(*(column.squeeze(1) for column in columns)), inside.squeeze(1)

    def angle(self) -> Tensor:
        """Return the angles (n,) at the root between points and query; 0 where one of them is the root."""
        angle = 2 * torch.atan2(self.gap, self.opposite)
        return torch.where((self.sinh > 0) & (self.sinh_q > 0), angle, 0).squeeze(1)

    def copies(self) -> Tensor:
        """Return the mask (n,) of the points that lie where the query lies."""
        return ~self.apart.squeeze(1)


@dataclass(frozen=True)
class _ByPlanes:
    """The same by half-spaces, (n,) each, in numpy: for a few rows torch takes longer to begin than to compute.

    Every quantity follows from the two radii and the gap between the directions, as in geometry/polar.py.
    """

    sinh: NDArray[np.float64]
    om: NDArray[np.float64]
    op: NDArray[np.float64]
    apart: NDArray[np.bool_]
    sinh_q: float
    plane: Plane
    sqrt_c: float

    def measures(self, side: Side) -> tuple[Measures, Tensor]:
        """Return what `measure_cone` does."""
        sinh, om = self.sinh, self.om
        rho, rho_q = np.arcsinh(sinh), math.asinh(self.sinh_q)
        near = 2 * np.arcsinh(np.sqrt(np.sinh((rho - rho_q) / 2) ** 2 + sinh * self.sinh_q * om / 2)) / self.sqrt_c
        query = np.full_like(sinh, self.sinh_q)
        general, specific = (sinh, query) if side == "ancestors" else (query, sinh)
        outwards = rho_q - rho if side == "ancestors" else rho - rho_q
        along = np.sinh(outwards) - np.sqrt(1 + general**2) * specific * om
        # At the origin there is no ray, and copies lie on their own hyperplane.
        seen = self.apart & (general > 0)
        angle = np.where(seen, np.arctan2(specific * np.sqrt(om * self.op), along), 0)
        margin = self.plane.threshold - np.where(seen, np.arcsinh(along), 0)
        inside = margin <= 0
        if self.plane.strict:
            inside &= self.apart
        half_space = np.full_like(angle, math.pi / 2)
        found = (np.where(self.apart, near, 0), rho / self.sqrt_c, angle, half_space, margin)
        return Measures(*map(torch.from_numpy, found)), torch.from_numpy(inside)

    def angle(self) -> Tensor:
        """Return the angles (n,) at the root between points and query; 0 where one of them is the root."""
        angle = 2 * np.arctan2(np.sqrt(self.om), np.sqrt(self.op))
        return torch.from_numpy(np.where((self.sinh > 0) & (self.sinh_q > 0), angle, 0))

    def copies(self) -> Tensor:
        """Return the mask (n,) of the points that lie where the query lies."""
        return torch.from_numpy(~self.apart)


def seen_from(x: Float[Tensor, "n d"], of: Float[Tensor, " d"], cone: Entailment, curv: float) -> _ByCones | _ByPlanes:
    """Look at points from a query once, for the measures of both sides and the angles at the root."""
    if isinstance(cone, Plane):
        return _by_planes(x, of, cone, math.sqrt(curv))
    return _by_cones(x, of, cone, curv)


def _by_cones(x: Float[Tensor, "n d"], of: Float[Tensor, " d"], cone: Cone, curv: float) -> _ByCones:
    sqrt_c = math.sqrt(curv)
    norm_q, norms, om, op, apart = _directions(x, of.double().numpy())
    sinh, gap, opposite, other = (
        torch.from_numpy(column).unsqueeze(1) for column in (sqrt_c * norms, np.sqrt(2 * om), np.sqrt(2 * op), apart)
    )
    sinh_q = torch.full((1, 1), sqrt_c * norm_q, dtype=torch.float64)
    return _ByCones(torch.asinh(sinh), sinh, gap, opposite, other, sinh_q, cone, sqrt_c)


def _by_planes(x: Float[Tensor, "n d"], of: Float[Tensor, " d"], plane: Plane, sqrt_c: float) -> _ByPlanes:
    norm_q, norms, om, op, apart = _directions(x, of.double().numpy())
    return _ByPlanes(sqrt_c * norms, om, op, apart, sqrt_c * norm_q, plane, sqrt_c)


Column = NDArray[np.float64]


def _directions(x: Float[Tensor, "n d"], q: Column) -> tuple[float, Column, Column, Column, NDArray[np.bool_]]:
    """Return the norm of a query and of points, 1 − cos and 1 + cos of their angles, and which are not the query.

    Where the cosine is within 0.1 of 1 or −1, they come from the difference and the sum of the unit vectors, which lose
    no digits. Every row is computed by itself, and the query like a row, so that a point has the same bits among
    whatever others it stands, and a copy of the query lies at angle 0 of it.
    """
    n, d = x.shape
    rows = min(n, max(16, _BLOCK_IN_CACHE // d))
    norm_q = math.sqrt(float(np.einsum("nd,nd->n", q[None], q[None])[0]))
    unit_q = q / norm_q if norm_q > 0 else q
    norms, om, op, apart = np.empty(n), np.empty(n), np.empty(n), np.ones(n, np.bool_)
    room, points = np.empty((rows, d)), x.numpy()
    for start in range(0, n, max(1, rows)):
        at = slice(start, min(start + rows, n))
        block = room[: at.stop - start]
        np.copyto(block, points[at])
        norms[at] = np.sqrt(np.einsum("nd,nd->n", block, block))
        lengths = np.where(norms[at] > 0, norms[at], 1)
        cos = np.einsum("nd,d->n", block, unit_q) / lengths
        om[at], op[at] = 1 - cos, 1 + cos
        near = np.flatnonzero((np.abs(cos) > _NEAR) | (norms[at] == 0) | (norm_q == 0))
        if len(near):
            units = block[near] / lengths[near, None]
            ahead, opposite = units - unit_q, units + unit_q
            om[start + near] = np.einsum("nd,nd->n", ahead, ahead) / 2
            op[start + near] = np.einsum("nd,nd->n", opposite, opposite) / 2
            apart[start + near] = (block[near] != q).any(1)
    return norm_q, norms, om, op, apart


def _blocks(x: Tensor) -> list[Tensor]:
    """Split into float64 blocks; one, empty, of nothing."""
    rows = max(16, _BLOCK // x.shape[1])
    if len(x) <= rows:
        return [x.double()]
    return [block.double() for block in torch.split(x, rows)]
