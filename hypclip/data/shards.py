"""Which shards there are, and who reads them in which order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import braceexpand

from hypclip.errors import DataError


def find_shards(spec: str | Sequence[str]) -> list[str]:
    """Return the shards that a spec names, sorted and without repeats.

    Args:
        spec: a tar file, a folder of them, a pattern with * or {000..099}, a URL that webdataset opens, or a list.

    Raises:
        DataError: a shard is missing, or the spec matches none.
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    found: set[str] = set()
    for one in (expanded for s in specs for expanded in braceexpand.braceexpand(s)):
        path = Path(one)
        if "://" in one or one.startswith("pipe:"):
            found.add(one)
        elif path.is_dir():
            inside = sorted(map(str, path.glob("*.tar")))
            if not inside:
                raise DataError(f"data.shards: there is no .tar file in {one}")
            found.update(inside)
        elif any(c in one for c in "*?["):
            matched = sorted(map(str, Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))))
            if not matched:
                raise DataError(f"data.shards: nothing matches {one}")
            found.update(matched)
        elif path.is_file():
            found.add(one)
        else:
            raise DataError(f"data.shards: there is no shard {one}")
    if not found:
        raise DataError(f"data.shards: {spec!r} names no shard")
    return sorted(found)


def share_of(
    shards: Sequence[str], *, seed: int, epoch: int, rank: int, world_size: int, worker: int, workers: int
) -> list[str]:
    """Return the shards that one worker of one process reads in one epoch, in order.

    A pure function of its arguments: in each epoch the shares of all workers of all processes are disjoint and cover
    every shard once.

    Raises:
        DataError: there are fewer shards than readers, so that some reader would have none.
    """
    readers = world_size * workers
    if len(shards) < readers:
        raise DataError(
            f"data.shards names {len(shards)} shards, but {world_size} processes × {workers} workers need at least "
            f"{readers}: worker {worker} of process {rank} would read none or starve another. "
            "Write more shards or lower data.workers"
        )
    order = list(shards)
    random.Random(f"shards/{seed}/{epoch}").shuffle(order)
    return order[rank * workers + worker :: readers]
