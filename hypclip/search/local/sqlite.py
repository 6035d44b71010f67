"""The durable half of the local store: one SQLite file with the points, their metadata, and how they are indexed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from hypclip.errors import InputError, StoreError
from hypclip.geometry.entailment import Cone
from hypclip.search.local.ivf import StoredCells
from hypclip.search.rules import as_text, of_text
from hypclip.search.space import Space
from hypclip.search.where import Condition, Equal, Modality, Within, is_number

FILE = "points.sqlite3"
FORMAT = 3
_APPLICATION_ID = 0x48595043  # "HYPC" in the header of the file
_BLOCK_ROWS = 4096
_MAX_PARAMETERS = 10_000  # SQLite takes 32,766
_SCHEMA = (
    "CREATE TABLE collections (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model_id TEXT NOT NULL, "
    "revision TEXT NOT NULL, curv REAL NOT NULL, dim INTEGER NOT NULL, entailment TEXT NOT NULL) STRICT",
    # AUTOINCREMENT: the key of a deleted point is never given again.
    "CREATE TABLE points (key INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL REFERENCES collections, "
    "id TEXT NOT NULL, vector BLOB NOT NULL, modality TEXT NOT NULL, metadata TEXT NOT NULL, "
    "UNIQUE (collection, id)) STRICT",
    "CREATE TABLE fields (collection INTEGER NOT NULL REFERENCES collections, name TEXT NOT NULL, "
    "PRIMARY KEY (collection, name)) STRICT, WITHOUT ROWID",
    "CREATE TABLE cells (collection INTEGER PRIMARY KEY REFERENCES collections, centroids BLOB NOT NULL, "
    "starts BLOB NOT NULL, keys BLOB NOT NULL, probes INTEGER NOT NULL, recall REAL NOT NULL) STRICT",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
_OF_BEFORE = {
    # Until format 3 all models entailed by the cones of MERU.
    2: f"ALTER TABLE collections ADD COLUMN entailment TEXT NOT NULL DEFAULT '{as_text(Cone())}'",
}
"""Statements that turn an older format into the next one."""
_BOUND = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True)
class Row:
    """A point as it is on disk."""

    key: int
    id: str
    vector: bytes
    modality: Modality
    metadata: str


class Database:
    """One file, written by one connection at a time, read by others at the same time.

    The write-ahead log is synced before a transaction returns (synchronous=FULL). Another process is kept out by a lock
    file, whose lock the system takes back when a process dies.

    Args:
        directory: where the file is.
        create: make an empty one if there is none.

    Raises:
        StoreError: there is none, it cannot be read or written, or another process has it open.
    """

    def __init__(self, directory: str | os.PathLike[str], create: bool):
        if not isinstance(directory, str | os.PathLike) or not str(directory):
            raise InputError(f"an index is in a directory, given by its path, got {directory!r}")
        self.file = Path(os.path.expanduser(directory)) / FILE  # noqa: PTH111, since Path fails on ~tmp, which is a name
        self.writing = threading.RLock()
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        if not create and not self.file.is_file():
            raise StoreError(f"there is no index in {directory}: {FILE} not found")
        self._lock = filelock.FileLock(self.file.with_name("lock"), thread_local=False)
        with explained(self.file):
            if create:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                raise StoreError(
                    f"cannot use the index {self.file}: it is open elsewhere, and one process at a time may use it"
                ) from None
        try:
            with explained(self.file):
                self._writer = _plain(self.file)
                self._open(create)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection and give the lock back."""
        with self.writing, contextlib.suppress(queue.Empty):
            if hasattr(self, "_writer"):
                self._writer.close()
            self._lock.release()
            while True:
                self._readers.get_nowait().close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write, all or nothing; what was written is on disk when this ends."""
        with self.writing, explained(self.file):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees what was committed, and waits for no writer."""
        with explained(self.file):
            try:
                connection = self._readers.get_nowait()
            except queue.Empty:
                connection = _plain(self.file)
                connection.execute("PRAGMA query_only = ON")
            try:
                yield connection
            finally:
                self._readers.put(connection)

    def collections(self) -> list[tuple[int, str, Space, set[str]]]:
        """Return (number, name, space, metadata fields) of every collection."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT id, name, model_id, curv, dim, revision, entailment FROM collections"
            ).fetchall()
            fields: dict[int, set[str]] = {}
            for number, name in connection.execute("SELECT collection, name FROM fields"):
                fields.setdefault(number, set()).add(name)
        return [
            (number, name, Space(model_id, curv, dim, revision, of_text(rule)), fields.get(number, set()))
            for number, name, model_id, curv, dim, revision, rule in rows
        ]

    def add_collection(self, name: str, space: Space) -> int:
        """Write a collection and return its number."""
        with self.transaction() as connection:
            number = connection.execute(
                "INSERT INTO collections (name, model_id, curv, dim, revision, entailment) VALUES (?, ?, ?, ?, ?, ?)",
                (name, space.model_id, space.curv, space.dim, space.revision, as_text(space.entailment)),
            ).lastrowid
        assert number is not None
        return number

    def write(
        self,
        collection: int,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        modality: Sequence[str],
        metadata: Sequence[str],
        new_fields: Iterable[str],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Write points; return their keys, and the keys of those they replaced. The caller holds `writing`."""
        with self.transaction() as connection:
            replaced = _keys(connection, collection, ids)
            last = connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0] or 0
            keys = range(last + 1, last + 1 + len(ids))
            blob, size = np.ascontiguousarray(vectors, "<f4").tobytes(), 4 * vectors.shape[1]
            blobs = [blob[start : start + size] for start in range(0, len(blob), size)]
            connection.executemany(
                "INSERT OR REPLACE INTO points (key, collection, id, vector, modality, metadata) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                zip(keys, [collection] * len(ids), ids, blobs, modality, metadata, strict=True),
            )
            connection.executemany("INSERT OR IGNORE INTO fields VALUES (?, ?)", [(collection, f) for f in new_fields])
        return np.asarray(keys, np.int64), replaced

    def delete(self, collection: int, ids: Sequence[str]) -> NDArray[np.int64]:
        """Remove points and return the keys they had. The caller holds `writing`."""
        with self.transaction() as connection:
            keys = _keys(connection, collection, ids)
            connection.executemany("DELETE FROM points WHERE key = ?", [(key,) for key in keys.tolist()])
        return keys

    def by_id(self, collection: int, ids: Sequence[str]) -> dict[str, Row]:
        """Return the points that have these ids."""
        with self.reading() as connection:
            found = _with_ids(connection, "key, id, vector, modality, metadata", collection, ids)
            return {row[1]: Row(*row) for row in found}

    def known(self, collection: int, ids: Sequence[str]) -> set[str]:
        """Return which of the ids there are points of."""
        with self.reading() as connection:
            return {point_id for (point_id,) in _with_ids(connection, "id", collection, ids)}

    def labels(self, keys: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Return (id, metadata) of the points that have these keys and are still there."""
        with self.reading() as connection:
            found = connection.execute(
                "SELECT key, id, metadata FROM points WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(keys),),
            )
            return {key: (point_id, metadata) for key, point_id, metadata in found}

    def by_key(self, keys: NDArray[np.int64]) -> list[Row]:
        """Return the points that have these keys and are still there, in the order of their keys."""
        with self.reading() as connection:
            found = connection.execute(
                "SELECT key, id, vector, modality, metadata FROM points "
                "WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key",
                (json.dumps(keys.tolist()),),
            )
            return [Row(*row) for row in found]

    def ids_after(self, collection: int, after: str, rows: int) -> list[tuple[str, int]]:
        """Return (id, key) of the first `rows` points whose id comes after another, by id."""
        with self.reading() as connection:
            return connection.execute(
                "SELECT id, key FROM points WHERE collection = ? AND id > ? ORDER BY id LIMIT ?",
                (collection, after, rows),
            ).fetchall()

    def metadata(self, point_id: str, text: str) -> dict[str, Any]:
        """Read the metadata of a point.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            metadata: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise StoreError(f"{self.file} is damaged: the metadata of point {point_id!r}: {error}") from error
        return metadata

    def blocks(self) -> Iterator[list[tuple[int, int, bytes, str]]]:
        """Yield (key, collection, vector, modality) of all points in ascending order of their keys."""
        with self.reading() as connection:
            cursor = connection.execute("SELECT key, collection, vector, modality FROM points ORDER BY key")
            while rows := cursor.fetchmany(_BLOCK_ROWS):
                yield rows

    def matching(
        self, collection: int, conditions: Mapping[str, Condition], after: int, until: int
    ) -> NDArray[np.int64]:
        """Return in ascending order the keys, after one and until another, of points that meet the conditions."""
        tests = [_condition(name, condition) for name, condition in conditions.items()]
        # "+": by key, which is the order on disk, not by the index of (collection, id).
        statement = " AND ".join(
            ["SELECT key FROM points WHERE key > ? AND key <= ? AND +collection = ?", *(sql for sql, _ in tests)]
        )
        values = [after, until, collection, *(v for _, parameters in tests for v in parameters)]
        with self.reading() as connection:
            found = connection.execute(statement + " ORDER BY key", values).fetchall()
        return np.fromiter((key for (key,) in found), np.int64, len(found))

    def cells(self, collection: int) -> StoredCells | None:
        """Return the cells of a collection, if it has any; ValueError where they do not fit together."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT centroids, starts, keys, probes, recall FROM cells WHERE collection = ?", (collection,)
            ).fetchone()
        if row is None:
            return None
        starts, keys = np.frombuffer(row[1], "<i8"), np.frombuffer(row[2], "<i8")
        centroids = np.frombuffer(row[0], "<f4").reshape(len(starts) - 1, -1)
        ascending = len(starts) > 1 and starts[0] == 0 and starts[-1] == len(keys) and (np.diff(starts) >= 0).all()
        if not (ascending and np.isfinite(centroids).all() and 1 <= row[3] < len(starts)):
            raise ValueError("its cells do not fit together")
        return StoredCells(centroids, starts, keys, row[3], row[4])

    def write_cells(self, collection: int, cells: StoredCells) -> None:
        """Replace the cells of a collection."""
        blobs = [np.ascontiguousarray(a, d).tobytes() for a, d in ((cells.centroids, "<f4"), (cells.starts, "<i8"))]
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?)",
                (collection, *blobs, np.ascontiguousarray(cells.keys, "<i8").tobytes(), cells.probes, cells.recall),
            )

    def copy(self, collection: int, directory: Path) -> None:
        """Write one collection, as it is now, to a file of its own in an existing directory."""
        with explained(directory / FILE), contextlib.closing(_plain(directory / FILE)) as connection:
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("ATTACH ? AS source", (str(self.file),))
            connection.execute("BEGIN")
            for table, column in (("collections", "id"), ("fields", "collection"), ("points", "collection")):
                connection.execute(
                    f"INSERT INTO main.{table} SELECT * FROM source.{table} WHERE {column} = ?",  # noqa: S608
                    (collection,),
                )
            connection.execute("COMMIT")

    def _open(self, create: bool) -> None:
        empty, version = self._check_format()
        if empty and not create:
            raise StoreError(f"there is no index in {self.file.parent}: {FILE} is empty")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA wal_autocheckpoint = 4000")
        if empty:
            with self.transaction() as connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
        elif version < FORMAT:
            with self.transaction() as connection:
                for older in range(version, FORMAT):
                    connection.execute(_OF_BEFORE[older])
                connection.execute(f"PRAGMA user_version = {FORMAT}")

    def _check_format(self) -> tuple[bool, int]:
        """Refuse what is not ours, before anything is changed; return whether the file is new, and its format."""
        (application,) = self._writer.execute("PRAGMA application_id").fetchone()
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            return True, FORMAT
        if application != _APPLICATION_ID:
            raise StoreError(f"{self.file} is a database of something else, not an index of hypclip")
        if version != FORMAT and version not in _OF_BEFORE:
            raise StoreError(
                f"{self.file} has format {version}; this version of hypclip reads format {FORMAT}: embed its contents "
                "again with train/embed.py"
            )
        return False, version


@contextlib.contextmanager
def explained(file: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into a StoreError that says which file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot use the index {file}: {error}") from error


def _plain(file: Path) -> sqlite3.Connection:
    """Open a file for any thread, without the transactions that Python would begin by itself."""
    return sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)


def _condition(name: str, condition: Condition) -> tuple[str, list[Any]]:
    """Write a condition in SQL, with the meaning of where.matches: json_each goes through a list, or a single value."""
    path = f'$."{name}"'
    tests: list[str] = []
    values: list[Any] = []
    match condition:
        case Equal(wanted):
            texts = [v for v in wanted if isinstance(v, str)]
            numbers = [v for v in wanted if is_number(v)]
            for types, chosen in (("'text'", texts), ("'integer', 'real'", numbers)):
                if chosen:
                    tests.append(f"(e.type IN ({types}) AND e.value IN ({', '.join('?' * len(chosen))}))")
                    values += chosen
            names = {True: "true", False: "false", None: "null"}
            others = [names[v] for v in wanted if isinstance(v, bool) or v is None]
            tests += [f"e.type = '{other}'" for other in others]
            test = " OR ".join(tests)
        case Within(bounds):
            tests = ["e.type IN ('integer', 'real')", *(f"e.value {_BOUND[kind]} ?" for kind, _ in bounds)]
            values = [limit for _, limit in bounds]
            test = " AND ".join(tests)
    return (
        f"json_type(metadata, ?) IS NOT 'object' AND EXISTS (SELECT 1 FROM json_each(metadata, ?) AS e WHERE {test})",  # noqa: S608
        [path, path, *values],
    )


def _with_ids(
    connection: sqlite3.Connection, columns: str, collection: int, ids: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield columns of the points that have these ids; as many at a time as a statement takes."""
    for start in range(0, len(ids), _MAX_PARAMETERS):
        some = ids[start : start + _MAX_PARAMETERS]
        # One parameter per id: as JSON a string would end at a NUL character.
        marks = ", ".join("?" * len(some))
        statement = f"SELECT {columns} FROM points WHERE collection = ? AND id IN ({marks})"  # noqa: S608
        yield from connection.execute(statement, (collection, *some))


def _keys(connection: sqlite3.Connection, collection: int, ids: Sequence[str]) -> NDArray[np.int64]:
    return np.array([key for (key,) in _with_ids(connection, "key", collection, ids)], np.int64)


def fields_of(metadata: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return every field that occurs."""
    return {name for one in metadata for name in one}
