"""What decides in every store: distances, radii and angles of stored float32 points, in float64 from their coordinates.

Indexes and engines only name candidates. So stores agree, near pairs keep their digits, and d(x, x) = 0.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry import lorentz, polar
from hypclip.geometry.entailment import Cone
from hypclip.search.store import Order, Side

_BLOCK = 2**15 - 1
"""Most numbers at a time, so that what is made of them stays in the cache."""


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
    """What is known of n candidates, each a tensor (n,) in float64. The last three are there for cones only."""

    distance: Tensor
    radius: Tensor
    angle: Tensor | None = None
    aperture: Tensor | None = None
    margin: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> Measures:
        """Return those of some candidates."""
        cone = (None if column is None else column[rows] for column in (self.angle, self.aperture, self.margin))
        return Measures(self.distance[rows], self.radius[rows], *cone)

    def columns(self) -> dict[str, list[float]]:
        """Return what there is as numbers, by name."""
        return {name: column.tolist() for name, column in vars(self).items() if column is not None}

    def by(self, order: Order) -> Tensor:
        """Return what to sort by, ascending."""
        key = {"distance": self.distance, "radius": self.radius, "margin": self.margin}[order]
        assert key is not None
        return key


def measure(x: Float[Tensor, "n d"], query: Float[Tensor, " d"], curv: float) -> Measures:
    """Return the distances of points to a query, and their radii.

    Numerics: relative error ≤ 1e-12 up to √c r = 8 and 5e-11 at 15, for the given float32 points.
    """
    blocks = [(lorentz.dist(b, query.double().expand_as(b), curv), lorentz.radius(b, curv)) for b in _blocks(x)]
    return Measures(*(torch.cat(column) for column in zip(*blocks, strict=True)))


def measure_cone(
    x: Float[Tensor, "n d"], of: Float[Tensor, " d"], side: Side, cone: Cone, curv: float
) -> tuple[Measures, Tensor]:
    """Return the distances, radii and angles of points, and which of them are ancestors or descendants: a mask (n,).

    The margin φ − η ω is that of the general point's cone: of x among ancestors, of the query among descendants.

    Numerics: distances to 2e-14 of the unit 1/√c up to √c r = 5 and 1e-9 at 15, copies exactly 0 apart.
    """
    root = math.sqrt(curv)
    _, sinh_q, unit_q = lorentz.polar(of.double().unsqueeze(0), curv)
    found = []
    for block in _blocks(x):
        rho, sinh, unit = lorentz.polar(block, curv)
        general, specific = (sinh, sinh_q) if side == "ancestors" else (sinh_q, sinh)
        gap, opposite = (torch.linalg.vector_norm(unit + sign * unit_q, dim=1, keepdim=True) for sign in (-1, 1))
        apart = (block != of).any(1, keepdim=True)
        distance = torch.where(apart, polar.distance(sinh, sinh_q, gap) / root, 0)
        angle = polar.exterior_angle(general, specific, gap.square() / 2, opposite.square() / 2)
        aperture = polar.half_aperture(general, cone.min_radius).expand_as(angle)
        found.append((distance, rho / root, angle, aperture, angle - cone.eta * aperture))
    measures = Measures(*(torch.cat(column).squeeze(1) for column in zip(*found, strict=True)))
    assert measures.margin is not None
    inside = measures.margin <= 0
    return measures, inside & (measures.distance > 0) if cone.strict else inside


def _blocks(x: Tensor) -> list[Tensor]:
    """Split into float64 blocks; one, empty, of nothing."""
    rows = max(16, _BLOCK // x.shape[1])
    return [block.double() for block in torch.split(x, rows)] if len(x) else [x.double()]
