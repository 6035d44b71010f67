"""How well distances give a closure back: mean rank and mean average precision (Nickel & Kiela 2017, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hypclip.taxonomy.graph import Pairs

_BLOCK = 2**24
"""Distances in memory at a time."""


class Reconstruction(NamedTuple):
    """Mean rank of a pair's ancestor among the points that are none, and mean average precision over the points."""

    mean_rank: float
    map: float


@torch.no_grad()
def reconstruction(
    distances: Callable[[Int64[Tensor, " b"]], Float[Tensor, "b n"]], pairs: Pairs, n: int, of: Pairs | None = None
) -> Reconstruction:
    """Return mean rank and MAP of pairs (point, ancestor) by distance, over all n points, exactly.

    The rank of an ancestor is 1 plus the number of points nearer than it that are neither ancestors nor the point
    itself; a point's average precision counts its ancestors alone as right. Ties go to the ancestor.

    Args:
        distances: of some points to all, (B, N), or anything that grows with them.
        pairs: the whole closure, by place; the pairs of a point stand together, as in `Taxonomy.closure`.
        n: number of points.
        of: the pairs to score, such as held-out ones; all by default. Other ancestors then still count as no error.
    """
    below, above = (torch.from_numpy(column) for column in pairs)
    counts = torch.bincount(below, minlength=n)
    starts = counts.cumsum(0) - counts
    scored = torch.ones(len(below), dtype=torch.bool)
    if of is not None:
        wanted = torch.from_numpy(of.below) * n + torch.from_numpy(of.above)
        scored = torch.isin(below * n + above, wanted)
    points = torch.unique(below[scored])
    ranks, precisions = 0.0, 0.0
    for rows in points.split(max(1, _BLOCK // n)):
        d = distances(rows)
        d[torch.arange(len(rows)), rows] = torch.inf
        width = int(counts[rows].max())
        column = torch.arange(width)
        there = column < counts[rows, None]
        pair = torch.where(there, starts[rows, None] + column, starts[rows, None])
        own = d.gather(1, above[pair])
        counted = there & scored[pair]
        d.scatter_(1, above[pair], torch.inf)
        for i in range(len(rows)):
            mine = own[i, there[i]]
            near = d[i][d[i] < mine.max()]  # of a good embedding few, so that what follows takes no time
            worse = torch.searchsorted(near.sort().values, mine) if len(mine) > _FEW else _nearer(near, mine)
            which = counted[i, there[i]]
            ranks += float((worse[which] + 1).double().sum())
            among = _nearer(mine[which], mine[which]) + 1  # how many of the scored ones are at most as far
            precisions += float((among.double() / (among + worse[which])).mean())
    return Reconstruction(ranks / int(scored.sum()), precisions / len(points))


_FEW = 48
"""Ancestors of a point up to which counting what is nearer is faster than sorting."""


def _nearer(d: Float[Tensor, " n"], than: Float[Tensor, " m"]) -> Int64[Tensor, " m"]:
    return (d < than[:, None]).sum(1)
