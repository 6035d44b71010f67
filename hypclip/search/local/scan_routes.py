"""Scans of a table in float32 along routes: candidates by the bounds of products.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone
from hypclip.search.local.products import Doubles, Floats, SegmentRows, kappa, kept_rows, products
from hypclip.search.local.scan_cones import shell_cosines
from hypclip.search.local.table import Mask, Rows, Snapshot
from hypclip.search.route import Route

_FEW = 16

_COARSE = 9

_FINE = 65


def arc(
    snapshot: Snapshot, masks: Sequence[Mask | None], route: Route, cone: Cone, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are the ancestors of every place of a route.

    The directions of the places fill the arc between those of its ends. The cosine of x with the nearest of them
    follows from the projection of x on the plane of the arc.
    """
    start, end = route.start.numpy(), route.target.numpy()
    first, second, angle = _plane(start, end)
    thresholds = (shell_cosines(cone) - 2 * kappa(len(start)) - 1e-6).astype(np.float32)
    for i, rows, product in products(snapshot, np.stack([first, second])):
        a, b = product
        turned = a * np.float32(math.cos(angle)) + b * np.float32(math.sin(angle))
        behind = np.arctan2(b, a)
        between = (behind >= 0) & (behind <= angle)
        cosine = np.where(between, np.hypot(a, b), np.maximum(a, turned))
        segment = snapshot[i]
        yield (
            i,
            kept_rows(cosine >= thresholds[segment.columns.shells[rows]] * segment.columns.norms[rows], rows, masks[i]),
        )


def along(snapshot: Snapshot, masks: Sequence[Mask | None], route: Route, curv: float) -> SegmentRows:
    """Return rows among which is the nearest of every place of a route.

    On the geodesic, r of the way between the ends as they lie in the ambient space, −<z, x>_L of a row is a line in r
    but for a factor of the place. So the nearest form the lower envelope of lines. Between two places where the nearest
    are known, a row that lies above these two at both ends, and above the higher of them at a place between, lies above
    the envelope. Steps that leave the geodesic are all looked at.
    """
    ends = torch.stack([route.start, route.target]).numpy()
    held = [(i, first, f) for i, first, f in _features(snapshot, masks, ends) if np.isfinite(f[2]).any()]
    marks = _candidates([features for *_, features in held], route, ends, curv, kappa(ends.shape[1] + 8), _COARSE)
    kept: SegmentRows = [(i, np.flatnonzero(m) + first) for (i, first, _), m in zip(held, marks, strict=True)]
    if sum(len(rows) for _, rows in kept) <= _FEW:
        return kept
    # Again in float64, of the few: far out, float32 does not tell many rows apart.
    sharp = [_exact_features(snapshot[i].columns.vectors[rows], ends, curv) for i, rows in kept if len(rows)]
    kept = [(i, rows) for i, rows in kept if len(rows)]
    marks = _candidates(sharp, route, ends, curv, kappa(ends.shape[1] + 8) * 2.0**-28, _FINE)
    return [(i, rows[m]) for (i, rows), m in zip(kept, marks, strict=True)]


def _candidates(
    blocks: Sequence[Floats | Doubles], route: Route, ends: Doubles, curv: float, share: float, count: int
) -> list[Mask]:
    """Mark the rows of each block of features that may be the nearest somewhere.

    `share` is the rounding of the features, `count` at how many places of a geodesic they are compared.
    """
    if not blocks:
        return []
    if route.straight:
        r = _spread(route, count)
        first = _Places.on_geodesic(r, ends, curv, share)
    else:
        first = _Places.at(route.coefficients(route.fractions()).numpy(), ends, curv, share)
    nearest = first.nearest(blocks)
    limits = [first.upper(nearest).diagonal()]
    places = [first]
    if route.straight:
        lines = first.upper(nearest)[[0, -1]]  # of each of the nearest, at both ends
        gap = lines[:, :-1] - lines[:, 1:]
        crossing = np.clip(gap[0] / np.where(gap[0] == gap[1], 1, gap[0] - gap[1]), r[:-1], r[1:])
        between = _Places.on_geodesic(crossing, ends, curv, share)
        uppers = between.upper(nearest)
        places.append(between)
        limits.append(np.maximum(uppers.diagonal(), uppers[:, 1:].diagonal()))
    found = []
    for features in blocks:
        marks = np.isfinite(features[2])
        near = np.zeros_like(marks)
        for these, limit in zip(places, limits, strict=True):
            near |= (these.lower(features) <= limit[:, None].astype(features.dtype)).any(0)
        found.append(marks & near)
    return found


def _spread(route: Route, count: int) -> Doubles:
    """Return places r of a geodesic that lie at equal distances."""
    length = math.sqrt(route.curv) * float(lorentz.dist(route.start, route.target, route.curv))
    t = np.linspace(0, 1, count)
    if length < 1e-6:
        return t
    before, behind = np.sinh((1 - t) * length), np.sinh(t * length)
    found: Doubles = behind / (before + behind)
    return found


class _Places:
    """SegmentRows of a route as weights of what is known of a row: the products with both ends, and x_t."""

    def __init__(self, weights: Doubles, slack: Doubles):
        self._low, self._high = (weights + sign * slack[:, None] * np.array([0, 0, 1.0]) for sign in (-1, 1))

    @classmethod
    def at(cls, coefficients: Doubles, ends: Doubles, curv: float, share: float) -> _Places:
        """From the coefficients of `Route.coefficients`, for features with this rounding."""
        end_times = np.sqrt(1 / curv + np.einsum("ed,ed->e", ends, ends))
        size = np.abs(coefficients[:, :2]) @ end_times + coefficients[:, 2]
        return cls(coefficients * [-1, -1, 1], share * size)

    @classmethod
    def on_geodesic(cls, r: Doubles, ends: Doubles, curv: float, share: float) -> _Places:
        """At (1 − r) start + r end, time components included; this is not scaled onto the hyperboloid."""
        end_times = np.sqrt(1 / curv + np.einsum("ed,ed->e", ends, ends))
        return cls.at(np.stack([1 - r, r, (1 - r) * end_times[0] + r * end_times[1]], axis=1), ends, curv, share)

    def lower(self, features: Floats | Doubles) -> Floats | Doubles:
        """Bound −<z, x>_L from below, (places, rows)."""
        found: Floats | Doubles = self._low.astype(features.dtype) @ features
        return found

    def upper(self, features: Doubles) -> Doubles:
        """Bound −<z, x>_L from above, (places, rows)."""
        found: Doubles = self._high @ features
        return found

    def nearest(self, blocks: Sequence[Floats | Doubles]) -> Doubles:
        """Return the features (3, places) of the row with the smallest lower bound at each place."""
        count = len(self._low)
        best, features_of = np.full(count, np.inf), np.zeros((3, count))
        features_of[2] = np.inf
        for features in blocks:
            low = self.lower(features)
            at = low.argmin(1)
            smallest = low[np.arange(count), at]
            better = smallest < best
            best[better] = smallest[better]
            features_of[:, better] = features[:, at[better]]
        return features_of


def _features(snapshot: Snapshot, masks: Sequence[Mask | None], ends: Doubles) -> list[tuple[int, int, Floats]]:
    """Return (segment, first row, features (3, n)) a block; rows that do not count are infinitely far."""
    held = []
    for i, rows, product in products(snapshot, ends):
        mask = masks[i]
        times = snapshot[i].columns.times[rows]
        wanted = times if mask is None else np.where(mask[rows], times, np.float32(np.inf))
        held.append((i, rows.start, np.concatenate([product, wanted[None]])))
    return held


def _exact_features(vectors: Floats, ends: Doubles, curv: float) -> Doubles:
    """Return features (3, n) in float64."""
    x = vectors.astype(np.float64)
    times = np.sqrt(1 / curv + np.einsum("nd,nd->n", x, x))
    return np.concatenate([ends @ x.T, times[None]])


def _plane(start: Doubles, end: Doubles) -> tuple[Doubles, Doubles, float]:
    """Return two orthonormal directions that span the ends, the first that of the start, and the angle between them."""
    first = start / max(float(np.linalg.norm(start)), 1e-300)
    if not first.any():
        first = end / max(float(np.linalg.norm(end)), 1e-300)
    across = end - (end @ first) * first
    width = float(np.linalg.norm(across))
    second = across / width if width > 0 else np.zeros_like(across)
    return first, second, math.atan2(width, float(end @ first)) if end.any() and start.any() else 0.0
