"""Prepare data for training and evaluation.

python train/prepare_data.py quickstart --output runs/quickstart/data
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hypclip.data.quickstart.art import TRAIN_STYLES
from hypclip.data.quickstart.scenes import Split
from hypclip.data.quickstart.shards import write_shards, write_zero_shot
from hypclip.errors import HypclipError


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the given command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="source", required=True)
    quickstart = sources.add_parser("quickstart", help="scenes composed of the drawings that ship with hypclip")
    quickstart.add_argument("--output", type=Path, required=True, help="folder for train/, validation/ and zero_shot/")
    quickstart.add_argument("--scenes", type=int, default=40_000, help="training scenes (%(default)s)")
    quickstart.add_argument("--validation-scenes", type=int, default=1_000, help="held-out scenes (%(default)s)")
    quickstart.add_argument("--seed", type=int, default=0)
    quickstart.add_argument("--styles", nargs="+", default=list(TRAIN_STYLES), help="training artwork (%(default)s)")
    quickstart.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        _quickstart(arguments)
    except (HypclipError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _quickstart(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    counts: dict[Split, int] = {"train": arguments.scenes, "validation": arguments.validation_scenes}
    for split, count in counts.items():
        write_shards(
            arguments.output,
            split,
            count,
            seed=arguments.seed,
            styles=arguments.styles,
            workers=arguments.workers,
        )
    scenes_s = time.perf_counter() - started
    pictures = write_zero_shot(arguments.output / "zero_shot")
    total = sum(counts.values())
    print(f"{total} scenes in {scenes_s:.1f} s ({total / scenes_s:.0f} a second), {pictures} held-out drawings")


if __name__ == "__main__":
    sys.exit(main())
