"""A collection on a disk: the true radius of every point, and the angle of its layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.errors import StoreError
from hypclip.geometry import lorentz
from hypclip.geometry.rings import rings as rings
from hypclip.search.contents import Contents, ascending
from hypclip.search.layout.circle import Circle, Floats

_KEYS = 2**32
_BLOCK = 2**20


@dataclass(frozen=True)
class Disk:
    """All points of a collection, ascending by key.

    Args:
        keys: (n,).
        radius: (n,) distances to the root.
        angle: (n,) in [0, 2π).
        modality: (n,) codes of `MODALITIES`.
        rows: (n,) of the points in the blocks that they were read in.
    """

    keys: NDArray[np.uint32]
    radius: Floats
    angle: Floats
    modality: NDArray[np.uint8]
    rows: NDArray[np.intp]

    @classmethod
    def of(cls, contents: Contents, circle: Circle, curv: float) -> Disk:
        """Place all points of a collection.

        Raises:
            StoreError: its keys have outgrown 32 bits.
        """
        blocks = contents.read()
        keys, rows = ascending(blocks)
        if len(keys) and keys[-1] >= _KEYS:
            raise StoreError("the keys of this collection have outgrown 32 bits: write its points into a new index")
        radius, angle = np.zeros(0, np.float32), np.zeros(0, np.float32)
        modality = np.zeros(0, np.uint8)
        if blocks:
            radius = np.concatenate([radii(block.vectors, curv) for block in blocks])[rows]
            angle = np.concatenate([circle.angles(block.vectors) for block in blocks])[rows]
            modality = np.concatenate([block.modality for block in blocks])[rows]
        return cls(keys.astype(np.uint32), radius, angle, modality, rows)

    def sample(self, most: int) -> NDArray[np.intp]:
        """Return rows, ascending: all, or as many as are wanted with every range of radii in its share."""
        if len(self.keys) <= most:
            return np.arange(len(self.keys))
        by_radius = np.argsort(self.radius, kind="stable")
        return np.sort(by_radius[np.arange(most) * len(by_radius) // most])


def radii(x: Floats, curv: float) -> Floats:
    """Return the distances to the root, computed in float64, of points (n, D)."""
    size = max(1, _BLOCK // x.shape[1])
    parts = (torch.from_numpy(x[start : start + size].astype(np.float64)) for start in range(0, len(x), size))
    return np.concatenate(
        [np.zeros(0, np.float32), *(lorentz.radius(part, curv).numpy().astype(np.float32) for part in parts)]
    )
