"""Poincaré embeddings of a taxonomy (Nickel & Kiela 2017, arXiv:1705.08039), in the ball or on the hyperboloid.

For a phrase u and an ancestor v the loss is −log(e^−d(u,v) / (e^−d(u,v) + Σ e^−d(u,w))), the sum over phrases w that
are neither u nor ancestors of u. A batch is some phrases u with all their ancestors, and all of them have the same w:
every phrase of a small taxonomy, a sample of a large one, weighted so that they count as `negatives` of them. So the
loss and its gradient are products of matrices, and no array of (edges, negatives, D) is ever made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.taxonomy.embedding.manifolds import Ball, Flat, Lorentz, Manifold
from hypclip.taxonomy.graph import Pairs

MANIFOLDS: dict[str, Manifold] = {"poincare": Ball(), "lorentz": Lorentz(), "euclid": Flat()}
_BURN_IN_RATE = 0.01


@dataclass(frozen=True)
class Training:
    """How an embedding is trained.

    Args:
        method: the model of hyperbolic space: `lorentz`, or `poincare` for the ball; `euclid` is flat space.
        dim: D.
        epochs: how often each phrase is seen.
        rate: the learning rate, which falls to 0 as a cosine after the burn-in.
        burn_in: share of the epochs at a hundredth of the rate, in which directions find their places near the origin.
        batch: phrases of a batch.
        negatives: how many other phrases count against an ancestor.
        candidates: how many phrases a batch takes them from; of a smaller taxonomy all.
        max_radius: how far out a point may lie; 12 leaves float64 four digits of the distance of two points there.
        seed: of the first places and of all samples.
    """

    method: Literal["lorentz", "poincare", "euclid"] = "lorentz"
    dim: int = 10
    epochs: int = 900
    rate: float = 0.03
    burn_in: float = 0.15
    batch: int = 64
    negatives: float = 50.0
    candidates: int = 2048
    max_radius: float = 12.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "batch", "candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.rate > 0 and self.negatives > 0 and 0 <= self.burn_in < 1 and 0 < self.max_radius <= 17):
            raise InputError(
                "rate and negatives must be positive, burn_in at least 0 and below 1, and max_radius positive and at "
                f"most 17, where float64 ends; got {self.rate}, {self.negatives}, {self.burn_in}, {self.max_radius}"
            )


class Progress(NamedTuple):
    """An epoch that has ended: its number from 1, the mean loss of a pair, and pairs trained per second."""

    epoch: int
    loss: float
    pairs_per_s: float


def train(
    pairs: Pairs, n: int, training: Training, *, report: Callable[[Progress], None] | None = None
) -> Float[Tensor, "n d"]:
    """Return the space components, or flat coordinates, float64, of n points trained on pairs (point, ancestor).

    Args:
        pairs: the closure, or the part of it to learn from; the pairs of a point stand together.
        n: number of points.
        training: how.
        report: is told of every epoch.
    """
    manifold = MANIFOLDS[training.method]
    generator = torch.Generator().manual_seed(training.seed)
    below, above = (torch.from_numpy(column) for column in pairs)
    counts = torch.bincount(below, minlength=n)
    starts = counts.cumsum(0) - counts
    first = (torch.rand(n, training.dim, generator=generator, dtype=torch.float64) - 0.5) * 2e-3
    x = manifold.start(first)
    points = counts.nonzero().squeeze(1)
    burn_in = round(training.burn_in * training.epochs)
    for epoch in range(training.epochs):
        begin, loss = time.perf_counter(), 0.0
        done = (epoch - burn_in) / max(1, training.epochs - burn_in)
        rate = training.rate * (_BURN_IN_RATE if epoch < burn_in else 0.5 * (1 + math.cos(math.pi * done)))
        for rows in torch.split(points[torch.randperm(len(points), generator=generator)], training.batch):
            pair = torch.repeat_interleave(torch.arange(len(rows)), counts[rows])
            offset = torch.arange(len(pair)) - (counts[rows].cumsum(0) - counts[rows])[pair]
            up = above[starts[rows][pair] + offset]
            columns = (
                None
                if n <= training.candidates
                else torch.unique(torch.randint(n, (training.candidates,), generator=generator))
            )
            loss += _step(manifold, x, rows, pair, up, columns, rate, training)
        if report is not None:
            report(Progress(epoch + 1, loss / len(below), len(below) / (time.perf_counter() - begin)))
    return manifold.space(x)


def _step(
    manifold: Manifold,
    x: Tensor,
    rows: Tensor,
    pair: Tensor,
    up: Tensor,
    columns: Tensor | None,
    rate: float,
    training: Training,
) -> float:
    """Take a step for the points `rows`, of which pair[i] has the ancestor up[i]; return the sum of the losses."""
    n, own = len(x), torch.arange(len(rows))
    candidates = torch.arange(n) if columns is None else columns
    place = torch.full((n,), -1)
    place[candidates] = torch.arange(len(candidates))
    xr, xc, xu = x[rows], x if columns is None else x[columns], x[up]
    # Of the candidates: e^−d, 0 for the point itself and its ancestors.
    others, slope = manifold.falloff(manifold.measure(xr, xc))
    known = place[up] >= 0
    others[pair[known], place[up][known]] = 0
    itself = place[rows] >= 0
    others[own[itself], place[rows][itself]] = 0
    others *= training.negatives / len(candidates)
    total = others.sum(1)
    # Of the ancestors.
    right, slope_up = manifold.falloff(manifold.paired(xr[pair], xu))
    all_of_it = right + total[pair]
    weight = torch.zeros(len(rows), dtype=x.dtype).index_add_(0, pair, 1 / all_of_it)
    by_row, by_column = manifold.gradients(xr, xc, -others * weight[:, None] * slope)
    by_point, by_up = manifold.paired_gradients(xr[pair], xu, total[pair] / all_of_it * slope_up)
    by_row.index_add_(0, pair, by_point)
    if columns is None:
        gradient = by_column.index_add_(0, rows, by_row).index_add_(0, up, by_up)
        x.copy_(manifold.descend(x, gradient, rate, training.max_radius))
    else:
        moved, where = torch.unique(torch.cat([columns, rows, up]), return_inverse=True)
        gradient = torch.zeros(len(moved), x.shape[1], dtype=x.dtype)
        gradient.index_add_(0, where, torch.cat([by_column, by_row, by_up]))
        x[moved] = manifold.descend(x[moved], gradient, rate, training.max_radius)
    return float((all_of_it / right).log().sum())
