"""Routes from a point to the origin or to another point: the places where a traversal looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Plane
from hypclip.geometry.precision import as_number
from hypclip.search.given import Vectors, as_vectors, as_whole
from hypclip.search.limits import sinh_threshold

MAX_STEPS = 10_000


@dataclass(frozen=True, init=False)
class Route:
    """Route from one point to another, in steps or without.

    With steps: their places are exp_0 of the straight line between the tangent vectors log_0(start) and log_0(end), at
    equal parts of it (Desai et al. 2023, arXiv:2304.09172, where the end is the origin). Without: every place of the
    geodesic. Towards the origin the two run along one line; elsewhere they differ.

    Args:
        start: space components (D,), a tensor, an array or a list, kept in float64.
        curv: c > 0.
        end: space components (D,), or None for the origin.
        steps: how many places, both ends counted; None for the geodesic.

    Raises:
        InputError: start and end have other shapes or are no numbers, or steps is not between 2 and `MAX_STEPS`.
    """

    start: Tensor
    curv: float
    end: Tensor | None
    steps: int | None

    def __init__(self, start: Vectors, curv: float, end: Vectors | None = None, steps: int | None = None):
        first = as_vectors(start, "the start of a route")
        last = None if end is None else as_vectors(end, "the end of a route")
        if first.dim() != 1 or (last is not None and last.shape != first.shape):
            and_end = "" if last is None else f" and {tuple(last.shape)}"
            raise InputError(f"the ends of a route have one shape (D,), got {tuple(first.shape)}{and_end}")
        steps = None if steps is None else as_whole(steps, "the number of steps")
        if steps is not None and not 2 <= steps <= MAX_STEPS:
            raise InputError(f"a route has 2 to {MAX_STEPS} steps, or None to go without, got {steps}")
        c = as_number(curv, "the curv of a route")
        if not (math.isfinite(c) and c > 0):
            raise InputError(f"the curv of a route must be positive and finite, got {c}")
        object.__setattr__(self, "start", first.cpu().double())
        object.__setattr__(self, "curv", c)
        object.__setattr__(self, "end", None if last is None else last.cpu().double())
        object.__setattr__(self, "steps", steps)

    @property
    def target(self) -> Float[Tensor, " d"]:
        """The end, also where it is the origin."""
        return torch.zeros_like(self.start) if self.end is None else self.end

    @property
    def straight(self) -> bool:
        """Whether every place lies on the geodesic."""
        return self.end is None or self.steps is None

    def fractions(self) -> Float[Tensor, " steps"]:
        """Return the fraction of the route at each step: 0 at the start, 1 at the end."""
        if self.steps is None:
            raise InputError("a route without steps has no fractions; ask for places at some")
        return torch.linspace(0, 1, self.steps, dtype=torch.float64)

    def places(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Return the places at fractions of the route, in float64; at 0 and 1 exactly the ends."""
        if self.steps is None:
            start, end = self.start.expand(len(t), -1), self.target.expand(len(t), -1)
            places = lorentz.geodesic(start, end, t.unsqueeze(-1), self.curv)
        else:
            ends = lorentz.log_map0(torch.stack([self.start, self.target]), self.curv)
            places = lorentz.exp_map0(torch.lerp(ends[0], ends[1], t.unsqueeze(-1)), self.curv)
        places[t == 0], places[t == 1] = self.start, self.target
        return places

    def coefficients(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Return coefficients that turn three numbers of a point into its distance from places of the route.

        With rows (a, b, z_t), −<z, x>_L = z_t x_t − a (start·x) − b (end·x): no coordinate of x is needed any more.
        """
        places = self.places(t)
        ends = torch.stack([self.start, self.target], dim=1)
        weights: Tensor = torch.linalg.lstsq(ends, places.T, driver="gelsd").solution.T
        return torch.cat([weights, lorentz.time_component(places, self.curv)], dim=1)

    def fraction_of(self, r: float) -> float:
        """Return the fraction of the geodesic where (1 − r) start + r end, time components included, points to."""
        length = math.sqrt(self.curv) * float(lorentz.dist(self.start, self.target, self.curv))
        if length < 1e-9:
            return r
        # tanh u = r sinh z/(1 − r + r cosh z), written so that nothing overflows or cancels.
        sink = math.exp(-length)
        return min(1.0, max(0.0, (length + math.log(((1 - r) * sink + r) / (1 - r + r * sink))) / (2 * length)))


def places_and_limit(route: Route, plane: Plane) -> tuple[Tensor, float]:
    """Return fractions of a route and sinh of a height: what holds any place has that height over one of these.

    Over the place ((1 − r) S + r E)/√n of a geodesic, sinh height = ((1 − r) a + r b)/√n, with those over its ends, a
    and b, and 1 ≤ √n ≤ cosh(d/2): it is not above both of these, unless all are negative, and then at most √n times
    nearer to 0. Steps that leave the geodesic are all looked at.
    """
    limit = sinh_threshold(plane.threshold)
    if not route.straight:
        return route.fractions(), limit
    if limit < 0:
        length = math.sqrt(route.curv) * float(lorentz.dist(route.start, route.target, route.curv))
        limit *= math.cosh(length / 2) * (1 + 1e-9)
    return torch.tensor([0.0, 1.0], dtype=torch.float64), limit
