"""Scans of a table in float32 that name candidates: every true answer is among them, whatever the rounding.

One product x·q a row, of stored space components with those of the query, is all that is read of the vectors. With
κ = (D + 8) 2⁻²⁴, its rounding and that of the stored |x| and x_t are below κ |x||q| ≤ κ x_t q_t. So with u = x_t q_t

    u (1 − κ) − x·q  ≤  −<x, q>_L = cosh(√c d)/c  ≤  u (1 + κ) − x·q

bound the distance, and x·q/(|x||q|) ± κ bounds the cosine of the angle at the root. What the bounds cannot decide is
measured in float64 (exact.py). A cone lies within a range of cosines: see cones.root_angle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.geometry import cones, lorentz, polar
from hypclip.geometry.entailment import Cone
from hypclip.search.path import Path
from hypclip.search.store import MAX_SINH_RADIUS, Side
from hypclip.search.table import SHELLS_PER_UNIT, Mask, Rows, Snapshot

_BLOCK_BYTES = 2**21
_GROUP = 64
_QUERIES = 64
_FEW = 16
_COARSE, _FINE = 9, 65

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Places = list[tuple[int, Rows]]


def kappa(dim: int) -> float:
    """Return κ, the relative rounding of a float32 product of D terms and of what is compared with it."""
    return (dim + 8) * 2.0**-24


def nearest(
    snapshot: Snapshot, masks: Sequence[Mask | None], queries: Doubles, k: int, curv: float, probing: bool = False
) -> list[Places]:
    """Return for each query rows among which the k nearest are.

    Args:
        snapshot: what to search.
        masks: which rows of each segment count.
        queries: (Q, D) space components.
        k: at least 1.
        curv: c > 0.
        probing: look only at the most promising cells of segments that have cells.
    """
    if probing:
        return [places for q in queries for places in _nearest(snapshot, masks, q[None], k, curv, True)]
    chunks = np.array_split(queries, math.ceil(len(queries) / _QUERIES)) if len(queries) else []
    return [places for chunk in chunks for places in _nearest(snapshot, masks, chunk, k, curv, False)]


def _nearest(
    snapshot: Snapshot, masks: Sequence[Mask | None], queries: Doubles, k: int, curv: float, probing: bool
) -> list[Places]:
    best = _Best(queries, k, curv)
    for i, (segment, mask) in enumerate(zip(snapshot, masks, strict=True)):
        if probing and segment.cells is not None:
            for rows in _probed(segment.cells.centroids, segment.cells.starts, segment.cells.probes, queries[0], curv):
                best.feed(i, rows, segment.columns.vectors, segment.columns.times, mask)
        else:
            for rows in _blocks(len(segment), len(queries)):
                best.feed(i, rows, segment.columns.vectors, segment.columns.times, mask)
    return best.places()


class _Best:
    """The rows that may be among the k nearest, block after block.

    Rows are looked at in groups. The k best groups hold k rows, so the worst upper bound of these is above the k-th
    smallest distance; only groups with a lower bound below it are opened.
    """

    def __init__(self, queries: Doubles, k: int, curv: float):
        self._queries = queries.astype(np.float32)
        self._k = k
        q_time = np.sqrt(1 / curv + np.einsum("qd,qd->q", queries, queries))[:, None]
        share = kappa(queries.shape[1])
        self._lower = (q_time * (1 - share)).astype(np.float32)
        self._width = (q_time * (2 * share) * (1 + 1e-6)).astype(np.float32)
        self._uppers = np.full((len(queries), k), np.inf, np.float32)
        self._kept: list[tuple[int, NDArray[np.intp], Rows, Floats]] = []

    def feed(self, segment: int, rows: slice, vectors: Floats, times: Floats, mask: Mask | None) -> None:
        """Look at the rows of a slice."""
        n, t = rows.stop - rows.start, times[rows]
        size = max(1, min(_GROUP, n // (2 * self._k)))
        groups = -(-n // size)
        scores = np.empty((len(self._queries), groups * size), np.float32)
        scores[:, n:] = np.inf
        low = scores[:, :n]
        np.multiply(self._lower, t, out=low)
        low -= (vectors[rows] @ self._queries[0])[None] if len(low) == 1 else self._queries @ vectors[rows].T
        if mask is not None:
            low[:, ~mask[rows]] = np.inf
        grouped = scores.reshape(len(low), groups, size)
        smallest = grouped.min(-1)
        self._tighten(grouped, smallest, t)
        limit = self._uppers[:, -1:]
        query, group = np.nonzero((smallest <= limit) & (smallest < np.inf))
        opened = grouped[query, group]
        which, within = np.nonzero((opened <= limit[query]) & (opened < np.inf))
        found = group[which] * size + within + rows.start
        self._kept.append((segment, query[which], found, opened[which, within]))

    def _tighten(self, grouped: Floats, smallest: Floats, times: Floats) -> None:
        k = min(self._k, smallest.shape[1])
        if k < smallest.shape[1]:
            first = np.argpartition(smallest, k - 1, axis=1)[:, :k]
        else:
            first = np.tile(np.arange(k), (len(smallest), 1))
        members = np.take_along_axis(grouped, first[..., None], 1)
        at = members.argmin(-1)
        rows = np.minimum(first * grouped.shape[2] + at, len(times) - 1)
        uppers = np.take_along_axis(members, at[..., None], 2)[..., 0] + self._width * times[rows]
        both = np.concatenate([self._uppers, uppers], axis=1)
        self._uppers = np.sort(both, axis=1)[:, : self._k]

    def places(self) -> list[Places]:
        """Return what is left for each query."""
        answers: list[Places] = [[] for _ in self._queries]
        limit = self._uppers[:, -1]
        for segment, query, rows, low in self._kept:
            keep = low <= limit[query]
            query, rows = query[keep], rows[keep]
            for q in np.unique(query).tolist() if len(answers) > 1 else [0]:
                answers[q].append((segment, rows[query == q] if len(answers) > 1 else rows))
        return answers


def _probed(centroids: Floats, starts: NDArray[np.int64], probes: int, query: Doubles, curv: float) -> Iterator[slice]:
    """Yield the rows of the cells whose centroids are nearest to log_0(query)."""
    norm = float(np.linalg.norm(query))
    root = math.sqrt(curv)
    tangent = query * (math.asinh(root * norm) / (root * norm)) if norm > 0 else query
    scores = np.einsum("md,md->m", centroids, centroids) / 2 - centroids @ tangent.astype(np.float32)
    probes = min(probes, len(scores))
    cells = np.sort(np.argpartition(scores, probes - 1)[:probes])
    start = stop = -1
    for cell in cells.tolist():  # neighbouring cells are read as one
        if int(starts[cell]) != stop:
            if stop > start:
                yield slice(start, stop)
            start = int(starts[cell])
        stop = int(starts[cell + 1])
    if stop > start:
        yield slice(start, stop)


def within(
    snapshot: Snapshot, masks: Sequence[Mask | None], query: Doubles, distance: float, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are all that lie at most a distance from the query."""
    share = kappa(len(query))
    q_time = math.sqrt(1 / curv + float(query @ query))
    reach = math.sqrt(curv) * distance
    limit = math.cosh(reach) / curv * (1 + 1e-6) if reach < 80 else math.inf
    for i, rows, product in products(snapshot, query):
        low = snapshot[i].columns.times[rows] * np.float32(q_time * (1 - share)) - product
        yield i, kept_rows(low <= np.float32(limit), rows, masks[i])


def cone(
    snapshot: Snapshot, masks: Sequence[Mask | None], of: Doubles, side: Side, cone: Cone, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are all ancestors or all descendants of a point.

    What the product in float32 lets through is looked at again in float64: far out, cones are narrower than the
    rounding of a float32 cosine. A cone of at most a right angle holds nothing nearer to the root than its apex, and no
    cone is wider than that where η ≤ 1.
    """
    share, norm = kappa(len(of)), float(np.linalg.norm(of))
    q_time = math.sqrt(1 / curv + norm**2)
    if side == "ancestors":
        cosines, outwards = shell_cosines(cone), cone.eta <= 1
    else:
        angle = _cone_angle(norm, cone, curv)
        cosines, outwards = np.array([math.cos(_root_angle(norm, angle, curv))]), angle <= math.pi / 2
    first = ((cosines - share - 1e-6) * norm).astype(np.float32)
    for i, rows, product in products(snapshot, of):
        columns = snapshot[i].columns.take(rows)
        shells = columns.shells if side == "ancestors" else np.zeros(1, np.uint16)
        marks = product >= first.take(shells, mode="clip") * columns.norms
        if outwards and side == "ancestors":
            marks &= columns.times <= np.float32(q_time * (1 + 1e-6))
        elif outwards:
            marks &= columns.times >= np.float32(q_time * (1 - 1e-6))
        kept = kept_rows(marks, rows, masks[i])
        if len(kept) > _FEW:
            kept = kept[_may_hold(snapshot[i].columns.vectors, kept, of, side, cone, curv)]
        yield i, kept


def _may_hold(vectors: Floats, rows: Rows, of: Doubles, side: Side, cone: Cone, curv: float) -> Mask:
    """Tell which rows may be in the cone, from their products with the query in float64 and nothing else.

    1 − cos θ is known to 1e-12. From 1e-7 on that is a relative error of 1e-5, which moves the exterior angle by less
    than (1/2 + coth ρ) 1e-5 rad, ρ the radius of the apex. Rows of a smaller angle, and apexes at the root, are kept.
    """
    size = max(16, _BLOCK_BYTES // (8 * vectors.shape[1]))
    q_norm = float(np.linalg.norm(of))
    found = []
    for start in range(0, len(rows), size):
        x = vectors[rows[start : start + size]].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", x, x))
        lengths = norms * q_norm
        cosines = np.divide(x @ of, lengths, out=np.ones_like(lengths), where=lengths > 0)
        om = torch.from_numpy(np.clip(1 - cosines, 0, 2))
        sinh_x = math.sqrt(curv) * torch.from_numpy(norms)
        sinh_q = torch.full_like(sinh_x, math.sqrt(curv) * q_norm)
        general, specific = (sinh_x, sinh_q) if side == "ancestors" else (sinh_q, sinh_x)
        angle = polar.exterior_angle(general, specific, om, 2 - om)
        held = angle <= cone.eta * polar.half_aperture(general, cone.min_radius) + 1e-3
        found.append((held | (om < 1e-7) | (general < 0.02)).numpy())
    marks: Mask = np.concatenate(found)
    return marks


def arc(
    snapshot: Snapshot, masks: Sequence[Mask | None], path: Path, cone: Cone, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are the ancestors of every place of a path.

    The directions of the places fill the arc between those of its ends. The cosine of x with the nearest of them
    follows from the projection of x on the plane of the arc.
    """
    start, end = path.start.numpy(), path.target.numpy()
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


def along(snapshot: Snapshot, masks: Sequence[Mask | None], path: Path, curv: float) -> Places:
    """Return rows among which is the nearest of every place of a path.

    On the geodesic, r of the way between the ends as they lie in the ambient space, −<z, x>_L of a row is a line in r
    but for a factor of the place. So the nearest form the lower envelope of lines. Between two places where the nearest
    are known, a row that lies above these two at both ends, and above the higher of them at a place between, lies above
    the envelope. Steps that leave the geodesic are all looked at.
    """
    ends = torch.stack([path.start, path.target]).numpy()
    held = [(i, first, f) for i, first, f in _features(snapshot, masks, ends) if np.isfinite(f[2]).any()]
    marks = _contending([features for *_, features in held], path, ends, curv, kappa(ends.shape[1] + 8), _COARSE)
    kept: Places = [(i, np.flatnonzero(m) + first) for (i, first, _), m in zip(held, marks, strict=True)]
    if sum(len(rows) for _, rows in kept) <= _FEW:
        return kept
    # Again in float64, of the few: far out, float32 does not tell many rows apart.
    sharp = [_exact_features(snapshot[i].columns.vectors[rows], ends, curv) for i, rows in kept if len(rows)]
    kept = [(i, rows) for i, rows in kept if len(rows)]
    marks = _contending(sharp, path, ends, curv, kappa(ends.shape[1] + 8) * 2.0**-28, _FINE)
    return [(i, rows[m]) for (i, rows), m in zip(kept, marks, strict=True)]


def _contending(
    blocks: Sequence[Floats | Doubles], path: Path, ends: Doubles, curv: float, share: float, count: int
) -> list[Mask]:
    """Mark the rows of each block of features that may be the nearest somewhere.

    `share` is the rounding of the features, `count` at how many places of a geodesic they are compared.
    """
    if not blocks:
        return []
    if path.straight:
        r = _spread(path, count)
        first = _Places.on_geodesic(r, ends, curv, share)
    else:
        first = _Places.at(path.coefficients(path.fractions()).numpy(), ends, curv, share)
    nearest = first.nearest(blocks)
    limits = [first.upper(nearest).diagonal()]
    places = [first]
    if path.straight:
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


def _spread(path: Path, count: int) -> Doubles:
    """Return places r of a geodesic that lie at equal distances."""
    length = math.sqrt(path.curv) * float(lorentz.dist(path.start, path.target, path.curv))
    t = np.linspace(0, 1, count)
    if length < 1e-6:
        return t
    before, behind = np.sinh((1 - t) * length), np.sinh(t * length)
    found: Doubles = behind / (before + behind)
    return found


class _Places:
    """Places of a path as weights of what is known of a row: the products with both ends, and x_t."""

    def __init__(self, weights: Doubles, slack: Doubles):
        self._low, self._high = (weights + sign * slack[:, None] * np.array([0, 0, 1.0]) for sign in (-1, 1))

    @classmethod
    def at(cls, coefficients: Doubles, ends: Doubles, curv: float, share: float) -> _Places:
        """From the coefficients of `Path.coefficients`, for features with this rounding."""
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


@functools.lru_cache(maxsize=64)
def shell_cosines(cone: Cone) -> Doubles:
    """Return for each shell the smallest cosine, at the root, between a point of it and what its cone may hold.

    It is that of the shell's inner edge, because cones further out are narrower. Do not change what it returns.
    """
    edges = np.arange(int(SHELLS_PER_UNIT * math.asinh(MAX_SINH_RADIUS)) + 2) / SHELLS_PER_UNIT
    apertures = cones.half_aperture(torch.from_numpy(np.sinh(edges))[:, None], 1.0, cone.min_radius)
    angles = torch.clamp(cone.eta * apertures, max=math.pi)
    cosines: Doubles = torch.cos(cones.root_angle(torch.from_numpy(edges), angles, 1.0)).numpy()
    return cosines


def _cone_angle(norm: float, cone: Cone, curv: float) -> float:
    """Return η ω of a point with this |x|, at most π."""
    x = torch.tensor([math.sqrt(curv) * norm], dtype=torch.float64)
    return min(math.pi, cone.eta * float(cones.half_aperture(x, 1.0, cone.min_radius)))


def _root_angle(norm: float, angle: float, curv: float) -> float:
    radius = torch.tensor(math.asinh(math.sqrt(curv) * norm), dtype=torch.float64)
    return float(cones.root_angle(radius, angle, 1.0))


def _plane(start: Doubles, end: Doubles) -> tuple[Doubles, Doubles, float]:
    """Return two orthonormal directions that span the ends, the first that of the start, and the angle between them."""
    first = start / max(float(np.linalg.norm(start)), 1e-300)
    if not first.any():
        first = end / max(float(np.linalg.norm(end)), 1e-300)
    across = end - (end @ first) * first
    width = float(np.linalg.norm(across))
    second = across / width if width > 0 else np.zeros_like(across)
    return first, second, math.atan2(width, float(end @ first)) if end.any() and start.any() else 0.0


def products(snapshot: Snapshot, with_: Doubles) -> Iterator[tuple[int, slice, Floats]]:
    """Yield x·q for all rows, in blocks: (n,) of one query, (Q, n) of several, which are few."""
    q = with_.astype(np.float32)
    for i, segment in enumerate(snapshot):
        for rows in _blocks(len(segment), 1):
            vectors = segment.columns.vectors[rows]
            if q.ndim == 1:
                yield i, rows, vectors @ q
            else:  # one by one: a thin matrix costs more; the root costs nothing
                yield i, rows, np.stack([vectors @ one if one.any() else np.zeros_like(vectors[:, 0]) for one in q])


def _blocks(rows: int, queries: int) -> Iterator[slice]:
    size = max(4096, _BLOCK_BYTES // (4 * queries))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def kept_rows(marks: Mask, rows: slice, mask: Mask | None) -> Rows:
    """Return which rows of a slice are marked and wanted."""
    if mask is not None:
        marks = marks & mask[rows]
    found: Rows = np.flatnonzero(marks) + rows.start
    return found
