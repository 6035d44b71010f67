"""Into which passes of a text tower the texts of a batch go, so that little of what it computes is padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

_MOST = 4
"""Passes that sorted texts are cut into at most."""
_WORTH_IT = 0.9
"""The share of its time that sorting has to leave, since it takes time itself."""


def cost_of_a_pass(width: int) -> int:
    """Return what a pass costs besides its tokens, in tokens: small kernels, as many for a narrow tower as for a wide.

    Args:
        width: of the tower; what a token costs is as its square.
    """
    return round(512 * (512 / width) ** 2)


def passes_by_length(lengths: Sequence[int], padded: int, passes: int, overhead: int) -> list[int]:
    """Return how many rows each pass is to have, the shortest first; nothing where sorting them would not save time.

    Never fewer passes than without sorting, so that what is saved is padding.

    Args:
        lengths: of the rows, ascending. Each pass is padded to its longest.
        padded: tokens that the tower computes if they are not sorted, padding counted.
        passes: how many passes that takes.
        overhead: what a pass costs besides its tokens, in tokens.
    """
    values, counts = np.unique(lengths, return_counts=True)
    rows = np.concatenate([[0], counts.cumsum()])
    # Of a pass with all rows of the i-th to the j-th length, at [i, j].
    costs = np.where(np.tri(len(values)).T > 0, (rows[1:] - rows[:-1, None]) * values + overhead, np.inf)
    so_far, begins = costs[0], [np.zeros(len(values), dtype=np.int64)]
    least, best = (so_far[-1] if passes == 1 else np.inf), 1
    for count in range(2, min(_MOST, len(values)) + 1):
        ways = so_far[:-1, None] + costs[1:]  # the last of `count` passes begins at [i], those before it end there
        begins.append(ways.argmin(0) + 1)
        so_far = ways.min(0)
        if count >= passes and so_far[-1] < least:
            least, best = so_far[-1], count
    if least > _WORTH_IT * (padded + passes * overhead):
        return []
    end, cuts = len(values), [len(lengths)]
    for begin in reversed(begins[1:best]):
        end = int(begin[end - 1])
        cuts.append(int(rows[end]))
    return [b - a for a, b in itertools.pairwise([0, *reversed(cuts)])]
