"""Maps of collections, and views of them from one point: what a page draws, computed once and remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hypclip.geometry import cones, focus, lorentz
from hypclip.geometry.entailment import Entailment, Plane
from hypclip.search import Contents, Modality, Space, VectorStore
from hypclip.search.hierarchy.focus import ANCESTOR, DESCENDANT, ITSELF
from hypclip.search.hierarchy.focus import focus as focus_of
from hypclip.search.layout.disk import Disk, rings
from hypclip.search.layout.kept import About, Layout, Layouts
from hypclip.search.where import MODALITIES
from serve.columns import columns
from serve.schemas.operations import rule_info

MOST_SHOWN = 500_000
"""Of a larger collection a map has a sample of so many points."""

_COLLECTIONS = 8
"""So many maps are remembered."""
_QUANTILES = 33
_NEAR_MISSES = 24
"""So many points outside of a region are told apart as the nearest to it."""


@dataclass(frozen=True)
class Map:
    """One state of a collection as it is drawn; `version` names both."""

    version: str
    space: Space
    contents: Contents
    layout: Layout
    disk: Disk


class Explorer:
    """Maker of maps and views, which remembers the latest.

    Calls block and may come from several threads.

    Args:
        store: of the collections.
        directory: where layouts are kept.
    """

    def __init__(self, store: VectorStore, directory: Path):
        self._store, self._layouts = store, Layouts(directory)
        self._lock = threading.Lock()
        self._latest: OrderedDict[str, Map] = OrderedDict()

    def version(self, name: str) -> str:
        """Return what names the state of a collection and its layout.

        Raises:
            UnknownCollection: there is none of this name.
        """
        space, contents = self._store.space(name), self._store.contents(name)
        return _version(contents, self._layouts.of(name, space, contents))

    def renew(self, name: str) -> About:
        """Lay a collection out anew, and return what is known of the layout.

        Raises:
            UnknownCollection: there is none of this name.
        """
        return self._layouts.of(name, self._store.space(name), self._store.contents(name), anew=True).about

    def map(self, name: str) -> tuple[str, bytes]:
        """Return the map of a collection, its version and its columns.

        Raises:
            UnknownCollection: there is none of this name.
        """
        drawn = self._drawn(name)
        disk, space = drawn.disk, drawn.space
        rows = disk.sample(MOST_SHOWN)
        largest = float(disk.radius.max(initial=0))
        fractions = np.linspace(0, 1, _QUANTILES)
        header = {
            "collection": name,
            "version": drawn.version,
            "layout": drawn.layout.about.version,
            "model": space.model_id,
            "curv": space.curv,
            "dim": space.dim,
            "entailment": rule_info(space.entailment).model_dump(),
            "count": len(disk.keys),
            "shown": len(rows),
            "sampled": len(rows) < len(disk.keys),
            "max_radius": largest,
            "rings": rings(largest),
            "quantiles": np.quantile(disk.radius, fractions).tolist() if len(disk.keys) else [0.0] * _QUANTILES,
            "modalities": list(MODALITIES),
            "counts": _counts(disk.modality),
        }
        arrays: dict[str, NDArray[Any]] = {
            "key": disk.keys,
            "radius": disk.radius,
            "angle": disk.angle,
            "modality": disk.modality,
        }
        return drawn.version, columns(header, {column: array[rows] for column, array in arrays.items()})

    def focus(
        self,
        name: str,
        x: Tensor,
        rule: Entailment,
        target: Tensor | None,
        of: dict[str, Any],
    ) -> bytes:
        """Return all points of a collection as seen from one point, in columns.

        Args:
            name: of the collection.
            x: float32 space components (D,) of the point.
            rule: what entails what.
            target: gives the plane to draw in together with the point; with the root when absent, or in the same place.
            of: what the header says of the point besides.

        Raises:
            UnknownCollection: there is none of this name.
        """
        if target is not None and torch.equal(x, target):
            target = None  # no direction leads to it
        drawn = self._drawn(name)
        disk, space = drawn.disk, drawn.space
        curv, exact = space.curv, x.double()
        found = focus_of(drawn.contents, exact, rule, curv, None if target is None else target.double())
        here = float(drawn.layout.circle.angles(x.numpy()[None])[0])
        rows = disk.rows
        flags = found.flags[rows]
        header: dict[str, Any] = {
            "collection": name,
            "version": drawn.version,
            "curv": curv,
            "of": {**of, "radius": float(lorentz.radius(exact, curv)), "angle": here},
            "rule": rule_info(rule).model_dump(),
            "half_aperture": _half_aperture(exact, rule, curv),
            "counts": {
                "ancestors": int(np.count_nonzero(flags & ANCESTOR)),
                "descendants": int(np.count_nonzero(flags & DESCENDANT)),
            },
            "near_misses": {
                "above": _near_miss(found.above[rows], (flags & (ANCESTOR | ITSELF)) == 0),
                "below": _near_miss(found.below[rows], (flags & (DESCENDANT | ITSELF)) == 0),
            },
        }
        if target is not None:
            aim = target.double()
            header["target"] = {
                "radius": float(lorentz.radius(aim, curv)),
                "distance": float(lorentz.dist(exact, aim, curv)),
            }
            radius, angle = focus.about_point(torch.zeros_like(exact)[None], exact, aim, curv)
            header["root"] = {"radius": float(radius[0]), "angle": float(angle[0])}
        return columns(
            header,
            {
                "key": disk.keys,
                "radius": found.radius[rows],
                "angle": _signed(found.angle[rows], disk.angle, here),
                "flags": flags,
                "above": found.above[rows],
                "below": found.below[rows],
            },
        )

    def _drawn(self, name: str) -> Map:
        """Return the map of a collection as it is now."""
        space, contents = self._store.space(name), self._store.contents(name)
        layout = self._layouts.of(name, space, contents)
        version = _version(contents, layout)
        with self._lock:
            known = self._latest.get(name)
            if known is None or known.version != version:
                known = Map(version, space, contents, layout, Disk.of(contents, layout.circle, space.curv))
                self._latest[name] = known
            self._latest.move_to_end(name)
            while len(self._latest) > _COLLECTIONS:
                self._latest.popitem(last=False)
            return known


def _version(contents: Contents, layout: Layout) -> str:
    return f"{contents.version}.{layout.about.token}"


def _counts(modality: NDArray[np.uint8]) -> dict[Modality, int]:
    return dict(zip(MODALITIES, np.bincount(modality, minlength=len(MODALITIES)).tolist(), strict=True))


def _near_miss(margins: NDArray[np.float32], is_outside: NDArray[np.bool_]) -> float | None:
    """Return the margin within which the few points lie that are outside of a region and nearest to it."""
    outside = margins[is_outside]
    if not len(outside):
        return None
    last = min(_NEAR_MISSES, len(outside)) - 1
    return float(np.partition(outside, last)[last])


def _half_aperture(x: Tensor, rule: Entailment, curv: float) -> float:
    """Return half the width of the cone or half-space of a point, in radians."""
    if isinstance(rule, Plane):
        return np.pi / 2
    return min(np.pi, rule.eta * float(cones.half_aperture(x, curv, rule.min_radius)))


def _signed(angle: NDArray[np.float32], placed: NDArray[np.float32], here: float) -> NDArray[np.float32]:
    """Return angles with the sign of the way on the map, from the place of the focus to that of the point."""
    turn = np.remainder(placed - np.float32(here), np.float32(2 * np.pi))
    signed: NDArray[np.float32] = np.where(turn > np.float32(np.pi), -angle, angle)
    return signed
