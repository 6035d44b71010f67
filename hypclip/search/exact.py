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
    _, sinh_q, unit_q = lorentz.polar(of.double().unsqueeze(0), curv)
    found = []
    for block in _blocks(x):
        rho, sinh, unit = lorentz.polar(block, curv)
        gap, opposite = (torch.linalg.vector_norm(unit + sign * unit_q, dim=1, keepdim=True) for sign in (-1, 1))
        found.append((rho, sinh, gap, opposite, (block != of).any(1, keepdim=True)))
    rho, sinh, gap, opposite, apart = (torch.cat(column) for column in zip(*found, strict=True))
    return _ByCones(rho, sinh, gap, opposite, apart, sinh_q, cone, math.sqrt(curv))


def _by_planes(x: Float[Tensor, "n d"], of: Float[Tensor, " d"], plane: Plane, sqrt_c: float) -> _ByPlanes:
    q = of.double().numpy()
    sinh_q = sqrt_c * math.sqrt(float(q @ q))
    unit_q = q * (sqrt_c / sinh_q) if sinh_q > 0 else q
    found = []
    for block in _blocks(x):
        b = block.numpy()
        norms = np.sqrt(np.einsum("nd,nd->n", b, b))
        units = b / np.where(norms > 0, norms, 1)[:, None]
        ahead, opposite = units - unit_q, units + unit_q
        om, op = np.einsum("nd,nd->n", ahead, ahead) / 2, np.einsum("nd,nd->n", opposite, opposite) / 2
        found.append((sqrt_c * norms, om, op, (b != q).any(1)))
    sinh, om, op, apart = (np.concatenate(column) for column in zip(*found, strict=True))
    return _ByPlanes(sinh, om, op, apart, sinh_q, plane, sqrt_c)


def _blocks(x: Tensor) -> list[Tensor]:
    """Split into float64 blocks; one, empty, of nothing."""
    rows = max(16, _BLOCK // x.shape[1])
    if len(x) <= rows:
        return [x.double()]
    return [block.double() for block in torch.split(x, rows)]
