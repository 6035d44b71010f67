"""Which shards there are, who reads them in which order, and what is in one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import braceexpand
from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys, tar_file_expander

from hypclip.errors import DataError


def find_shards(spec: str | Sequence[str]) -> list[str]:
    """Return the shards that a spec names, sorted and without repeats.

    Args:
        spec: a tar file, a folder of them, a pattern with * or {000..099}, a URL that webdataset opens, or a list.

    Raises:
        DataError: a shard is missing, the spec matches none, or its braces do not match each other.
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    found: set[str] = set()
    try:
        expanded = [one for s in specs for one in braceexpand.braceexpand(s)]
    except ValueError as error:
        raise DataError(f"data.shards: cannot expand the braces of {spec!r}: {error}") from error
    for one in expanded:
        path = Path(one)
        if "://" in one or one.startswith("pipe:"):
            found.add(one)
        elif path.is_dir():
            inside = sorted(map(str, path.glob("*.tar")))
            if not inside:
                raise DataError(f"data.shards: there is no .tar file in {one}")
            found.update(inside)
        elif path.is_file():
            found.add(one)
        elif any(c in one for c in "*?["):
            matching = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
            matched = [str(file) for file in matching if file.is_file()]
            if not matched:
                raise DataError(f"data.shards: nothing matches {one}")
            found.update(matched)
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


def samples_of(shard: str) -> Iterator[dict[str, Any]]:
    """Yield the samples of a shard, extension → bytes, in order.

    Raises:
        DataError: part of the shard cannot be read; what can be was yielded before.
    """
    damage: list[Exception] = []

    def note(error: Exception) -> bool:
        damage.append(error)
        return True

    try:
        with gopen(shard) as stream:
            files = tar_file_expander(iter([{"url": shard, "stream": stream}]), handler=note)
            yield from group_by_keys(files, handler=note)
    except (OSError, ValueError) as error:
        damage.append(error)
    if damage:
        reason = getattr(damage[0], "strerror", None) or next(iter(damage[0].args), type(damage[0]).__name__)
        # webdataset puts the repr of the file behind an @.
        raise DataError(f"cannot read shard {shard}: {str(reason).partition(' @ ')[0]}")
