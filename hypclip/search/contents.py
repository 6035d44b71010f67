"""All points of a collection as arrays, for what looks at every one of them: maps of a collection, views of a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Block(NamedTuple):
    """Some points: keys (n,) in no certain order, space components (n, D), codes of `MODALITIES` (n,)."""

    keys: NDArray[np.int64]
    vectors: NDArray[np.float32]
    modality: NDArray[np.uint8]


@dataclass(frozen=True)
class Contents:
    """One state of a collection; writes that come later do not change it.

    A key is the number of a point within its collection. In the local store a point that is replaced gets another one.

    Args:
        version: names the state; two states with the same name have the same points under the same keys, after a
            restart too.
        count: how many points there are.
        read: returns them in blocks, none of them empty. The arrays may be those that searches read: do not write to
            them.
    """

    version: str
    count: int
    read: Callable[[], Sequence[Block]]


def ascending(blocks: Sequence[Block]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the keys of all points in ascending order, and the row of each, counted through the blocks."""
    keys = np.concatenate([np.zeros(0, np.int64), *(block.keys for block in blocks)])
    order = np.argsort(keys, kind="stable")
    return keys[order], order
