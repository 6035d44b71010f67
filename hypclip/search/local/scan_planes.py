"""Scans of a table in float32 for half-spaces: one product per row decides all rows but the few at the border.

With q the query, u_q its direction and x a row, of radii ρ_q and ρ_x at curvature −1,

    sinh height(q, x) = √c cosh ρ_q u_q·x − sinh ρ_q √c x_t                    descendants: x in the half-space of q
    sinh height(x, q) = c q·x x_t/|x| − cosh ρ_q √c |x|                         ancestors: q in the half-space of x

so that both take a product of the stored space components with one vector, and the |x| and x_t that the table holds.
Both terms are at most cosh ρ_q √c x_t, and so the rounding is at most e times that, e = (D + 32) 2⁻²⁴. Rows that are
inside by more are inside; those within e of the border, and all that can be on the page asked for, are measured again
in float64 (exact.py), which decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hypclip.geometry.entailment import Plane
from hypclip.search.limits import sinh_threshold
from hypclip.search.local.products import Doubles, Floats, SegmentRows, kept_rows, products
from hypclip.search.local.table import Mask, Rows, Snapshot
from hypclip.search.route import Route, places_and_limit
from hypclip.search.types import OrderBy, Side

_FEW = 16
"""So many rows are measured sooner than ranked."""
_PLACES = 64
_TINY = np.float32(1e-30)
"""Products of numbers below it vanish in float32."""


@dataclass(frozen=True)
class Border:
    """Float32 test of the side of the border that rows lie on, from their products with `weights`.

    Args:
        side: of the query.
        weights: (D,) to multiply the rows with.
        sinh: sinh ρ_q.
        sqrt_c: √c.
        threshold: of the height.
    """

    side: Side
    weights: Doubles
    sinh: float
    sqrt_c: float
    threshold: float

    @classmethod
    def of(cls, of: Doubles, side: Side, threshold: float, curv: float) -> Border:
        """Return that of a query's ancestors or descendants."""
        sqrt_c, norm = math.sqrt(curv), float(np.linalg.norm(of))
        if side == "ancestors":
            return cls(side, curv * of, sqrt_c * norm, sqrt_c, threshold)
        unit = of / norm if norm > 0 else of
        return cls(side, sqrt_c * math.cosh(math.asinh(sqrt_c * norm)) * unit, sqrt_c * norm, sqrt_c, threshold)

    @property
    def cosh(self) -> float:
        """Return cosh ρ_q."""
        return math.sqrt(1 + self.sinh**2)

    @property
    def rounding(self) -> float:
        """Return e."""
        return (len(self.weights) + 32) * 2.0**-24

    def beyond(self, product: Floats, norms: Floats, times: Floats, sign: int) -> Mask:
        """Mark the rows that may be inside (sign −1), or are for sure (sign 1)."""
        e = sign * self.rounding
        limit = sinh_threshold(self.threshold)
        if self.side == "descendants":
            line = times * np.float32(self.sqrt_c * (self.sinh + e * self.cosh))
            line += np.float32(limit + e * (1 + abs(limit)))
            marks: Mask = product >= line
            return marks
        # Times |x|, so that the origin, which lies on the border of every height ≤ 0, divides nothing.
        line = norms * np.float32(self.sqrt_c * self.cosh * (1 + e))
        line += np.float32(limit + e * (1 + abs(limit) + self.cosh))
        line *= norms
        line += sign * _TINY
        above: Mask = product * times >= line
        return above

    def heights(self, product: Floats, norms: Floats, times: Floats) -> tuple[Floats, Floats]:
        """Return sinh of the heights, and how far off they may be, margins that tie in 12 digits included."""
        share = self.rounding + min(2.0, 1e-10 * (1 + abs(self.threshold)))
        slack = np.float32(share) * (1 + times * np.float32(self.sqrt_c * self.cosh))
        if self.side == "descendants":
            return product - times * np.float32(self.sqrt_c * self.sinh), slack
        along = product * times / np.maximum(norms, _TINY)
        return along - norms * np.float32(self.sqrt_c * self.cosh), slack

    def distances(self, product: Floats, times: Floats) -> tuple[Floats, Floats]:
        """Return −<q, x>_L, which is greater the farther a row is, and how far off it may be."""
        per_product = 1 / self.sqrt_c**2 if self.side == "ancestors" else self.sinh / (self.sqrt_c**2 * self.cosh)
        far = times * np.float32(self.cosh / self.sqrt_c)
        return far - product * np.float32(per_product), far * np.float32(2 * self.rounding)

    def copies(self, product: Floats, norms: Floats) -> Mask:
        """Mark the rows that may be copies of the query."""
        norm, length = self.sinh / self.sqrt_c, float(np.linalg.norm(self.weights))
        near: Mask = np.abs(norms - np.float32(norm)) <= np.float32(1e-6 * norm)
        return near & (product >= np.float32(length * norm * (1 - 2 * self.rounding)))


def search(
    snapshot: Snapshot,
    masks: Sequence[Mask | None],
    of: Doubles,
    side: Side,
    plane: Plane,
    curv: float,
    order_by: OrderBy,
    wanted: int,
) -> tuple[SegmentRows, int]:
    """Return rows to measure, among which are the first so many inside, and how many more are inside for sure.

    Args:
        snapshot: what to search.
        masks: which rows of each segment count.
        of: (D,) space components of the query.
        side: ancestors or descendants of it.
        plane: which of them are inside.
        curv: c > 0.
        order_by: which come first.
        wanted: how many, at least 1; those that tie with the last one too.
    """
    border = Border.of(of, side, plane.threshold, curv)
    found = list(_inside(snapshot, masks, border))
    if sum(len(rows) for _, rows, *_ in found) <= wanted + _FEW:
        return [(i, rows) for i, rows, *_ in found], 0
    chosen = _first([columns for _, _, *columns in found], border, plane.strict, order_by, wanted)
    parts = np.split(chosen, np.cumsum([len(rows) for _, rows, *_ in found])[:-1])
    rows_of: SegmentRows = [(i, rows[part]) for (i, rows, *_), part in zip(found, parts, strict=True)]
    return rows_of, len(chosen) - int(np.count_nonzero(chosen))


def candidates(
    snapshot: Snapshot, masks: Sequence[Mask | None], of: Doubles, side: Side, plane: Plane, curv: float
) -> SegmentRows:
    """Return rows among which are all ancestors or all descendants of a point."""
    return [(i, rows) for i, rows, *_ in _inside(snapshot, masks, Border.of(of, side, plane.threshold, curv))]


def _inside(
    snapshot: Snapshot, masks: Sequence[Mask | None], border: Border
) -> Iterator[tuple[int, Rows, Floats, Floats, Floats]]:
    """Yield rows that may be inside, by segment, with their products, |x| and x_t."""
    for i, block, product in products(snapshot, border.weights):
        norms, times = snapshot[i].columns.norms[block], snapshot[i].columns.times[block]
        rows = kept_rows(border.beyond(product, norms, times, -1), block, masks[i])
        if len(rows):
            at = rows - block.start
            yield i, rows, product[at], norms[at], times[at]


def _first(columns: Sequence[Sequence[Floats]], border: Border, strict: bool, order_by: OrderBy, wanted: int) -> Mask:
    """Mark the rows that may be among the first, and those that may be outside."""
    product, norms, times = (np.concatenate(column) for column in zip(*columns, strict=True))
    sure = border.beyond(product, norms, times, 1)
    if strict and border.threshold < 0:  # copies have height 0
        sure &= ~border.copies(product, norms)
    if order_by == "margin":
        height, slack = border.heights(product, norms, times)
        key = -height
    elif order_by == "distance":
        key, slack = border.distances(product, times)
    else:
        key, slack = norms, norms * np.float32(2.0**-22)
    upper = (key + slack)[sure]
    if len(upper) < wanted:
        return np.ones(len(key), np.bool_)
    marks: Mask = key - slack <= np.partition(upper, wanted - 1)[wanted - 1]
    return marks | ~sure


def on_route(
    snapshot: Snapshot, masks: Sequence[Mask | None], route: Route, plane: Plane, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are the ancestors of every place of a route: see `places_and_limit`."""
    places, limit = places_and_limit(route, plane)
    ends = torch.stack([route.start, route.target]).numpy()
    share = (ends.shape[1] + 32) * 2.0**-24
    weights = route.coefficients(places).numpy()
    end_times = np.sqrt(1 / curv + np.einsum("ed,ed->e", ends, ends))
    size = np.abs(weights[:, :2]) @ end_times + weights[:, 2]
    low = np.float32(limit - share * (1 + abs(limit)))
    for i, block, product in products(snapshot, ends):
        norms, times = snapshot[i].columns.norms[block], snapshot[i].columns.times[block]
        marks = norms <= np.float32(1e-24)
        over = np.maximum(norms, _TINY)
        features = np.concatenate([product * (times / over), times[None], norms[None]])
        for start in range(0, len(weights), _PLACES):
            some = slice(start, start + _PLACES)
            slack = curv * share * size[some]
            by = np.column_stack([curv * weights[some, :2], slack, -curv * weights[some, 2]])
            marks |= ((by.astype(np.float32) @ features) >= low).any(0)
        yield i, kept_rows(marks, block, masks[i])
