"""Pairs that are held out and told from corrupted ones: the protocol of Ganea et al. 2018, arXiv:1804.01882, section 5.

What every pair of a taxonomy follows from, its basic edges, is always learned from; of the other pairs of the closure a
share is, and others are for choosing a threshold and for testing. A single root, which is above everything, is left
out: its pairs say nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from hypclip.errors import DataError, InputError
from hypclip.taxonomy.graph import Pairs, Taxonomy

HELD_OUT = 0.05
"""Share of the pairs that are no basic edges which the threshold is chosen on, and the share that is tested on."""
_ROUNDS = 20


class Split(NamedTuple):
    """Pairs by place, those of a point together: to learn from, to choose a threshold on, and to test.

    `first` is the first place that counts: 1 where the root is left out, else 0.
    """

    learned: Pairs
    valid: Pairs
    test: Pairs
    first: int


class Labelled(NamedTuple):
    """Pairs by place, the right ones first: `specific[i]` is below `general[i]` or, from `right` on, is not."""

    general: Int64[Tensor, " p"]
    specific: Int64[Tensor, " p"]
    right: int


class Found(NamedTuple):
    """What a threshold finds: F1 of precision and recall."""

    f1: float
    precision: float
    recall: float


def is_basic(taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Return which pairs of the closure are edges of the transitive reduction, which follow from no others."""
    place = {phrase: i for i, phrase in enumerate(taxonomy.phrases)}
    n, pairs = len(place), taxonomy.closure
    edges = np.array([place[child] * n + place[up] for child, up in taxonomy.reduced().edges])
    return np.isin(pairs.below * n + pairs.above, edges)


def split(taxonomy: Taxonomy, closure_share: float, seed: int = 0) -> Split:
    """Return the pairs of a taxonomy, but for those with its single root, in three parts.

    Args:
        taxonomy: of which the pairs are.
        closure_share: the share of the pairs that are no basic edges to learn from, 0 to 0.9.
        seed: of the choice; the same one gives the same test at every share.

    Raises:
        InputError: a share out of its range.
        DataError: too few pairs for one to be tested.
    """
    most = 1 - 2 * HELD_OUT
    if not 0 <= closure_share <= most:
        raise InputError(f"closure_share must be 0 to {most:g}, as {1 - most:g} is held out, got {closure_share:g}")
    pairs, first = taxonomy.closure, int(len(taxonomy.roots) == 1)
    counted = pairs.above >= first
    basic = is_basic(taxonomy)
    others = np.flatnonzero(counted & ~basic)
    out = round(HELD_OUT * len(others))
    if not out:
        raise DataError(
            f"{len(others)} pairs of a phrase and an ancestor follow from others, and {HELD_OUT:.0%} of them are to be "
            f"tested: the taxonomy is too small for that, it needs {round(1 / HELD_OUT)}"
        )
    others = np.random.default_rng(seed).permutation(others)
    more = others[2 * out : 2 * out + round(closure_share * len(others))]
    parts = (np.concatenate([np.flatnonzero(counted & basic), more]), others[out : 2 * out], others[:out])
    learned, valid, test = (Pairs(pairs.below[rows], pairs.above[rows]) for rows in map(np.sort, parts))
    return Split(learned, valid, test, first)


class Corruption:
    """Wrong pairs made of right ones: one side replaced by any point.

    Args:
        known: the pairs that are right, which are never given as wrong ones.
        n: number of points.
        first: the first of the places that sides are replaced by.
    """

    def __init__(self, known: Pairs, n: int, first: int = 0):
        self._n, self._first = n, first
        self._known = torch.from_numpy(known.below * n + known.above).sort().values

    def wrong(self, general: Tensor, specific: Tensor) -> Bool[Tensor, " p"]:
        """Return which pairs are neither known nor of a point with itself."""
        keys = specific * self._n + general
        near = torch.searchsorted(self._known, keys).clamp_(max=len(self._known) - 1)
        return (self._known[near] != keys) & (general != specific)

    def draw(
        self, pairs: Pairs, each: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, " q"], Int64[Tensor, " q"]]:
        """Return `each` pairs with another general and then as many with another specific point for every pair.

        Not all of them need be wrong.
        """
        below, above = (torch.from_numpy(side).repeat(each) for side in pairs)
        drawn = torch.randint(self._first, self._n, (2, len(below)), generator=generator)
        return torch.cat([drawn[0], above]), torch.cat([below, drawn[1]])

    def labelled(self, pairs: Pairs, each: int, generator: torch.Generator) -> Labelled:
        """Return right pairs, and for each 2 · `each` wrong ones.

        Raises:
            DataError: a point is above or below all others, so that nothing wrong can be said of it.
        """
        general, specific = self.draw(pairs, each, generator)
        for _ in range(_ROUNDS):
            again = ~self.wrong(general, specific)
            if not again.any():
                break
            other_general, other_specific = self.draw(pairs, each, generator)
            general = torch.where(again, other_general, general)
            specific = torch.where(again, other_specific, specific)
        else:
            wrong = self.wrong(general, specific)
            general, specific = general[wrong], specific[wrong]
            if not len(general):
                raise DataError(
                    "of a taxonomy in which every point is above or below every other nothing can be tested"
                )
        below, above = (torch.from_numpy(side) for side in pairs)
        return Labelled(torch.cat([above, general]), torch.cat([below, specific]), len(pairs))


def best_threshold(cost: Float[Tensor, " p"], right: int) -> float:
    """Return the cost up to which a pair is taken as right for the best F1: half way to the next higher one there is.

    Args:
        cost: of each pair, the right ones first.
        right: how many are.
    """
    values = torch.unique(cost)
    found = torch.searchsorted(cost[:right].sort().values, values, right=True)
    mistaken = torch.searchsorted(cost[right:].sort().values, values, right=True)
    best = int((2 * found / (found + mistaken + right)).argmax())
    return float(values[best : best + 2].mean())


def found(cost: Float[Tensor, " p"], right: int, threshold: float) -> Found:
    """Return F1, precision and recall of taking the pairs of a cost up to a threshold as right.

    Args:
        cost: of each pair, the right ones first.
        right: how many are.
        threshold: up to which cost.
    """
    taken = cost <= threshold
    hits, of = int(taken[:right].sum()), int(taken.sum())
    return Found(2 * hits / (of + right), hits / of if of else 0.0, hits / right)
