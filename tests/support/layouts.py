"""How well a picture of a collection keeps what is near, and a collection whose hierarchy is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.geometry import lorentz

QUERIES = 400
PAIRS = 20_000


class Quality(NamedTuple):
    """Measures of a picture.

    recall_10, recall_50: share of the 10 nearest points that are among the 10 and 50 nearest in the picture.
    radius: rank correlation of drawn and true radii.
    distances: rank correlation of drawn and true distances.
    purity: share of the same label among the 10 nearest in the picture, where both have one, which is not -1; None
        without labels.
    """

    recall_10: float
    recall_50: float
    radius: float
    distances: float
    purity: float | None


def quality(
    x: NDArray[np.float32], curv: float, picture: torch.Tensor, labels: NDArray[np.int64] | None = None
) -> Quality:
    """Measure a picture: points (n, 2) of the hyperbolic plane of the same curvature, in place of the points (n, D)."""
    rng = np.random.default_rng(0)
    rows = rng.choice(len(x), min(QUERIES, len(x)), replace=False)
    true, drawn = (
        lorentz.pairwise_dist(points[rows], points, curv).numpy() for points in (torch.from_numpy(x).double(), picture)
    )
    pairs = rng.integers(0, true.size, PAIRS)
    distances = ranked(true.ravel()[pairs], drawn.ravel()[pairs])
    for table in (true, drawn):
        table[np.arange(len(rows)), rows] = np.inf
    near = np.argpartition(true, 10, 1)[:, :10]
    seen = {k: np.argpartition(drawn, k, 1)[:, :k] for k in (10, 50)}
    recall = {k: np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(near, seen[k], strict=True)]) for k in seen}
    radii = (lorentz.radius(points, curv).numpy() for points in (torch.from_numpy(x).double(), picture))
    purity = None
    if labels is not None:
        own, beside = labels[rows][:, None], labels[seen[10]]
        known = (own >= 0) & (beside >= 0)
        purity = float((own == beside)[known].mean())
    return Quality(float(recall[10]), float(recall[50]), ranked(*radii), distances, purity)


def ranked(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the rank correlation."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def drawn(radius: NDArray[np.float32], angle: NDArray[np.float32], curv: float) -> torch.Tensor:
    """Return the points of the hyperbolic plane at these radii and angles."""
    turn, reach = torch.from_numpy(angle).double(), torch.from_numpy(radius).double()
    return lorentz.exp_map0(reach[:, None] * torch.stack([turn.cos(), turn.sin()], 1), curv)


def collection(n: int, dim: int, seed: int = 0, curv: float = 0.5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw a hierarchy: families, kinds, names and things, each level further out and beside what it is of.

    Returns:
        points: (n, D).
        families: (n,).
    """
    rng = np.random.default_rng(seed)

    def beside(directions: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
        moved = directions + spread * rng.normal(size=directions.shape) / math.sqrt(dim)
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    families = beside(np.zeros((10, dim)), 1)
    kind_of, name_of = rng.integers(0, 10, 70), rng.integers(0, 70, max(1, n // 10))
    kinds = beside(families[kind_of], 0.8)
    names = beside(kinds[name_of], 0.6)
    thing_of = rng.integers(0, len(names), n)
    radii = rng.uniform(1.0, 2.2, n)
    x = (np.sinh(math.sqrt(curv) * radii) / math.sqrt(curv))[:, None] * beside(names[thing_of], 0.45)
    return x.astype(np.float32), kind_of[name_of[thing_of]]
