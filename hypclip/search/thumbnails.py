"""Thumbnails of the images of a collection: small, re-encoded, and beside the index, which does not read them.

Beside a thumbnail there may be the place of the original, where the image was embedded from a file of this machine.

A thumbnail is written before its point is, in one step with the removal of those that the new points do not have. So
whatever a process dies of, every new image has its thumbnail and no new point has that of an older one of its id. What
may be left is a thumbnail without a point, which `sweep` removes, and an old point with the thumbnail of what was about
to take its place.
"""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from hypclip.errors import StoreError
from hypclip.search.errors import UnknownCollection
from hypclip.search.local.sqlite import explained
from hypclip.search.store import VectorStore

FILE = "thumbnails.sqlite3"
SIDE = 160
"""Longest side, unless told otherwise."""

_QUALITY = 75
_FORMAT = 1
_APPLICATION_ID = 0x48595454  # "HYTT" in the header of the file
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS thumbnails (collection TEXT NOT NULL, id TEXT NOT NULL, image BLOB NOT NULL, "
    "width INTEGER NOT NULL, height INTEGER NOT NULL, written_at INTEGER NOT NULL, "
    "PRIMARY KEY (collection, id)) STRICT",
    # Of a file by itself the length is NULL.
    "CREATE TABLE IF NOT EXISTS originals (collection TEXT NOT NULL, id TEXT NOT NULL, file TEXT NOT NULL, "
    "start INTEGER NOT NULL, length INTEGER, written_at INTEGER NOT NULL, "
    "PRIMARY KEY (collection, id)) STRICT, WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_FORMAT}",
)
_SWEPT_ROWS = 1000
_UNSWEPT_S = 3600
"""A thumbnail so young may be of a point that another process is about to write."""


@dataclass(frozen=True)
class Thumbnail:
    """A WebP file, and its size in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Original:
    """The place of an image: a file below a folder of media, or in it `length` bytes from `start` on, as in a tar."""

    file: str
    start: int = 0
    length: int | None = None


def make_thumbnail(image: Image.Image, side: int = SIDE) -> Thumbnail:
    """Return the thumbnail of an upright image in RGB, no larger than the image.

    Args:
        image: as `to_rgb` returns it.
        side: the longest side in pixels, at least 1.
    """
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, round(scale * length)) for length in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    # Nothing of the image but its pixels: no profile, no tags.
    small.save(file, "WEBP", quality=_QUALITY, method=4, exif=b"", icc_profile=b"", xmp=b"")
    return Thumbnail(file.getvalue(), small.width, small.height)


NONE: Mapping[str, Original] = MappingProxyType({})


@runtime_checkable
class ThumbnailStore(Protocol):
    """Thumbnails by collection and id of the point. Calls block and may come from several threads."""

    def put(
        self, collection: str, thumbnails: Mapping[str, Thumbnail | None], originals: Mapping[str, Original] = NONE
    ) -> None:
        """Write what points have, all or none, on disk when this returns.

        Args:
            collection: of the points.
            thumbnails: one per point, None where it has none; what was there of these points is replaced.
            originals: places of the originals of some points.
        """
        ...

    def get(self, collection: str, ids: Sequence[str]) -> dict[str, Thumbnail]:
        """Return those thumbnails that exist."""
        ...

    def known(self, collection: str, ids: Sequence[str]) -> set[str]:
        """Return which of the ids have a thumbnail."""
        ...

    def originals(self, collection: str, ids: Sequence[str]) -> dict[str, Original]:
        """Return the places of those originals that are known."""
        ...

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Remove thumbnails and the places of originals; unknown ids are skipped."""
        ...

    def listed(self, before: float) -> Iterator[tuple[str, list[str]]]:
        """Yield collections with some ids of what was written before a Unix time, in the end all of them."""
        ...

    def close(self) -> None:
        """Release files; nothing else may be called afterwards."""
        ...


class ThumbnailFile:
    """A `ThumbnailStore` in one SQLite file, which several processes of a machine may use.

    The file is made by the first write. The write-ahead log is synced before a write returns (synchronous=FULL).

    Args:
        file: the folder must exist by the first write.

    Raises:
        StoreError: there is a file that is none of thumbnails, or it cannot be read.
    """

    def __init__(self, file: str | os.PathLike[str]):
        self.file = Path(file)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._open(create=False)

    def close(self) -> None:
        """Close the file; nothing else may be called afterwards."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def put(
        self, collection: str, thumbnails: Mapping[str, Thumbnail | None], originals: Mapping[str, Original] = NONE
    ) -> None:
        """Write what points have, all or none; see ThumbnailStore."""
        new = {point_id: made for point_id, made in thumbnails.items() if made is not None}
        now = int(time.time())
        with self._transaction(create=bool(new or originals)) as connection:
            if connection is not None:
                _delete(connection, collection, list({**thumbnails, **originals}))
                connection.executemany(
                    "INSERT INTO thumbnails VALUES (?, ?, ?, ?, ?, ?)",
                    [(collection, i, made.data, made.width, made.height, now) for i, made in new.items()],
                )
                connection.executemany(
                    "INSERT INTO originals VALUES (?, ?, ?, ?, ?, ?)",
                    [(collection, i, place.file, place.start, place.length, now) for i, place in originals.items()],
                )

    def get(self, collection: str, ids: Sequence[str]) -> dict[str, Thumbnail]:
        """Return those thumbnails that exist; see ThumbnailStore."""
        rows = self._find("id, image, width, height FROM thumbnails", collection, ids)
        return {point_id: Thumbnail(data, width, height) for point_id, data, width, height in rows}

    def known(self, collection: str, ids: Sequence[str]) -> set[str]:
        """Return which of the ids have a thumbnail; see ThumbnailStore."""
        return {point_id for (point_id,) in self._find("id FROM thumbnails", collection, ids)}

    def originals(self, collection: str, ids: Sequence[str]) -> dict[str, Original]:
        """Return the places of those originals that are known; see ThumbnailStore."""
        rows = self._find("id, file, start, length FROM originals", collection, ids)
        return {point_id: Original(file, start, length) for point_id, file, start, length in rows}

    def delete(self, collection: str, ids: Sequence[str]) -> None:
        """Remove thumbnails and the places of originals; see ThumbnailStore."""
        with self._transaction(create=False) as connection:
            if connection is not None:
                _delete(connection, collection, ids)

    def listed(self, before: float) -> Iterator[tuple[str, list[str]]]:
        """Yield collections and ids; see ThumbnailStore."""
        place = ("", "")
        while rows := self._after(place, before):
            place = rows[-1]
            for collection in dict.fromkeys(name for name, _ in rows):
                yield collection, [point_id for name, point_id in rows if name == collection]

    def _after(self, place: tuple[str, str], before: float) -> list[tuple[str, str]]:
        with self._transaction(create=False) as connection:
            if connection is None:
                return []
            return connection.execute(
                "SELECT collection, id FROM thumbnails WHERE (collection, id) > (?1, ?2) AND written_at < ?3 "
                "UNION SELECT collection, id FROM originals WHERE (collection, id) > (?1, ?2) AND written_at < ?3 "
                "ORDER BY collection, id LIMIT ?4",
                (*place, before, _SWEPT_ROWS),
            ).fetchall()

    def _find(self, what: str, collection: str, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        with self._transaction(create=False) as connection:
            if connection is not None:
                for start in range(0, len(ids), _SWEPT_ROWS):
                    some = ids[start : start + _SWEPT_ROWS]
                    # One parameter an id: as JSON a string would end at a NUL character.
                    marks = ", ".join("?" * len(some))
                    statement = f"SELECT {what} WHERE collection = ? AND id IN ({marks})"
                    found += connection.execute(statement, (collection, *some))
        return found

    @contextlib.contextmanager
    def _transaction(self, *, create: bool) -> Iterator[sqlite3.Connection | None]:
        """Lend the connection, whose writes are on disk when this ends; None where there is no file yet."""
        with self._lock, explained(self.file):
            connection = self._open(create=create)
            if connection is None:
                yield None
                return
            connection.execute("BEGIN IMMEDIATE" if create else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is None and (create or self.file.is_file()):
            with explained(self.file):
                connection = sqlite3.connect(self.file, timeout=60, isolation_level=None, check_same_thread=False)
                try:
                    self._prepare(connection)
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (application, version) != (_APPLICATION_ID, _FORMAT):
            raise StoreError(
                f"{self.file} is no file of thumbnails of this version of hypclip: move it away, and embed the images "
                "again"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for statement in _SCHEMA if not tables else ():
            connection.execute(statement)


def sweep(
    thumbnails: ThumbnailStore,
    store: VectorStore,
    older_than_s: float = _UNSWEPT_S,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Remove what is there of points that are not, and return of how many.

    Args:
        thumbnails: what to tidy up.
        store: has the points; collections that it does not have count as empty.
        older_than_s: seconds; a younger thumbnail may be of a point that is being written.
        stop: asked now and then whether to end early.
    """
    count = 0
    for collection, ids in thumbnails.listed(time.time() - older_than_s):
        if stop():
            break
        try:
            there = store.browse(collection).known(ids)
        except UnknownCollection:
            there = set()
        if orphans := [point_id for point_id in ids if point_id not in there]:
            thumbnails.delete(collection, orphans)
            count += len(orphans)
    return count


def _delete(connection: sqlite3.Connection, collection: str, ids: Sequence[str]) -> None:
    for table in ("thumbnails", "originals"):
        statement = f"DELETE FROM {table} WHERE collection = ? AND id = ?"  # noqa: S608
        connection.executemany(statement, [(collection, point_id) for point_id in ids])
