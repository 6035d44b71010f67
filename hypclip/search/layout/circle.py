"""A circle of landmarks that gives every point of a collection an angle, so that near directions get near angles.

Where a picture keeps the radius of a point, the angle is the one number left. Up to 2,048 points are landmarks, in an
order of bisection: they are halved along their principal direction, the halves again, and so on, and on every level the
halves are turned so that what stands side by side on the circle is as near as it can be. Each is first moved to the
mean of its nearest, twice, so that the cuts run between groups and not through them. A point gets the place of the
landmark that is nearest to it by direction, drawn towards those of its nearest that stand within a window around.

A circle is kept, and the same point gets the same angle from it for good: on other processors, with other libraries for
products of matrices, alone or among others. For that, points and landmarks are whole numbers whose products and sums
float64 holds exactly in any order; only one quotient is rounded, and that is rounded alike everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 11
"""A circle has at most 2 to the power of this landmarks."""

_SMOOTHINGS = 2
_NEAREST = 8
"""So many landmarks move a landmark, and draw a point."""
_WINDOW = 24
"""Landmarks to either side of the nearest among which those that draw a point are sought."""
_STEPS = 24
_UNIT = 2**14
"""Length of the landmarks."""
_POINT_BITS = 20
_BLOCK = 2**22
"""Numbers of the products of points and landmarks that are held at a time."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Circle:
    """Landmarks (n, D) of int16 in the order in which they share the circle equally, unit vectors times 2^14."""

    landmarks: NDArray[np.int16]

    @classmethod
    def of(cls, x: Floats) -> Circle:
        """Put landmarks into an order.

        Args:
            x: space components (n, D) of n ≥ 1 points, of which the first 2^k are used, as many as there are.
        """
        depth = min(MAX_DEPTH, len(x).bit_length() - 1)
        rows = _whole(x[: 2**depth])
        units = _units(rows)
        smooth = units
        near = np.argpartition(-(units @ units.T), min(_NEAREST, len(units) - 1), axis=1)[:, : _NEAREST + 1]
        for _ in range(_SMOOTHINGS):
            smooth = _units(smooth[near].mean(1))
        order = np.arange(2**depth)[None]
        for _ in range(depth):
            values = np.einsum("knd,kd->kn", smooth[order], _principal(smooth[order]))
            ranked = np.take_along_axis(order, np.argsort(values, axis=1, kind="stable"), 1)
            halves = ranked.reshape(len(order), 2, -1)
            turned = _turned(smooth[halves].mean(2))
            halves[turned] = halves[turned, ::-1]
            order = halves.reshape(2 * len(order), -1)
        return cls(np.rint(units[order[:, 0]] * _UNIT).astype(np.int16))

    def is_whole(self, dim: int) -> bool:
        """Tell whether this is a circle for points of so many space components."""
        found = self.landmarks
        return found.dtype == np.int16 and found.ndim == 2 and len(found) > 0 and found.shape[1] == dim

    def angles(self, x: Floats) -> Floats:
        """Return the angles of points, in [0, 2π).

        Args:
            x: space components (n, D).
        """
        size, landmarks = max(1, _BLOCK // len(self.landmarks)), self.landmarks.T.astype(np.float64)
        parts = (_places(_whole(x[start : start + size]) @ landmarks) for start in range(0, len(x), size))
        turns = np.concatenate([np.zeros(0), *parts]) / len(self.landmarks)
        # The greatest float32 below 2π, to which a place just below the first would be rounded up.
        found: Floats = np.minimum((2 * math.pi * turns).astype(np.float32), np.nextafter(np.float32(2 * math.pi), 0))
        return found


def _places(products: Doubles) -> Doubles:
    """Return the places of points on a circle of n landmarks, from 0 to n, from their products (points, n)."""
    count = products.shape[1]
    window = min(_WINDOW, (count - 1) // 2)
    nearest = products.argmax(1)
    steps = np.arange(-window, window + 1)
    found = np.take_along_axis(products, (nearest[:, None] + steps) % count, 1)
    rest = found.shape[1] - 1 - min(_NEAREST, 2 * window)
    weights = np.maximum(found - np.partition(found, rest, axis=1)[:, rest, None], 0)
    total = weights.sum(1)
    drawn = np.divide((weights * steps).sum(1), total, out=np.zeros(len(total)), where=total > 0)
    places: Doubles = np.mod(nearest + drawn + 0.5, count)
    return places


def _whole(x: Floats) -> Doubles:
    """Return rows as whole numbers, each times a power of two of its own."""
    _, exponents = np.frexp(np.abs(x).max(axis=1, initial=0))
    rows: Doubles = np.rint(np.ldexp(x.astype(np.float64), _POINT_BITS - exponents[:, None]))
    return rows


def _units(rows: Doubles) -> Doubles:
    """Return rows of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Doubles = rows / np.where(lengths > 0, lengths, 1)
    return units


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
        found = (square @ _units(found)[:, :, None])[:, :, 0]
    found = (across @ found[:, :, None])[:, :, 0] if few else found
    largest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
    signed: Doubles = np.where(largest < 0, -found, found)
    return signed


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
