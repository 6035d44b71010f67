"""A tree that gives every point of a collection an angle, so that near directions get near angles.

Where a picture keeps the radius of a point, the angle is the one number left. It comes from up to 2,048 landmarks: they
are halved along their principal direction, the halves again, and so on, and the halves of all sets of a level are
turned so that what stands side by side on the circle is as near as it can be. Every other point goes down the tree to
one of the leaves, which share the circle equally, and within its leaf to a place between the two beside it.

A tree is kept, and the same point gets the same angle from it for good: on other processors, with other libraries for
products of matrices, alone or among others. For that, directions and points are whole numbers, whose products and sums
float64 holds exactly in any order; square roots and quotients are rounded alike everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 11
"""Of a tree: it has at most 2,048 leaves, and as many landmarks."""

_STEPS = 24
_DIRECTION = 2**14
"""Greatest number of a direction."""
_STRIDE = 5
"""So many levels of the tree are decided by one product."""
_BLOCK = 2**22
"""Numbers of the points that are sent through the tree at a time."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Leaves = NDArray[np.intp]


@dataclass(frozen=True)
class Tree:
    """Angles of points by their directions.

    Args:
        directions: (2^depth − 1, D) of int16, one per inner node, in the order of a heap: the children of i are 2i + 1
            and 2i + 2.
        cuts: (2^depth − 1,): a point goes to the second child where its product with the direction is above.
        leaf_directions: (2^depth, D) of int16, from the leaf before to the leaf after, in the order of the circle.
        leaf_spans: (2^depth, 2): the product in the middle of a leaf, and the width of it.
    """

    directions: NDArray[np.int16]
    cuts: Doubles
    leaf_directions: NDArray[np.int16]
    leaf_spans: Doubles

    @property
    def depth(self) -> int:
        """Number of levels."""
        return len(self.leaf_directions).bit_length() - 1

    @classmethod
    def build(cls, landmarks: Floats) -> Tree:
        """Build the tree of landmarks, of which it uses the first 2^depth.

        Args:
            landmarks: space components (n, D) of n ≥ 1 points.
        """
        depth = min(MAX_DEPTH, len(landmarks).bit_length() - 1)
        rows, lengths = _whole(landmarks[: 2**depth])
        units = rows / np.where(lengths > 0, lengths, 1)[:, None]
        directions: list[NDArray[np.int16]] = []
        cuts: list[Doubles] = []
        order = np.arange(2**depth)[None]
        for _ in range(depth):
            found = _rounded(_principal(units[order]))
            values = _values(rows[order], lengths[order], found[:, None, :])
            halves = _halved(order, values)
            flipped = _turned(units[halves].mean(2))
            # A set whose halves change places has the opposite direction.
            found[flipped], values[flipped] = -found[flipped], -values[flipped]
            halves[flipped] = halves[flipped, ::-1]
            ranked = np.sort(values, axis=1)
            middle = ranked.shape[1] // 2
            directions.append(found)
            cuts.append((ranked[:, middle - 1] + ranked[:, middle]) / 2)
            order = halves.reshape(-1, middle)
        circle = units[order[:, 0]]
        before, after = np.roll(circle, 1, axis=0), np.roll(circle, -1, axis=0)
        along = _rounded(after - before)
        ends = [_product((circle + other) / 2, along) for other in (before, after)]
        spans = np.stack([(ends[0] + ends[1]) / 2, ends[1] - ends[0]], axis=1)
        dim = landmarks.shape[1]
        return cls(
            np.concatenate([np.zeros((0, dim), np.int16), *directions]),
            np.concatenate([np.zeros(0), *cuts]),
            along,
            spans,
        )

    def is_whole(self, dim: int) -> bool:
        """Tell whether the arrays fit together and are for points of so many space components."""
        leaves = len(self.leaf_directions)
        types = [array.dtype for array in (self.directions, self.cuts, self.leaf_directions, self.leaf_spans)]
        shapes = [self.directions.shape, self.cuts.shape, self.leaf_directions.shape, self.leaf_spans.shape]
        return (
            0 < leaves == 2**self.depth
            and types == [np.int16, np.float64, np.int16, np.float64]
            and shapes == [(leaves - 1, dim), (leaves - 1,), (leaves, dim), (leaves, 2)]
        )

    def angles(self, x: Floats) -> Floats:
        """Return the angles of points, in [0, 2π).

        Args:
            x: space components (n, D).
        """
        size = max(1, _BLOCK // x.shape[1])
        return np.concatenate(
            [np.zeros(0, np.float32), *(self._angles(x[s : s + size]) for s in range(0, len(x), size))]
        )

    def _angles(self, x: Floats) -> Floats:
        rows, lengths = _whole(x)
        leaves = self._leaves(rows, lengths)
        value = _values(rows, lengths, self.leaf_directions[leaves])
        middle, width = self.leaf_spans[leaves].T
        place = np.divide(2 * (value - middle), width, out=np.zeros_like(value), where=width > 0)
        part = 0.5 + 0.5 * place / np.sqrt(1 + place * place)
        turn = (leaves + part) * (2 * math.pi / len(self.leaf_spans))
        found: Floats = np.minimum(turn.astype(np.float32), np.nextafter(np.float32(2 * math.pi), np.float32(0)))
        return found

    def _leaves(self, rows: Doubles, lengths: Doubles) -> Leaves:
        """Return the leaves that rows go to; a few levels at a time, of all rows in one subtree together."""
        nodes = np.zeros(len(rows), np.intp)  # by their place in their level
        for top in range(0, self.depth, _STRIDE):
            levels = range(top, min(top + _STRIDE, self.depth))
            roots, order = nodes, np.argsort(nodes, kind="stable")
            nodes = np.empty_like(roots)
            ends = np.flatnonzero(np.diff(roots[order])) + 1
            for some in np.split(order, ends):
                root = int(roots[some[0]]) if len(some) else 0
                below = [2**level - 1 + root * 2 ** (level - top) for level in levels]
                inner = np.concatenate([np.arange(first, first + 2**i) for i, first in enumerate(below)])
                values = rows[some] @ self.directions[inner].T.astype(np.float64)
                values /= np.where(lengths[some] > 0, lengths[some], 1)[:, None]
                above = values > self.cuts[inner]
                place = np.zeros(len(some), np.intp)
                for i in range(len(below)):
                    place = 2 * place + above[np.arange(len(some)), 2**i - 1 + place]
                nodes[some] = root * 2 ** len(below) + place
        return nodes


def _whole(x: Floats) -> tuple[Doubles, Doubles]:
    """Return rows as whole numbers, each times a power of two of its own, and their lengths."""
    bits = (52 - (x.shape[1] - 1).bit_length()) // 2 - 1
    largest = np.abs(x).max(axis=1, initial=0).astype(np.float64)
    _, exponents = np.frexp(largest)
    rows = np.rint(np.ldexp(x.astype(np.float64), min(20, bits) - exponents[:, None]))
    return rows, np.sqrt(np.einsum("nd,nd->n", rows, rows))


def _values(rows: Doubles, lengths: Doubles, directions: NDArray[np.int16]) -> Doubles:
    """Return the products of the units of rows with directions."""
    product = _product(rows, directions)
    return np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)


def _product(rows: Doubles, directions: NDArray[np.int16]) -> Doubles:
    product: Doubles = np.einsum("...d,...d->...", rows, directions.astype(np.float64))
    return product


def _principal(sets: Doubles) -> Doubles:
    """Return the direction in which each of k sets (k, n, D) spreads most, by power iteration from its longest row."""
    centred = sets - sets.mean(1, keepdims=True)
    across = np.swapaxes(centred, 1, 2)
    longest = np.einsum("knd,knd->kn", centred, centred).argmax(1)
    few = sets.shape[1] < sets.shape[2]
    # In coordinates of the rows where they are fewer than the dimensions: the products are the same but smaller.
    square = centred @ across if few else across @ centred
    found = (square if few else centred)[np.arange(len(sets)), longest]
    for _ in range(_STEPS):
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found = (square @ (found / np.where(length > 0, length, 1))[:, :, None])[:, :, 0]
    found = (across @ found[:, :, None])[:, :, 0] if few else found
    largest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
    signed: Doubles = np.where(largest < 0, -found, found)
    return signed


def _rounded(directions: Doubles) -> NDArray[np.int16]:
    """Return directions as whole numbers."""
    largest = np.abs(directions).max(1, initial=0, keepdims=True)
    return np.rint(directions * (_DIRECTION / np.where(largest > 0, largest, 1))).astype(np.int16)


def _halved(order: Leaves, values: Doubles) -> Leaves:
    """Return the two halves (k, 2, n/2) of k sets (k, n), those of the smaller values first."""
    ranked = np.take_along_axis(order, np.argsort(values, axis=1, kind="stable"), 1)
    return ranked.reshape(len(order), 2, -1)


def _turned(centres: Doubles) -> NDArray[np.bool_]:
    """Return which of k sets on a circle change the places of their halves, so that neighbours are nearest in sum.

    Args:
        centres: (k, 2, D) of their halves.
    """
    after = np.roll(centres, -1, axis=0)
    # From the last half of a set, where it stays (0) or is turned (1), to the first half of the next one.
    gaps = centres[:, ::-1, None] - after[:, None, :]
    steps = np.einsum("kabd,kabd->kab", gaps, gaps)
    best, chosen = math.inf, [0] * len(centres)
    for first in (0, 1):
        cost, back = np.where(np.arange(2) == first, 0.0, math.inf), []
        for step in steps[:-1]:
            through = cost[:, None] + step
            back.append(through.argmin(0))
            cost = through.min(0)
        last = cost + steps[-1][:, first]
        if last.min() < best:
            best, state = float(last.min()), int(last.argmin())
            chosen = [state]
            for choice in reversed(back):
                chosen.append(state := int(choice[state]))
            chosen.reverse()
    return np.array(chosen, np.bool_)
