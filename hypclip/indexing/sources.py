"""Provenance of the points of an index, so that no data set takes the place of another."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch

from hypclip.errors import DataError
from hypclip.search.local.sqlite import explained
from hypclip.search.store import VectorStore
from hypclip.search.types import Points, encode_metadata

FILE = "sources.sqlite3"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sources (collection TEXT NOT NULL, id TEXT NOT NULL, source TEXT NOT NULL, "
    "digest BLOB NOT NULL, PRIMARY KEY (collection, id)) STRICT, WITHOUT ROWID"
)


class Sources:
    """Remember in a folder of an index what each point was made of; without a folder nothing is remembered.

    A point that was written since by other means counts as one of no known source.
    """

    def __init__(self, folder: Path | None):
        self._file = folder / FILE if folder is not None else None
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def note(self, collection: str, points: Points, source: str) -> None:
        """Remember that points came from a source; call it once they are written."""
        if self._file is None:
            return
        rows = [(collection, i, source, digest) for i, digest in zip(points.ids, _digests(points), strict=True)]
        with explained(self._file), self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", rows)

    def of(self, collection: str, stored: Points) -> list[str | None]:
        """Return the source of each point that a collection holds; None where it is not known."""
        if self._file is None or not self._file.is_file():
            return [None] * len(stored.ids)
        known: dict[str, tuple[str, bytes]] = {}
        with explained(self._file), self._open() as connection:
            for start in range(0, len(stored.ids), 10_000):
                some = stored.ids[start : start + 10_000]
                marks = ", ".join("?" * len(some))
                statement = f"SELECT id, source, digest FROM sources WHERE collection = ? AND id IN ({marks})"  # noqa: S608
                known |= {row[0]: (row[1], row[2]) for row in connection.execute(statement, (collection, *some))}
        found = [known.get(point_id) for point_id in stored.ids]
        digests = _digests(stored)
        return [
            one[0] if one is not None and one[1] == digest else None for one, digest in zip(found, digests, strict=True)
        ]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        assert self._file is not None
        if self._connection is None:
            self._connection = sqlite3.connect(self._file, timeout=60)
            self._connection.execute(_SCHEMA)
        with self._connection:
            yield self._connection


def check_free(
    store: VectorStore | None, sources: Sources, collection: str, blocks: Iterable[tuple[str, Points]], *, replace: bool
) -> None:
    """Refuse points that would take the place of others, before any is written.

    A point may be written again: the very same one, and another of the source that the one there came from.

    Args:
        store: where they are to be written; None where there is none yet.
        sources: of the points that are there.
        collection: its name; there need be none.
        blocks: the new points, each with the source it comes from.
        replace: whether they may.

    Raises:
        DataError: a point of another source has the same id.
        InputError: the metadata of a point cannot be written.
    """
    known = {one.name for one in store.collections()} if store is not None else set()
    count, example = 0, ""
    for source, points in blocks:
        encode_metadata(points)
        if replace or store is None or collection not in known:
            continue
        stored = store.find(collection, points.ids)
        row_of = {point_id: row for row, point_id in enumerate(points.ids)}
        rows = [row_of[point_id] for point_id in stored.ids]
        new = _rows(points, rows)
        for point_id, same, origin in zip(stored.ids, _same(new, stored), sources.of(collection, stored), strict=True):
            if same or origin == source:
                continue
            count += 1
            whence = origin or "other data, or from an earlier state of these"
            example = example or f"{point_id!r}, which came from {whence} and comes now from {source}"
    if count:
        raise DataError(
            f"collection {collection!r} has other points of the same ids already, {count} of them, such as {example}; "
            "nothing was written: put --prefix TEXT before the new ids, or add --replace if these points are to take "
            "the place of those"
        )


def _rows(points: Points, rows: Sequence[int]) -> Points:
    return Points(
        [points.ids[i] for i in rows],
        points.vectors[list(rows)],
        [points.modality[i] for i in rows],
        [points.metadata[i] for i in rows],
    )


def _same(new: Points, stored: Points) -> list[bool]:
    """Compare points pairwise: True where they are equal but for the rounding of another batch or machine."""
    if not stored.ids:
        return []
    a, b = new.vectors.double(), stored.vectors.double()
    near = torch.linalg.vector_norm(a - b, dim=1) <= 1e-3 * (1e-3 + torch.linalg.vector_norm(b, dim=1))
    rest = zip(new.modality, stored.modality, encode_metadata(new), encode_metadata(stored), strict=True)
    return [bool(close) and m == n and x == y for close, (m, n, x, y) in zip(near, rest, strict=True)]


def _digests(points: Points) -> list[bytes]:
    vectors = points.vectors.detach().cpu().float().contiguous().numpy()
    return [
        hashlib.blake2b(vector.tobytes() + f"{modality}{text}".encode(), digest_size=12).digest()
        for vector, modality, text in zip(vectors, points.modality, encode_metadata(points), strict=True)
    ]
