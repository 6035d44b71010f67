"""A vector store for one process: SQLite keeps the points, arrays in memory search them."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from hypclip.errors import InputError, StoreError
from hypclip.search.errors import UnknownCollection, UnknownPoint
from hypclip.search.store import Collection, Modality, Neighbours, Points, Space
from hypclip.search.table import MODALITIES, Table

FILE = "points.sqlite3"
FORMAT = 1
_APPLICATION_ID = 0x48595043  # "HYPC" in the header of the file
_LOAD_ROWS = 4096
_SCHEMA = (
    "CREATE TABLE collections (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
    "model_id TEXT NOT NULL, curv REAL NOT NULL, dim INTEGER NOT NULL) STRICT",
    "CREATE TABLE points (collection INTEGER NOT NULL REFERENCES collections, id TEXT NOT NULL, vector BLOB NOT NULL, "
    "modality TEXT NOT NULL, metadata TEXT NOT NULL, UNIQUE (collection, id)) STRICT",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)


class LocalStore:
    """A `VectorStore` in a directory.

    SQLite (write-ahead log, synchronous=FULL) is the truth: a write is on disk when its call returns, and opening the
    directory again brings back everything. The points are also held in memory, where searches scan all of them,
    exactly. Threads may share a store. Two processes may not: the second to open the directory is refused.

    Args:
        directory: where the index is.
        create: make an empty index if there is none.

    Raises:
        StoreError: there is no index, it cannot be read or written, or another process has it open.
    """

    def __init__(self, directory: str | os.PathLike[str], create: bool = False):
        self.file = Path(directory) / FILE
        self._writing = threading.Lock()
        self._tables: dict[str, tuple[int, Table]] = {}
        if not create and not self.file.is_file():
            raise StoreError(f"there is no index in {directory}: {FILE} not found")
        with _explained(self.file):
            if create:
                self.file.parent.mkdir(parents=True, exist_ok=True)
            # One connection serves all threads, one at a time, under the writing lock.
            self._connection = sqlite3.connect(self.file, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            with _explained(self.file):
                self._open()
        except StoreError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing else may be called afterwards."""
        with self._writing:
            self._tables = {}
            self._connection.close()

    def collections(self) -> list[Collection]:
        """Return every collection, by name."""
        return [self.describe(name) for name in sorted(self._tables)]

    def describe(self, name: str) -> Collection:
        """Return one collection; see VectorStore."""
        _, table = self._find(name)
        return Collection(name, table.space, len(table))

    def create_collection(self, name: str, space: Space) -> Collection:
        """Create a collection, or return the one of this name if it is of the same space; see VectorStore."""
        with self._writing:
            if name not in self._tables:
                with self._transaction():
                    cursor = self._connection.execute(
                        "INSERT INTO collections (name, model_id, curv, dim) VALUES (?, ?, ?, ?)",
                        (name, space.model_id, space.curv, space.dim),
                    )
                assert cursor.lastrowid is not None
                self._tables = {**self._tables, name: (cursor.lastrowid, Table(space))}
        collection = self.describe(name)
        collection.check_space(space)
        return collection

    def upsert(self, name: str, points: Points) -> None:
        """Write points, all or none; see VectorStore."""
        key, table = self._find(name)
        table.space.check_points(points.vectors)
        vectors = np.ascontiguousarray(points.vectors.detach().cpu().numpy(), dtype="<f4")
        texts = [_to_json(i, m) for i, m in zip(points.ids, points.metadata, strict=True)]
        rows = [
            (key, point_id, vector.tobytes(), modality, text)
            for point_id, vector, modality, text in zip(points.ids, vectors, points.modality, texts, strict=True)
        ]
        with self._writing:
            with self._transaction():
                self._connection.executemany(
                    "INSERT INTO points (collection, id, vector, modality, metadata) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (collection, id) DO UPDATE "
                    "SET vector = excluded.vector, modality = excluded.modality, metadata = excluded.metadata",
                    rows,
                )
            table.put(points.ids, vectors, _codes(points.modality), [json.loads(text) for text in texts])

    def delete(self, name: str, ids: Sequence[str]) -> int:
        """Remove points and return how many there were; see VectorStore."""
        key, table = self._find(name)
        with self._writing:
            with self._transaction():
                self._connection.executemany(
                    "DELETE FROM points WHERE collection = ? AND id = ?", [(key, point_id) for point_id in ids]
                )
            return table.remove(ids)

    def get(self, name: str, ids: Sequence[str]) -> Points:
        """Return points in the order asked for; see VectorStore."""
        _, table = self._find(name)
        try:
            vectors, modality, metadata = table.get(ids)
        except KeyError as error:
            raise UnknownPoint(name, error.args[0]) from None
        return Points(list(ids), torch.from_numpy(vectors), modality, metadata)

    def knn(
        self,
        name: str,
        query: Float[Tensor, " d"],
        k: int,
        modality: Modality | None = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Neighbours:
        """Return the k nearest points, always exactly; see VectorStore and `Table.nearest`."""
        _, table = self._find(name)
        table.space.check_points(query)
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        return Neighbours(table.nearest(query.detach().cpu(), k, modality, filter), exact=True)

    def _find(self, name: str) -> tuple[int, Table]:
        try:
            return self._tables[name]
        except KeyError:
            raise UnknownCollection(name) from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _open(self) -> None:
        # Exclusive: another process would not see what this one holds in memory, nor this one what the other wrote.
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        empty = self._check_format()
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        if empty:
            with self._transaction():
                for statement in _SCHEMA:
                    self._connection.execute(statement)
        collections = self._connection.execute("SELECT id, name, model_id, curv, dim FROM collections").fetchall()
        for key, name, model_id, curv, dim in collections:
            try:
                self._tables[name] = key, self._load(key, Space(model_id, curv, dim))
            except ValueError as error:
                raise StoreError(f"{self.file} is damaged, in collection {name!r}: {error}") from error

    def _check_format(self) -> bool:
        """Refuse what is not ours, before anything is changed; return whether the file is new."""
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            return True
        if application != _APPLICATION_ID:
            raise StoreError(f"{self.file} is a database of something else, not an index of hypclip")
        if version != FORMAT:
            raise StoreError(f"{self.file} has format {version}; this version of hypclip reads format {FORMAT}")
        return False

    def _load(self, key: int, space: Space) -> Table:
        table = Table(space)
        cursor = self._connection.execute(
            "SELECT id, vector, modality, metadata FROM points WHERE collection = ? ORDER BY rowid", (key,)
        )
        while rows := cursor.fetchmany(_LOAD_ROWS):
            ids, blobs, modality, texts = zip(*rows, strict=True)
            vectors = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(rows), space.dim)
            table.put(ids, vectors, _codes(modality), [json.loads(text) for text in texts])
        return table


def _codes(modality: Sequence[str]) -> NDArray[np.uint8]:
    if unknown := set(modality) - set(MODALITIES):
        raise InputError(f"unknown modality {unknown.pop()!r}, expected one of {', '.join(MODALITIES)}")
    return np.asarray([MODALITIES.index(m) for m in modality], dtype=np.uint8)


def _to_json(point_id: str, metadata: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(metadata), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the metadata of point {point_id!r} cannot be written as JSON: {error}") from error


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what SQLite and the file system say into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "; it is open elsewhere, and one process at a time may use it" if "locked" in str(error) else ""
        raise StoreError(f"cannot use the index {file}: {error}{hint}") from error
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreError(f"cannot use the index {file}: {error}") from error
