"""Gromov δ-hyperbolicity: the distance of a metric from tree metrics, reported beside Gaussian nulls of the same n.

The Gromov product at a base point w is A_ij = ½(d(i, w) + d(j, w) − d(i, j)), and δ = max((A ⊗ A) − A) with
(A ⊗ A)_ij = max_k min(A_ik, A_kj). It is 0 exactly for the metrics of trees. Relative δ = 2δ/diameter lies in [0, 1].

A relative δ of an embedding says little alone. Distances in many dimensions concentrate, which makes δ small with no
tree anywhere: i.i.d. Gaussian noise scores .43 in R^8, .34 in R^64 and .18 in R^512 (1,500 points). So a report of an
embedding holds its nulls, and only what lies below the null of the same covariance speaks for a tree. No curvature
follows from δ: it would follow from the dimension.

Source: Khrulkov et al. 2020, arXiv:1904.02239, for relative δ of features; Fournier et al. 2015, arXiv:1210.3323, for
the product, and for the theorem that another base point changes δ by at most a factor 2.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.analysis._check_matrix import checked_distances, first
from hypclip.geometry.precision import Curv, full_precision

MetricName = Literal["euclidean", "angle", "lorentz"]
DistanceFunction = Callable[[Tensor], Tensor]
"""Maps points (n, d) to their distances (n, n)."""

_CHUNK = 128
"""Rows compared at once: 128 rows of 1,500 float64 numbers stay in the cache of a core."""


@dataclass(frozen=True)
class Spread:
    """Relative δ of every base point of every draw."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """The sample standard deviation of the values, NaN for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}"


@dataclass(frozen=True, kw_only=True)
class Hyperbolicity:
    """Relative δ of sub-samples beside its nulls, with all settings needed to compute it again."""

    relative_delta: Spread
    matched_null: Spread | None = None
    """A Gaussian with the mean and covariance of a sub-sample; absent without a named metric."""
    iid_null: Spread | None = None
    """An isotropic Gaussian around 0 with the mean squared length of all points; absent without a named metric."""
    effective_dim: float | None = None
    """Participation ratio (Σλ)²/Σλ² of the eigenvalues of the covariance; absent without points."""
    dim: int | None = None
    metric: str
    curv: float | None = None
    n: int
    """Points per draw; δ grows with it."""
    total: int
    """Points that the draws are taken from."""
    draws: int
    base_points: int
    replacement: bool
    seed: int

    def __str__(self) -> str:
        return (
            f"relative δ {self.relative_delta}, Gaussian of the same covariance {self.matched_null or 'absent'}, "
            f"i.i.d. Gaussian {self.iid_null or 'absent'}; metric {self.metric}"
            + ("" if self.curv is None else f" with curv {self.curv:g}")
            + ("" if self.effective_dim is None else f", effective dimension {self.effective_dim:.1f} of {self.dim}")
            + f", n {self.n} of {self.total}{' with replacement' if self.replacement else ''}, "
            f"{self.draws} draws × {self.base_points} base points, seed {self.seed}"
        )


def delta(distances: Float[Tensor, "n n"], base: int = 0) -> float:
    """Return δ = max((A ⊗ A) − A) of a metric at a base point, exactly, in O(n²) memory.

    The largest δ over the base points is the δ of the four-point condition, and no base point gives less than half.

    Raises:
        InputError: not a distance matrix of 4 or more points, or no such base point.

    Numerics: float64 inside; the error of three additions, ≤ 1e-15 diameter. Sums of integers are exact,
    so that a tree of integer lengths gives exactly 0.
    """
    return _delta(_checked(distances, base), base)


def relative_delta(distances: Float[Tensor, "n n"], base: int = 0) -> float:
    """Return 2δ/diameter of a metric at a base point, in [0, 1]; see `delta`.

    Raises:
        InputError: as `delta`, or all points coincide.

    Numerics: error ≤ 2e-15.
    """
    return _relative_delta(_checked(distances, base), base)


@full_precision
def hyperbolicity(
    points: Float[Tensor, "n d"],
    metric: MetricName | DistanceFunction = "euclidean",
    *,
    curv: Curv | None = None,
    sample_size: int = 1000,
    draws: int = 5,
    base_points: int = 3,
    null_draws: int = 5,
    replacement: bool = False,
    seed: int | torch.Generator = 0,
) -> Hyperbolicity:
    """Report relative δ of an embedding: several sub-samples, several base points each, beside two Gaussian nulls.

    The nulls are drawn where a Gaussian makes sense, and measured with the same metric, n and number of base points:
    "euclidean" among the points, "angle" among their directions x/|x|, "lorentz" in the tangent space at the origin.
    A draw of the matched null has exactly the mean and covariance of a sub-sample, so that Gaussian points score as
    their null does, for any n and d. Drawing from an estimated covariance instead would put the null too high, and see
    trees in noise: at .165 for 1,000 i.i.d. Gaussian points in R^1280, which score .118. Under "lorentz" the null is
    hyperbolic too: the report then speaks of the arrangement of the points, not of the space.

    Args:
        points: the embeddings; space components for "lorentz".
        metric: a name, or a function of a sub-sample, which has no nulls.
        curv: c > 0, for "lorentz" only.
        sample_size: points per sub-sample, all of them when there are fewer. Values of different sizes do not compare.
        draws: sub-samples.
        base_points: base points of each draw, chosen at random.
        null_draws: draws of each null.
        replacement: draw points that may repeat, as the public code of the source does. Repeats only make the sample
            smaller.
        seed: a number, or a generator in its initial state.

    Raises:
        InputError: fewer than 4 points, points that are not finite, points that all coincide, a zero vector under
            "angle", `curv` missing or out of place, or a count below 1.

    Numerics: float64 inside. Euclidean distances and angles are right to 1e-7 of the largest; for "lorentz" see
    `lorentz.pairwise_dist`.
    """
    if isinstance(metric, str) and metric not in get_args(MetricName):
        raise InputError(f"metric must be one of {', '.join(get_args(MetricName))} or a function, got {metric!r}")
    if (metric == "lorentz") == (curv is None):
        raise InputError(f"metric lorentz needs curv, and no other takes one; got metric {metric!r} and curv {curv}")
    if where := first(~points.isfinite()):
        raise InputError(f"points must be finite, got {points[where]} at {where}")
    if metric == "angle" and (where := first(~points.any(-1))):
        raise InputError(f"metric angle needs directions, but point {where[0]} is 0")
    _check_counts(len(points), sample_size, draws=draws, base_points=base_points, null_draws=null_draws)
    generator = _generator(seed)
    n = sample_size if replacement else min(sample_size, len(points))
    points = points.detach().double()
    curv = None if curv is None else float(curv)
    vectors = points if callable(metric) else _vectors(points, metric, curv)
    measure = metric if callable(metric) else partial(_pairwise, metric=metric, curv=curv)

    def sample() -> Tensor:
        return vectors[_indices(len(points), n, replacement, generator).to(vectors.device)]

    def spread(draw: Callable[[], Tensor], draws: int) -> Spread:
        return _spread(lambda: measure(draw()), draws, base_points, generator)

    observed = spread(sample, draws)
    matched = iid = None
    if not callable(metric):
        length = vectors.square().mean().sqrt()
        matched = spread(lambda: _matched_gaussian(sample(), generator), null_draws)
        iid = spread(lambda: length * _noise(sample(), generator), null_draws)
    centred = vectors - vectors.mean(0)
    covariance = centred.T @ centred
    return Hyperbolicity(
        relative_delta=observed,
        matched_null=matched,
        iid_null=iid,
        effective_dim=(covariance.trace().square() / covariance.square().sum()).item(),
        dim=points.shape[1],
        metric=metric if isinstance(metric, str) else getattr(metric, "__name__", "function"),
        curv=curv,
        n=n,
        total=len(points),
        draws=draws,
        base_points=min(base_points, n),
        replacement=replacement,
        seed=generator.initial_seed(),
    )


def hyperbolicity_of_distances(
    distances: Float[Tensor, "n n"],
    *,
    sample_size: int = 1000,
    draws: int = 5,
    base_points: int = 3,
    replacement: bool = False,
    seed: int | torch.Generator = 0,
) -> Hyperbolicity:
    """Report relative δ of a metric given by its distances, such as a graph metric; see `hyperbolicity`.

    It has no nulls. For the distances of an embedding use `hyperbolicity` on its points.

    Raises:
        InputError: not a distance matrix of 4 or more points, all points coincide, or a count below 1.

    Numerics: as `relative_delta`.
    """
    d = checked_distances(distances, "distances", at_least=4)
    _check_counts(len(d), sample_size, draws=draws, base_points=base_points)
    generator = _generator(seed)
    n = sample_size if replacement else min(sample_size, len(d))

    def sample() -> Tensor:
        chosen = _indices(len(d), n, replacement, generator).to(d.device)
        return d[chosen][:, chosen]

    return Hyperbolicity(
        relative_delta=_spread(sample, draws, base_points, generator),
        metric="distances",
        n=n,
        total=len(d),
        draws=draws,
        base_points=min(base_points, n),
        replacement=replacement,
        seed=generator.initial_seed(),
    )


def _delta(d: Tensor, base: int) -> float:
    """Return δ at a base point, skipping the entries that cannot hold it.

    min(A_ik, A_kj) ≤ A_ij for k = i and k = j, so that with m_i the largest A_ik, k ≠ i, entry (i, j) of (A ⊗ A) − A
    is at most min(m_i, m_j) − A_ij. Features leave 0.1 % to 10 % of the entries to compute, trees nearly all.
    """
    products = (d[base, :, None] + d[base] - d) / 2
    largest = products.clone().fill_diagonal_(-torch.inf).amax(1)
    bounds = torch.minimum(largest[:, None], largest) - products
    best = 0.0
    for row in bounds.amax(1).argsort(descending=True).tolist():
        candidates = (bounds[row] > best).nonzero().squeeze(1)
        for start in range(0, len(candidates), _CHUNK):
            columns = candidates[start : start + _CHUNK]
            through = torch.minimum(products[row], products[columns]).amax(1)
            best = max(best, (through - products[row, columns]).max().item())
        bounds[:, row] = -torch.inf  # entry (j, row) is entry (row, j)
    return best


def _relative_delta(d: Tensor, base: int) -> float:
    diameter = d.max().item()
    if diameter == 0:
        raise InputError(f"all {len(d)} points coincide: relative δ needs a diameter above 0")
    return 2 * _delta(d, base) / diameter


def _spread(sample: Callable[[], Tensor], draws: int, base_points: int, generator: torch.Generator) -> Spread:
    """Measure the distance matrices that `sample` draws at base points chosen at random."""
    values: list[float] = []
    for _ in range(draws):
        d = checked_distances(sample(), "distances", at_least=4)
        bases = _indices(len(d), base_points, False, generator).tolist()
        values.extend(_relative_delta(d, base) for base in bases)
    return Spread(tuple(values))


def _vectors(points: Tensor, metric: MetricName, curv: float | None) -> Tensor:
    """Return the vectors whose mean and covariance the null shares."""
    match metric:
        case "euclidean":
            return points
        case "angle":
            return normalize(points, dim=-1, eps=0)
        case "lorentz":
            assert curv is not None
            return lorentz.log_map0(points, curv)


def _pairwise(vectors: Tensor, metric: MetricName, curv: float | None) -> Tensor:
    """Return all pairwise distances of vectors as made by `_vectors`, or of a Gaussian sample among them."""
    match metric:
        case "euclidean":
            return _euclidean(vectors)
        case "angle":
            return 2 * torch.asin((_euclidean(normalize(vectors, dim=-1)) / 2).clamp(max=1))
        case "lorentz":
            assert curv is not None
            x = lorentz.exp_map0(vectors, curv)
            return lorentz.pairwise_dist(x, x, curv).fill_diagonal_(0)


def _euclidean(x: Tensor) -> Tensor:
    """Return all distances, of centred vectors: the matmul would lose small distances between long vectors."""
    centred = x - x.mean(0)
    distances: Tensor = torch.cdist(centred, centred)
    return distances.fill_diagonal_(0)


def _matched_gaussian(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Return a Gaussian sample conditioned on the mean and covariance of `vectors`.

    With X = U S Vᵀ the centred vectors, it is Q S Vᵀ, Q uniform among the matrices of orthonormal centred columns.
    """
    mean = vectors.mean(0)
    _, values, axes = torch.linalg.svd(vectors - mean, full_matrices=False)
    noise = _noise(vectors[:, : len(values)], generator)
    # With no more vectors than dimensions the last column of Q is not centred, but then the last value is 0.
    q, r = torch.linalg.qr(noise - noise.mean(0))
    gaussian: Tensor = mean + q * r.diagonal().sign() * values @ axes
    return gaussian


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return noise.to(like.device)


def _indices(total: int, size: int, replacement: bool, generator: torch.Generator) -> Tensor:
    """Draw `size` indices below `total`; repeats, which change neither δ nor the diameter, are dropped."""
    if replacement:
        chosen = torch.randint(total, (size,), generator=generator, device=generator.device)
        return chosen.bincount(minlength=total).nonzero().squeeze(1)
    return torch.randperm(total, generator=generator, device=generator.device)[:size]


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)


def _check_counts(points: int, sample_size: int, **counts: int) -> None:
    if min(points, sample_size) < 4:
        raise InputError(f"δ needs at least 4 points, got {points} points and sample_size {sample_size}")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")


def _checked(distances: Tensor, base: int) -> Tensor:
    d = checked_distances(distances, "distances", at_least=4)
    if not 0 <= base < len(d):
        raise InputError(f"base must be a point from 0 to {len(d) - 1}, got {base}")
    return d
