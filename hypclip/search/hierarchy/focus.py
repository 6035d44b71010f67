"""A collection seen from one point: where every other point lies, what entails it and what it entails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.geometry import focus as planes
from hypclip.geometry.entailment import Entailment
from hypclip.search.contents import Contents
from hypclip.search.exact import one_thread, seen_from

ANCESTOR, DESCENDANT, ITSELF = 1, 2, 4
"""Flags of a point: it entails the focus, is entailed by it, lies where the focus is."""

_BLOCK = 2**20
"""Numbers of the points that are measured at a time."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Focus:
    """What is true of each of n points and the focus, in the order of the blocks of the contents.

    Args:
        radius: (n,) distance to the root; with a target, to the focus.
        angle: (n,) at the root, between the point and the focus; with a target, at the focus, between the point and
            the target. Radians in [0, π].
        flags: (n,) sums of `ANCESTOR`, `DESCENDANT` and `ITSELF`.
        above: (n,) margin of the focus in the cone or half-space of the point.
        below: (n,) margin of the point in that of the focus.
    """

    radius: Floats
    angle: Floats
    flags: NDArray[np.uint8]
    above: Floats
    below: Floats


@one_thread()
def focus(
    contents: Contents,
    x: Float[Tensor, " d"],
    rule: Entailment,
    curv: float,
    target: Float[Tensor, " d"] | None = None,
) -> Focus:
    """Measure all points of a collection from one point, exactly.

    Flags and margins are those of `VectorStore.cone` of both sides: all of them come from `seen_from`.

    Args:
        contents: the points.
        x: space components (D,) of the focus.
        rule: what entails what.
        curv: c > 0.
        target: gives the plane to draw in together with the focus; with the root when absent.
    """
    x = x.double()
    columns = [(np.zeros(0, np.float32),) * 2 + (np.zeros(0, np.uint8),) + (np.zeros(0, np.float32),) * 2]
    for vectors in _parts(contents):
        seen = seen_from(vectors, x, rule, curv)
        (above, ancestors), (below, descendants) = seen.measures("ancestors"), seen.measures("descendants")
        if target is None:
            radius, angle = above.radius, seen.angle()
        else:
            radius, angle = planes.about_point(vectors.double(), x, target, curv)
        flags = ANCESTOR * ancestors + DESCENDANT * descendants + ITSELF * seen.copies()
        found = (radius, angle, above.by("margin"), below.by("margin"))
        a, b, c, d = (column.numpy().astype(np.float32) for column in found)
        columns.append((a, b, flags.numpy().astype(np.uint8), c, d))
    return Focus(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _parts(contents: Contents) -> Iterator[Tensor]:
    for block in contents.read():
        size = max(1, _BLOCK // block.vectors.shape[1])
        for start in range(0, len(block.keys), size):
            yield torch.from_numpy(block.vectors[start : start + size])
