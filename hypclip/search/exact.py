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
from hypclip.geometry.entailment import Entailment, Plane
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
    if isinstance(cone, Plane):
        return _measure_plane(x, of, side, cone, curv)
    sqrt_c = math.sqrt(curv)
    _, sinh_q, unit_q = lorentz.polar(of.double().unsqueeze(0), curv)
    found = []
    for block in _blocks(x):
        rho, sinh, unit = lorentz.polar(block, curv)
        general, specific = (sinh, sinh_q) if side == "ancestors" else (sinh_q, sinh)
        gap, opposite = (torch.linalg.vector_norm(unit + sign * unit_q, dim=1, keepdim=True) for sign in (-1, 1))
        apart = (block != of).any(1, keepdim=True)
        distance = torch.where(apart, polar.distance(sinh, sinh_q, gap) / sqrt_c, 0)
        angle = polar.exterior_angle(general, specific, gap.square() / 2, opposite.square() / 2)
        aperture = polar.half_aperture(general, cone.min_radius).expand_as(angle)
        found.append((distance, rho / sqrt_c, angle, aperture, angle - cone.eta * aperture))
    measures = Measures(*(torch.cat(column).squeeze(1) for column in zip(*found, strict=True)))
    assert measures.margin is not None
    inside = measures.margin <= 0
    return measures, inside & (measures.distance > 0) if cone.strict else inside


def _measure_plane(
    x: Float[Tensor, "n d"], of: Float[Tensor, " d"], side: Side, plane: Plane, curv: float
) -> tuple[Measures, Tensor]:
    """Return the same of half-spaces, in numpy: for a few rows torch takes longer to begin than to compute.

    Every quantity follows from the two radii and the gap between the directions, as in geometry/polar.py.
    """
    sqrt_c, q = math.sqrt(curv), of.double().numpy()
    sinh_q = sqrt_c * math.sqrt(float(q @ q))
    unit_q = q * (sqrt_c / sinh_q) if sinh_q > 0 else q
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for block in _blocks(x):
        b = block.numpy()
        norms = np.sqrt(np.einsum("nd,nd->n", b, b))
        sinh = sqrt_c * norms
        units = b / np.where(norms > 0, norms, 1)[:, None]
        ahead, opposite = units - unit_q, units + unit_q
        om, op = np.einsum("nd,nd->n", ahead, ahead) / 2, np.einsum("nd,nd->n", opposite, opposite) / 2
        apart = (b != q).any(1)
        columns.append((sinh, om, op, apart))
    sinh, om, op, apart = (np.concatenate(column) for column in zip(*columns, strict=True))
    rho, rho_q = np.arcsinh(sinh), math.asinh(sinh_q)
    near = 2 * np.arcsinh(np.sqrt(np.sinh((rho - rho_q) / 2) ** 2 + sinh * sinh_q * om / 2)) / sqrt_c
    general, specific = (
        (sinh, np.full_like(sinh, sinh_q)) if side == "ancestors" else (np.full_like(sinh, sinh_q), sinh)
    )
    outwards = rho_q - rho if side == "ancestors" else rho - rho_q
    along = np.sinh(outwards) - np.sqrt(1 + general**2) * specific * om
    # At the origin there is no ray, and copies lie on their own hyperplane.
    seen = apart & (general > 0)
    angle = np.where(seen, np.arctan2(specific * np.sqrt(om * op), along), 0)
    margin = plane.threshold - np.where(seen, np.arcsinh(along), 0)
    inside = margin <= 0
    if plane.strict:
        inside &= apart
    found = (np.where(apart, near, 0), rho / sqrt_c, angle, np.full_like(angle, math.pi / 2), margin)
    return Measures(*map(torch.from_numpy, found)), torch.from_numpy(inside)


def _blocks(x: Tensor) -> list[Tensor]:
    """Split into float64 blocks; one, empty, of nothing."""
    rows = max(16, _BLOCK // x.shape[1])
    if len(x) <= rows:
        return [x.double()]
    return [block.double() for block in torch.split(x, rows)]
