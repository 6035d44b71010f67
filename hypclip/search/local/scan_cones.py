"""Scans of a table in float32 for cones: candidates by the bounds of products.py."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from hypclip.geometry import cones, polar
from hypclip.geometry.entailment import Cone
from hypclip.search.limits import MAX_SINH_RADIUS
from hypclip.search.local.products import BLOCK_BYTES, Doubles, Floats, kappa, kept_rows, products
from hypclip.search.local.table import SHELLS_PER_UNIT, Mask, Rows, Snapshot
from hypclip.search.types import Side

_FEW = 16


def cone(
    snapshot: Snapshot, masks: Sequence[Mask | None], of: Doubles, side: Side, cone: Cone, curv: float
) -> Iterator[tuple[int, Rows]]:
    """Yield rows among which are all ancestors or all descendants of a point.

    What the product in float32 lets through is looked at again in float64: far out, cones are narrower than the
    rounding of a float32 cosine. A cone of at most a right angle holds nothing nearer to the origin than its apex,
    and no cone is wider than that where η ≤ 1.
    """
    share, norm = kappa(len(of)), float(np.linalg.norm(of))
    q_time = math.sqrt(1 / curv + norm**2)
    if side == "ancestors":
        cosines, outwards = shell_cosines(cone), cone.eta <= 1
    else:
        angle = _cone_angle(norm, cone, curv)
        cosines, outwards = np.array([math.cos(_origin_angle(norm, angle, curv))]), angle <= math.pi / 2
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
    than (1/2 + coth ρ) 1e-5 rad, ρ the radius of the apex. Rows of a smaller angle, and apexes at the origin, are kept.
    """
    size = max(16, BLOCK_BYTES // (8 * vectors.shape[1]))
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


@functools.lru_cache(maxsize=64)
def shell_cosines(cone: Cone) -> Doubles:
    """Return for each shell the smallest cosine, at the origin, between a point of it and what its cone may hold.

    It is that of the shell's inner edge, because cones further out are narrower. Do not change what it returns.
    """
    edges = np.arange(int(SHELLS_PER_UNIT * math.asinh(MAX_SINH_RADIUS)) + 2) / SHELLS_PER_UNIT
    apertures = cones.half_aperture(torch.from_numpy(np.sinh(edges))[:, None], 1.0, cone.min_radius)
    angles = torch.clamp(cone.eta * apertures, max=math.pi)
    cosines: Doubles = torch.cos(cones.origin_angle(torch.from_numpy(edges), angles, 1.0)).numpy()
    return cosines


def _cone_angle(norm: float, cone: Cone, curv: float) -> float:
    """Return η ω of a point with this |x|, at most π."""
    x = torch.tensor([math.sqrt(curv) * norm], dtype=torch.float64)
    return min(math.pi, cone.eta * float(cones.half_aperture(x, 1.0, cone.min_radius)))


def _origin_angle(norm: float, angle: float, curv: float) -> float:
    radius = torch.tensor(math.asinh(math.sqrt(curv) * norm), dtype=torch.float64)
    return float(cones.origin_angle(radius, angle, 1.0))
