"""Which shards there are, and who reads them in which order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import braceexpand

from hypclip.errors import DataError

_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def find_shards(spec: str | Sequence[str], name: str = "data.shards") -> list[str]:
    """Return the shards that a spec names, sorted and without repeats.

    Args:
        spec: a tar file, a folder of them (.tar, .tar.gz and the like, hidden ones left out), a pattern with * or
            {000..099}, a URL that webdataset opens, or a list.
        name: what messages call the setting that holds it.

    Raises:
        DataError: a shard is missing, the spec matches none, or its braces do not match each other.
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    found: set[str] = set()
    try:
        expanded = [one for s in specs for one in braceexpand.braceexpand(s)]
    except ValueError as error:
        raise DataError(f"{name}: cannot expand the braces of {spec!r}: {error}") from error
    for one in expanded:
        path = Path(one)
        if not is_local(one):
            found.add(one)
        elif path.is_dir():
            inside = [file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES) and file.is_file()]
            shown = [str(file) for file in inside if not file.name.startswith(".")]
            if not shown:
                below = next((file for suffix in _SUFFIXES for file in path.glob(f"*/*{suffix}")), None)
                advice = "" if below is None else f", but there are some below it: {path / '*' / ('*' + below.suffix)}"
                raise DataError(f"{name}: there is no .tar file in {one}{advice}")
            found.update(shown)
        elif path.is_file():
            found.add(one)
        elif any(c in one for c in "*?["):
            matching = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
            matched = [str(file) for file in matching if file.is_file()]
            if not matched:
                raise DataError(f"{name}: nothing matches {one}")
            found.update(matched)
        else:
            raise DataError(f"{name}: there is no shard {one}")
    if not found:
        raise DataError(f"{name}: {spec!r} names no shard")
    return sorted(found)


def is_local(shard: str) -> bool:
    """Return whether a shard is a file, and not the address of one or a command."""
    return "://" not in shard and not shard.startswith("pipe:")


def bad_shards_allowed(shards: Sequence[str]) -> int:
    """Return how many shards may be damaged where nothing is said: no file, of others one a hundred, never all."""
    remote = sum(not is_local(shard) for shard in shards)
    return min(math.ceil(remote / 100), len(shards) - 1)


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
