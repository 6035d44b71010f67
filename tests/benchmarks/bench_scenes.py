"""Scenes a second on one core: composed, and written to shards with JPEG and tar.

python tests/benchmarks/bench_scenes.py

Seconds are of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypclip.data.quickstart.scenes import compose
from hypclip.data.quickstart.shards import write_shards

SCENES, ROUNDS = 2_000, 3


def main() -> None:
    started = time.process_time()
    for index in range(SCENES):
        compose(0, "train", index)
    print(f"first {SCENES} scenes, drawings read and cut: {SCENES / (time.process_time() - started):,.0f} a second")
    with tempfile.TemporaryDirectory() as folder:
        show("compose", lambda: [compose(0, "train", index) for index in range(SCENES)])
        show("write_shards", lambda: write_shards(Path(folder), "train", SCENES))


def show(name: str, work: Callable[[], object]) -> None:
    rates = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        rates.append(SCENES / (time.process_time() - started))
    print(f"{name:<14} {max(rates):>6,.0f} scenes a second and core (of {ROUNDS} rounds {min(rates):,.0f} at worst)")


if __name__ == "__main__":
    main()
