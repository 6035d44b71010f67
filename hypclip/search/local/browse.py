"""Browsing of a collection of the local store: order from the index of ids on disk, and from the radii in memory."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from hypclip.geometry import lorentz
from hypclip.search.browse import (
    MAX_SAMPLE,
    FieldCounter,
    Fields,
    Listed,
    Listing,
    Order,
    check_listing,
    of_cursor,
    rounded,
    to_cursor,
)
from hypclip.search.given import as_ids
from hypclip.search.limits import MAX_RHO
from hypclip.search.local.collection import LoadedCollection
from hypclip.search.local.sqlite import Database, Row
from hypclip.search.local.table import Keys, Mask, Snapshot, count_modalities, segment_rows, selected
from hypclip.search.where import ANYTHING, MODALITIES, Modality, Where

_FEW = 8192
"""Of so many points all ids are read and sorted; of more the index of ids is walked until a page is full."""
_STEPS = (256, 16_384)
_UNSURE = 1e-6
"""Relative error of the norms in memory, which are float32."""

T = TypeVar("T")
Selected: TypeAlias = tuple[Snapshot, list[Mask | None]]


class LocalBrowser:
    """A `Browser` of one collection.

    Args:
        database: where ids and metadata are.
        loaded: the collection.
        select: returns a snapshot and the masks of the rows that meet conditions.
        again: makes an attempt until it returns something, see LocalStore.
    """

    def __init__(
        self,
        database: Database,
        loaded: LoadedCollection,
        select: Callable[[Where], Selected],
        again: Callable[[Callable[[], Any]], Any],
    ):
        self._database, self._loaded, self._select, self._again = database, loaded, select, again

    def page(self, order: Order = "id", after: str | None = None, k: int = 100, where: Where = ANYTHING) -> Listing:
        """Return the next k points that meet the conditions; see Browser."""
        check_listing(order, k)

        def attempt() -> Listing | None:
            snapshot, masks = self._select(where)
            listed = (self._by_id if order == "id" else self._by_radius)(snapshot, masks, after, k + 1)
            if listed is None:
                return None
            page, cursor = listed[:k], None
            if len(listed) > k:
                last = page[-1]
                place = [last.id] if order == "id" else [rounded(last.radius), last.id]
                cursor = to_cursor(order, *place)
            return Listing(page, cursor, selected(snapshot, masks))

        found: Listing = self._again(attempt)
        return found

    def by_ids(self, ids: Sequence[str]) -> list[Listed]:
        """Return the points that exist; see Browser."""
        return self._listed(list(self._database.by_id(self._loaded.number, as_ids(ids)).values()))

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return which of the ids there are points of; see Browser."""
        return self._database.known(self._loaded.number, as_ids(ids))

    def by_keys(self, keys: Sequence[int]) -> list[Listed]:
        """Return the points that exist; see Browser."""
        snapshot = self._loaded.table.snapshot
        # Keys are of all collections together.
        asked = np.unique(np.asarray(keys, np.int64))
        return self._listed(self._database.by_key(_wanted(snapshot, [s.alive for s in snapshot], asked)))

    def modalities(self) -> dict[Modality, int]:
        """Count the points by modality; see Browser."""
        return dict(zip(MODALITIES, count_modalities(self._loaded.table.snapshot), strict=True))

    def fields(self) -> Fields:
        """Describe the fields of the metadata, as they were after the latest write; see Browser."""
        loaded = self._loaded
        with loaded.describing:
            if loaded.described is None or loaded.described[0] != loaded.writes:
                loaded.described = loaded.writes, self._describe()
            return loaded.described[1]

    def _describe(self) -> Fields:
        snapshot, masks = self._select(ANYTHING)
        keys = np.sort(_keys(snapshot, masks))
        every = -(-len(keys) // MAX_SAMPLE) or 1
        sample, counter = keys[::every], FieldCounter()
        for start in range(0, len(sample), _STEPS[1]):
            found = self._database.labels(sample[start : start + _STEPS[1]].tolist())
            counter.add(self._database.metadata(point_id, text) for point_id, text in found.values())
        return Fields(counter.summaries(), len(sample) if every > 1 else None)

    def _by_id(self, snapshot: Snapshot, masks: list[Mask | None], after: str | None, k: int) -> list[Listed] | None:
        """Return the first k points after an id; None where one of them went meanwhile."""
        behind = "" if after is None else of_cursor("id", after, str)[0]
        page: list[int] = []
        if selected(snapshot, masks) <= _FEW:
            found = self._database.labels(_keys(snapshot, masks).tolist())
            ordered = sorted((point_id, key) for key, (point_id, _) in found.items())
            page = [key for _, key in ordered[bisect_right(ordered, behind, key=lambda pair: pair[0]) :][:k]]
        else:
            rows = _STEPS[0]
            while len(page) < k and (walked := self._database.ids_after(self._loaded.number, behind, rows)):
                keys = np.asarray([key for _, key in walked], np.int64)
                page += keys[np.isin(keys, _wanted(snapshot, masks, keys))].tolist()
                behind, rows = walked[-1][0], min(2 * rows, _STEPS[1])
            del page[k:]
        rows_of = self._database.by_key(np.asarray(page, np.int64))
        return sorted(self._listed(rows_of), key=lambda point: point.id) if len(rows_of) == len(page) else None

    def _by_radius(
        self, snapshot: Snapshot, masks: list[Mask | None], after: str | None, k: int
    ) -> list[Listed] | None:
        """Return the k most general points after a radius and an id; None where one of them went meanwhile."""
        sqrt_c = math.sqrt(self._loaded.space.curv)
        place = None if after is None else tuple(of_cursor("radius", after, float, str))
        norms = np.concatenate([snapshot[i].columns.norms[rows] for i, rows in segment_rows(snapshot, masks)])
        chosen, needed = np.ones(len(norms), np.bool_), k
        if place is not None:
            bound = math.sinh(min(max(sqrt_c * place[0], 0.0), 2 * MAX_RHO)) / sqrt_c
            chosen = norms >= bound * (1 - _UNSURE)
            # Of these some may come before the place.
            needed += int(np.count_nonzero(chosen & (norms <= bound * (1 + _UNSURE))))
        if np.count_nonzero(chosen) > needed:
            last = np.partition(norms[chosen], needed - 1)[needed - 1]
            chosen &= norms <= last * (1 + _UNSURE)
        keys = _keys(snapshot, masks)[chosen]
        rows = self._database.by_key(keys)
        if len(rows) < len(keys):
            return None
        ordered = sorted((rounded(point.radius), point.id, point) for point in self._listed(rows))
        return [point for radius, point_id, point in ordered if place is None or (radius, point_id) > place][:k]

    def _listed(self, rows: Sequence[Row]) -> list[Listed]:
        space = self._loaded.space
        vectors = np.frombuffer(b"".join(row.vector for row in rows), "<f4").reshape(len(rows), space.dim)
        radii = lorentz.radius(torch.from_numpy(vectors.astype(np.float64)), space.curv).tolist()
        return [
            Listed(row.id, row.key, radius, row.modality, self._database.metadata(row.id, row.metadata))
            for row, radius in zip(rows, radii, strict=True)
        ]


def _keys(snapshot: Snapshot, masks: Sequence[Mask | None]) -> Keys:
    """Return the keys of the selected rows, in the order of the rows."""
    return np.concatenate([snapshot[i].columns.keys[rows] for i, rows in segment_rows(snapshot, masks)])


def _wanted(snapshot: Snapshot, masks: Sequence[Mask | None], keys: Keys) -> Keys:
    """Return which of some keys are of selected rows."""
    found = [np.zeros(0, np.int64)]
    for segment, mask in zip(snapshot, masks, strict=True):
        rows = segment.find(keys)
        found.append(segment.columns.keys[rows if mask is None else rows[mask[rows]]])
    return np.concatenate(found)
