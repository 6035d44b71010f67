"""What an objective needs of a batch row by row: lengths, distances of pairs, angles, apertures.

All of it follows from the length of each point and the gap between the directions of each pair, which one pass over the
coordinates finds for all roles and pairs (hypclip.geometry.polar). The rest is arithmetic on one number a row, in
float64.
Shapes: F factors (1 but for a product), B samples, N boxes (1 for whole images and captions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import polar, product
from hypclip.geometry.metric import Metric
from hypclip.roles import Role

Pair = tuple[Role, Role]


class Relations:
    """Row-wise geometry of a batch.

    Args:
        points: role → (B, n, D), n = 1 or N.
        metric: the space.
        curv: c, one number or one a factor.
        pairs: which roles are to be related; the order within a pair makes no difference.
        local: the samples whose pairs are wanted; lengths are there for all.

    Raises:
        InputError: a point so far out that float32 cannot hold the distances to it.
    """

    def __init__(
        self, points: Mapping[Role, Tensor], metric: Metric, curv: Tensor, pairs: Sequence[Pair], local: slice
    ):
        self.metric, self.local = metric, local
        self.points: dict[Role, Tensor] = {}
        """Role → (F, B, n, d) at curvature −1."""
        for role, x in points.items():
            match metric.geometry:
                case "product":
                    assert metric.factor_dim is not None
                    scaled, self.root = product.unit_curvature(x, curv, metric.factor_dim)
                    self.points[role] = scaled.movedim(-2, 0)
                case "lorentz":
                    self.root = curv.sqrt()
                    self.points[role] = (x * self.root).unsqueeze(0)
                case _:
                    self.root = torch.ones_like(curv)
                    self.points[role] = x.unsqueeze(0)
        self._roles = {role: place for place, role in enumerate(points)}
        self._pairs = {frozenset(pair): place for place, pair in enumerate(pairs)}
        places = [(self._roles[a], self._roles[b]) for a, b in pairs]
        self.norms, self.gaps = polar.norms_and_gaps(list(self.points.values()), places, local)
        self._refuse_far()
        here = self.norms[:, :, local]
        first, second = (torch.tensor(side, device=here.device) for side in zip(*places, strict=True))
        norm_a, norm_b = here.index_select(0, first), here.index_select(0, second)
        measure = polar.distance if metric.is_hyperbolic else polar.flat_distance
        self._distances = measure(norm_a, norm_b, self.gaps)
        self._om = self.gaps.square() / 2

    def distance(self, a: Role, b: Role) -> Tensor:
        """Return the distance of a pair of roles in the metric, (B', N)."""
        d = self._distances[self._pairs[frozenset((a, b))]]
        if self.metric.is_hyperbolic:
            d = d / self.root.view(-1, 1, 1)
        if self.metric.geometry == "product":
            assert self.metric.distance in ("l1", "l1_mean", "l2")
            return product.combine_distances(d.movedim(0, -1), self.metric.distance)
        return d[0].square() if self.metric.distance == "squared" else d[0]

    def angles(self, edges: Sequence[Pair]) -> Tensor:
        """Return the exterior angle of each (general, specific) pair at the general point, (E, F, B', N)."""
        general, specific = zip(*edges, strict=True)
        om = self._om[[self._pairs[frozenset(edge)] for edge in edges]]
        measure = polar.exterior_angle if self.metric.is_hyperbolic else polar.flat_angle
        return measure(self.lengths(general), self.lengths(specific), om, 2 - om)

    def apertures(self, roles: Sequence[Role], min_radius: float) -> Tensor:
        """Return the half apertures of the cones, (R, F, B', N); flat cones have K/|x| for 2K/(√c|x|)."""
        return polar.half_aperture(self.lengths(roles), min_radius if self.metric.is_hyperbolic else min_radius / 2)

    def lengths(self, roles: Sequence[Role]) -> Tensor:
        """Return √c|x| of the local rows, (R, F, B', N)."""
        return self.norms[[self._roles[role] for role in roles]][:, :, self.local]

    def spread(self, role: Role) -> Tensor:
        """Return what the matmul form of the distance adds to −2 q·k or −q·k, (F, B, n): |x|², or cosh ρ − 1."""
        norms = self.norms[self._roles[role]][..., : self.points[role].shape[2]]
        return polar.cosh_minus_one(norms) if self.metric.is_hyperbolic else norms.square()

    def uncertainty(self, role: Role) -> Tensor:
        """Return u = softplus(−|x|) of all rows, (B, n), |x| the length of all space components."""
        norms = self.norms[self._roles[role]][..., : self.points[role].shape[2]] / self.root.view(-1, 1, 1)
        return torch.nn.functional.softplus(-torch.linalg.vector_norm(norms, dim=0))

    def _refuse_far(self) -> None:
        if not self.metric.is_hyperbolic or torch.compiler.is_compiling():
            return
        float32 = next(iter(self.points.values())).dtype == torch.float32
        highest = self.norms.detach().amax((1, 2, 3))
        limit = 44.0 if float32 else 354.0  # cosh of two such radii is the largest number there is
        for role, norm in zip(self._roles, highest.tolist(), strict=True):
            x = self.points[role]
            if norm > torch.tensor(limit, dtype=torch.float64).sinh().item() and bool(x.isfinite().all()):
                raise InputError(
                    f"features[{role!r}] has a point beyond √c · radius {limit:.0f}, where {x.dtype} cannot hold the "
                    "distance to another such point: scale the features down before the lift"
                )
