"""Writers that note what a server has acknowledged, while it is killed."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLLECTION = "kill"
POINTS = 20  # of a request
CHUNK = 200  # points asked for in one request afterwards


def embedding(point_id: str, dim: int) -> list[float]:
    """Return the point that an id stands for, in numbers that float32 holds exactly."""
    chosen = random.Random(point_id)
    return [chosen.randrange(-256, 257) / 1024 for _ in range(dim)]


def call(port: int, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
    """Make one request; return its status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        return _ask(connection, method, path, body)
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@dataclass
class Writers:
    """Some threads that PUT points until their server is gone.

    Ids go to a file a thread, synced, as soon as they are acknowledged.
    """

    port: int
    dim: int
    folder: Path
    label: str
    count: int = 4
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(self.count)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> list[str]:
        """Wait for the threads to notice that the server has gone; return the acknowledged ids."""
        for thread in self._threads:
            thread.join()
        ledgers = [self._ledger(number) for number in range(self.count)]
        return [line for ledger in ledgers if ledger.exists() for line in ledger.read_text().split()]

    def _ledger(self, number: int) -> Path:
        return self.folder / f"acknowledged-{self.label}-{number}"

    def _write(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        batch = 0
        with self._ledger(number).open("w") as ledger:
            while True:
                ids = [f"{self.label}-{number}-{batch}-{i}" for i in range(POINTS)]
                points = [{"id": i, "embedding": embedding(i, self.dim), "metadata": {"batch": batch}} for i in ids]
                try:
                    status, _ = _ask(connection, "PUT", f"/collections/{COLLECTION}/points", {"points": points})
                except (OSError, http.client.HTTPException, ValueError):
                    return
                if status != 200:
                    self.refused.append(status)
                    return
                ledger.write("".join(f"{i}\n" for i in ids))
                ledger.flush()
                os.fsync(ledger.fileno())
                batch += 1


def missing(port: int, dim: int, ids: list[str]) -> tuple[list[str], list[str]]:
    """Return which points are not stored, and which are stored with other coordinates."""
    lost, altered = [], []
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        found = _fetch(port, part)
        if found is None:
            alone = {i: _fetch(port, [i]) for i in part}
            lost += [i for i, points in alone.items() if points is None]
            part = [i for i, points in alone.items() if points is not None]
            found = [point for points in alone.values() for point in points or []]
        for point_id, point in zip(part, found, strict=True):
            wanted = embedding(point_id, dim)
            if max(abs(a - b) for a, b in zip(point, wanted, strict=True)) > 1e-6:
                altered.append(point_id)
    return lost, altered


def _fetch(port: int, ids: list[str]) -> list[list[float]] | None:
    """Return the coordinates of stored points, or None if one of them is not stored."""
    body = {"inputs": [{"id": i} for i in ids], "collection": COLLECTION}
    status, answer = call(port, "POST", "/embed", body)
    if status == 404:
        return None
    if status != 200:
        raise RuntimeError(f"/embed of stored points was answered {status}: {answer}")
    return [item["embedding"] for item in answer["data"]]
