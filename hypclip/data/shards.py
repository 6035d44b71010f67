"""Finding shards, and sharing them out to readers in a fixed order."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import braceexpand

from hypclip.errors import DataError

# Not every Python reads .tar.zst: where it does not, the shard is named as damaged, and is not left out in silence.
_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def find_shards(spec: str | Sequence[str], name: str = "data.shards") -> list[str]:
    """Return the shards that a spec names, sorted and without repeats; hidden files only where a spec says so.

    Args:
        spec: a tar file, a folder of them (.tar, .tar.gz and the like), a pattern with * or {000..099}, a URL that
            webdataset opens, or a list.
        name: the name in messages of the setting that holds it.

    Raises:
        DataError: a shard is missing or a link to nothing, the spec is empty or matches none, its braces do not match
            each other, or a name is no valid Unicode.
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
        elif not one.strip():
            raise DataError(f"{name}: {spec!r} names no shard: an empty name, as of a variable that is not set")
        elif path.is_dir():
            shown = _files((file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES)), "*", name)
            if not shown:
                below = next((file for suffix in _SUFFIXES for file in path.glob(f"*/*{suffix}")), None)
                advice = "" if below is None else f", but there are some below it: {path / '*' / ('*' + below.suffix)}"
                raise DataError(f"{name}: there is no .tar file in {one}{advice}")
            found.update(shown)
        elif path.is_file():
            found.add(str(path))
        elif any(c in one for c in "*?["):
            matching = Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
            matched = _files(matching, path.name, name)
            if not matched:
                raise DataError(f"{name}: nothing matches {one}")
            found.update(matched)
        else:
            raise DataError(f"{name}: there is no shard {one}")
    if not found:
        raise DataError(f"{name}: {spec!r} names no shard")
    for one in found:
        try:
            one.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{name}: {one!r} is not valid Unicode: rename it") from error
    return sorted(found)


def _files(paths: Iterable[Path], pattern: str, name: str) -> list[str]:
    """Return the files among paths; hidden ones, such as ._0.tar of macOS, only if the pattern begins with a dot."""
    files = [path for path in paths if not path.is_dir() and (pattern.startswith(".") or path.name[0] != ".")]
    if broken := [path for path in files if path.is_symlink() and not path.exists()]:
        raise DataError(f"{name}: {broken[0]} is a link to {broken[0].readlink()}, which is not there")
    return [str(path) for path in files if path.is_file()]


def is_local(shard: str) -> bool:
    """Return whether a shard is a local file, and not a URL or a command."""
    return "://" not in shard and not shard.startswith("pipe:")


def bad_shards_allowed(shards: Sequence[str]) -> int:
    """Return the default number of shards that may be damaged: no local file, 1 % of others rounded up, never all."""
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
