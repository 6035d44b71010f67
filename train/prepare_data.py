"""Prepare data for training and evaluation.

python train/prepare_data.py quickstart --output runs/quickstart/data
python train/prepare_data.py drawings --output runs/quickstart/drawings
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypclip.console import escape_unprintable
from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES
from hypclip.data.quickstart.scenes import Split
from hypclip.data.quickstart.shards import (
    shards_are_written,
    write_shards,
    write_zero_shot,
    zero_shot_is_written,
)
from hypclip.errors import DataError, HypclipError
from hypclip.files import check_room, is_empty, make_room, user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    escape_unprintable()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="source", required=True)
    quickstart = sources.add_parser("quickstart", help="scenes composed of the drawings that ship with hypclip")
    quickstart.add_argument(
        "--output", type=user_path, required=True, help="folder for train/, validation/ and zero_shot/"
    )
    quickstart.add_argument("--scenes", type=int, default=40_000, help="training scenes (%(default)s)")
    quickstart.add_argument("--validation-scenes", type=int, default=1_000, help="held-out scenes (%(default)s)")
    quickstart.add_argument("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    quickstart.add_argument("--styles", nargs="+", default=list(TRAIN_STYLES), help="training artwork (%(default)s)")
    quickstart.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    quickstart.add_argument(
        "--overwrite", action="store_true", help="move other data that is there to a dated name beside it"
    )
    drawings = sources.add_parser("drawings", help="the drawings themselves, in a folder a class, with their hierarchy")
    drawings.add_argument("--output", type=user_path, required=True, help="folder for images/ and two files about them")
    drawings.add_argument("--styles", nargs="+", default=list(TRAIN_STYLES), help="artwork (%(default)s)")
    drawings.add_argument(
        "--leave-out-every", type=int, metavar="N", help="draw none of every Nth name, the first on, which stay names"
    )
    drawings.add_argument("--overwrite", action="store_true", help="move what is there to a dated name beside it")
    arguments = parser.parse_args(argv)
    try:
        {"quickstart": _quickstart, "drawings": _drawings}[arguments.source](arguments)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _quickstart(arguments: argparse.Namespace) -> None:
    """Write the parts that are not there yet, each whole or not at all; other things of their names stay or move."""
    output: Path = arguments.output
    counts: dict[Split, int] = {"train": arguments.scenes, "validation": arguments.validation_scenes}
    drawn = {"seed": arguments.seed, "styles": arguments.styles}
    splits = [split for split, n in counts.items() if not shards_are_written(output / split, split, n, **drawn)]
    zero_shot = not zero_shot_is_written(output / "zero_shot")
    missing = [*splits, *(["zero_shot"] if zero_shot else [])]
    for name in missing:
        if not (arguments.overwrite or is_empty(output / name)):
            raise DataError(
                f"{output / name} holds something else than is to be written: give another --output, or add "
                "--overwrite, which moves it to a dated name beside it"
            )
    if kept := [name for name in (*counts, "zero_shot") if name not in missing]:
        print(f"already in {output}: {', '.join(kept)}")

    started = time.perf_counter()
    for split in splits:
        with _scratch(output / split) as scratch:
            write_shards(scratch, split, counts[split], workers=arguments.workers, **drawn)
    if total := sum(counts[split] for split in splits):
        scenes_s = time.perf_counter() - started
        print(f"{total} scenes in {scenes_s:.1f} s ({total / scenes_s:.0f} a second)")
    if zero_shot:
        with _scratch(output / "zero_shot") as scratch:
            print(f"{write_zero_shot(scratch / 'zero_shot')} held-out drawings")


def _drawings(arguments: argparse.Namespace) -> None:
    """Write single drawings, as the quickstart's zero_shot/ has those of the held-out style."""
    known = (*TRAIN_STYLES, *HELD_OUT_STYLES)
    if unknown := [style for style in arguments.styles if style not in known]:
        raise DataError(f"--styles must name some of {', '.join(known)}, got {unknown[0]}")
    if arguments.leave_out_every is not None and arguments.leave_out_every < 2:
        raise DataError(f"--leave-out-every must be at least 2, got {arguments.leave_out_every}")
    check_room(arguments.output, overwrite=arguments.overwrite)
    with _scratch(arguments.output) as scratch:
        count = write_zero_shot(
            scratch / arguments.output.name, tuple(arguments.styles), leave_out_every=arguments.leave_out_every
        )
    print(f"{count} drawings")


@contextlib.contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Yield a folder in which one of the name of `place` is to be written, which then goes there."""
    real = place.resolve()  # of a link to another disk, where the folder can be renamed only if it is written there
    scratch = real.parent / ".writing"
    shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
    try:
        yield scratch
        if aside := make_room(real, overwrite=True):
            print(f"what was in {place} is now {aside}")
        (scratch / place.name).rename(real)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
