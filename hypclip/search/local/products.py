"""Scans of a table in float32 that name candidates: every true answer is among them, whatever the rounding.

One product x·q per row, of stored space components with those of the query, is all that is read of the vectors. With
κ = (D + 8) 2⁻²⁴, its rounding and that of the stored |x| and x_t are below κ |x||q| ≤ κ x_t q_t. So with u = x_t q_t

    u (1 − κ) − x·q  ≤  −<x, q>_L = cosh(√c d)/c  ≤  u (1 + κ) − x·q

bound the distance, and x·q/(|x||q|) ± κ bounds the cosine of the angle at the origin. What the bounds cannot decide is
measured in float64 (exact.py). A cone lies within a range of cosines: see cones.origin_angle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hypclip.search.local.table import Mask, Rows, Snapshot

BLOCK_BYTES = 2**21


Floats = NDArray[np.float32]

Doubles = NDArray[np.float64]

SegmentRows = list[tuple[int, Rows]]


def kappa(dim: int) -> float:
    """Return κ, the relative rounding of a float32 product of D terms and of what is compared with it."""
    return (dim + 8) * 2.0**-24


def products(snapshot: Snapshot, with_: Doubles) -> Iterator[tuple[int, slice, Floats]]:
    """Yield x·q for all rows, in blocks: (n,) of one query, (Q, n) of several, which are few."""
    q = with_.astype(np.float32)
    for i, segment in enumerate(snapshot):
        for rows in blocks(len(segment), 1):
            vectors = segment.columns.vectors[rows]
            if q.ndim == 1:
                yield i, rows, vectors @ q
            else:  # one by one: a thin matrix costs more; the origin costs nothing
                yield i, rows, np.stack([vectors @ one if one.any() else np.zeros_like(vectors[:, 0]) for one in q])


def blocks(rows: int, queries: int) -> Iterator[slice]:
    """Yield slices of so many rows that their scores with the queries stay in the cache."""
    size = max(4096, BLOCK_BYTES // (4 * queries))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def kept_rows(marks: Mask, rows: slice, mask: Mask | None) -> Rows:
    """Return which rows of a slice are marked and wanted."""
    if mask is not None:
        marks = marks & mask[rows]
    found: Rows = np.flatnonzero(marks) + rows.start
    return found
