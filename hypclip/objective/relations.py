"""Row-wise geometry of a batch: lengths, distances of pairs, angles, apertures.

All of it follows from the length of each point and the gap between the directions of each pair, which one pass over the
coordinates finds for all roles and pairs (hypclip.geometry.polar). The rest is arithmetic on one number per row,
in float64.
Shapes: F factors (1 but for a product), B samples, N boxes (1 for whole images and captions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import entailment, polar, product
from hypclip.geometry.entailment import Entailment
from hypclip.geometry.metric import Metric
from hypclip.geometry.precision import is_readable
from hypclip.roles import Role

Pair = tuple[Role, Role]


class Relations:
    """Row-wise geometry of a batch.

    Args:
        points: role → (B, n, D), n = 1 or N.
        metric: the space.
        curv: c, one number or one per factor.
        edges: (general, specific) pairs whose angles are wanted.
        pairs: roles whose distances are wanted.
        local: the samples whose pairs are wanted; lengths are there for all.

    Raises:
        InputError: a point so far out that float32 cannot hold the distances to it.
    """

    def __init__(
        self,
        points: Mapping[Role, Tensor],
        metric: Metric,
        curv: Tensor,
        edges: Sequence[Pair],
        pairs: Sequence[Pair],
        local: slice,
    ):
        self.metric, self.local = metric, local
        self.points: dict[Role, Tensor] = {}
        """Role → (F, B, n, d)."""
        for role, x in points.items():
            if metric.geometry == "product":
                assert metric.factor_dim is not None
                self.points[role] = product.split(x, metric.factor_dim).movedim(-2, 0)
            else:
                self.points[role] = x.unsqueeze(0)
        factors = next(iter(self.points.values())).shape[0]
        self.curv = product.curv_of_factors(curv, factors) if metric.is_hyperbolic else curv.new_ones(1)
        """(F,)."""
        self.sqrt_c = self.curv.sqrt()
        self._roles = {role: place for place, role in enumerate(points)}
        related = list(edges)
        self._pairs = {frozenset(pair): place for place, pair in enumerate(related)}
        for pair in pairs:
            if frozenset(pair) not in self._pairs:
                self._pairs[frozenset(pair)] = len(related)
                related.append(pair)
        places = [(self._roles[a], self._roles[b]) for a, b in related]
        lengths, self._gaps = polar.norms_and_gaps(list(self.points.values()), places, local)
        self.norms = lengths * self.sqrt_c.view(-1, 1, 1)
        self._refuse_far()
        here = self.norms[:, :, local].unbind(0)
        self._first, self._second = (torch.stack([here[role] for role in side]) for side in zip(*places, strict=True))
        self._edges = len(edges)
        dtype = next(iter(points.values())).dtype
        spreads = polar.cosh_minus_one(self.norms) if metric.is_hyperbolic else self.norms.square()
        self._spreads = spreads.to(dtype).unbind(0)
        self._distances = self._in_metric().unbind(0)

    def distance(self, a: Role, b: Role) -> Tensor:
        """Return the distance of a pair of roles in the metric, (B', N)."""
        return self._distances[self._pairs[frozenset((a, b))]]

    def angles(self) -> Tensor:
        """Return the exterior angle of each edge at the general point, (E, F, B', N)."""
        om = self._gaps[: self._edges].square() / 2
        measure = polar.exterior_angle if self.metric.is_hyperbolic else polar.euclidean_angle
        return measure(self._first[: self._edges], self._second[: self._edges], om, 2 - om)

    def apertures(self, min_radius: float) -> Tensor:
        """Return the half aperture at the general point of each edge, (E, F, B', N); flat cones have K/|x|, not 2K."""
        return polar.half_aperture(
            self._first[: self._edges], min_radius if self.metric.is_hyperbolic else min_radius / 2
        )

    def score(self, rule: Entailment, general: Role, specific: Role) -> Tensor:
        """Return the depth of each specific point in the region of its general one, (F, B', N), ≥ 0 inside."""
        om = self._gaps[self._pairs[frozenset((general, specific))]].square() / 2
        x, y = self.lengths(general), self.lengths(specific)
        return entailment.score(rule, x, y, om, hyperbolic=self.metric.is_hyperbolic)

    def chord(self, a: Role, b: Role) -> Tensor:
        """Return the gap |u_a − u_b| between the directions of a pair, (B', N)."""
        return self._gaps[self._pairs[frozenset((a, b))]][0]

    def cosine(self, a: Role, b: Role) -> Tensor:
        """Return the cosine between the directions of a pair, (F, B', N)."""
        return 1 - self._gaps[self._pairs[frozenset((a, b))]].square() / 2

    def norms_of(self, role: Role) -> Tensor:
        """Return √c|x| of all rows, (F, B, n)."""
        return self.norms[self._roles[role]][..., : self.points[role].shape[2]]

    def radii(self, role: Role) -> Tensor:
        """Return √c · radius of all rows, (F, B, n)."""
        norms = self.norms_of(role)
        return torch.asinh(norms) if self.metric.is_hyperbolic else norms

    def lengths(self, role: Role) -> Tensor:
        """Return √c|x| of the local rows, (F, B', N)."""
        return self.norms[self._roles[role]][:, self.local]

    def spread(self, role: Role) -> Tensor:
        """Return the summand of the distance's matmul form beside −2 q·k or −q·k, (F, B, n): |x|², or cosh ρ − 1."""
        return self._spreads[self._roles[role]][..., : self.points[role].shape[2]]

    def uncertainty(self, role: Role) -> Tensor:
        """Return u = softplus(−|x|) of all rows, (B, n), |x| the length of all space components."""
        norms = self.norms[self._roles[role]][..., : self.points[role].shape[2]] / self.sqrt_c.view(-1, 1, 1)
        return torch.nn.functional.softplus(-torch.linalg.vector_norm(norms, dim=0))

    def _in_metric(self) -> Tensor:
        """Return the distances of all pairs, (P, B', N)."""
        if not self.metric.is_hyperbolic:
            d = polar.euclidean_distance(self._first, self._second, self._gaps)[:, 0]
            return d.square() if self.metric.distance == "squared" else d
        d = polar.distance(self._first, self._second, self._gaps) / self.sqrt_c.view(-1, 1, 1)
        if self.metric.geometry == "lorentz":
            return d[:, 0]
        assert self.metric.distance in ("l1", "l1_mean", "l2")
        return product.combine_distances(d.movedim(1, -1), self.metric.distance)

    def _refuse_far(self) -> None:
        if not self.metric.is_hyperbolic or not is_readable(self.norms):
            return
        float32 = next(iter(self.points.values())).dtype == torch.float32
        highest = self.norms.detach().amax((1, 2, 3))
        limit = 44.0 if float32 else 354.0  # cosh of two such radii is the largest number there is
        for role, norm in zip(self._roles, highest.tolist(), strict=True):
            x = self.points[role]
            if norm > math.sinh(limit) and bool(x.isfinite().all()):
                raise InputError(
                    f"features[{role!r}] has a point beyond √c · radius {limit:.0f}, where {x.dtype} cannot hold the "
                    "distance to another such point: scale the features down before the lift"
                )
