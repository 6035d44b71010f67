"""What each tuning of train/cpu.py does alone to a step of a training like the quickstart's, from shard to update.

python tests/benchmarks/bench_cpu.py [--steps 40] [--rounds 7]

Each training is a process of its own, since none of the tunings can be undone in one. In each round there is one with
all of them and one without each, in turns, on the same scenes; the median of the ratios within a round counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

# Before train.pretrain, which sets SPIN_COUNT: here the environment that the process is started with decides.
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from hypclip.config import read  # noqa: E402
from hypclip.data.quickstart.shards import write_shards  # noqa: E402
from hypclip.model import HypCLIP  # noqa: E402
from hypclip.training.settings import RunConfig, configure  # noqa: E402
from train import cpu  # noqa: E402
from train.pretrain import Run  # noqa: E402

SPIN, MALLOC, ATTENTION = "=".join(cpu.SPIN_COUNT), "kept memory", "explicit attention"


def main() -> int:
    """Print the table, or train in a process that `measure` has started."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40, help="of a training, after a quarter as many to warm up")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scenes", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--without", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options.train, options.steps, options.threads, options.without)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), "train", options.scenes, workers=options.threads)
        compare(Path(folder), options)
    return 0


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Train with all tunings and without each, in turns, and print what each does."""
    contenders = ("", SPIN, MALLOC, ATTENTION)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name in contenders:
            seconds[name].append(measure(folder, options, name))
    every = seconds.pop("")
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds of {options.steps} steps; "
          f"a step with all of them: {1e3 * median(every):.0f} ms")  # fmt: skip
    for name, without in seconds.items():
        ratios = sorted(b / a for a, b in zip(every, without, strict=True))
        print(f"without {name:<22} {1e3 * median(without):6.0f} ms a step, {median(ratios):.2f} x the time "
              f"({ratios[0]:.2f}–{ratios[-1]:.2f})")  # fmt: skip


def measure(folder: Path, options: argparse.Namespace, without: str) -> float:
    """Train in a process of its own; return seconds per step."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    name, value = cpu.SPIN_COUNT
    environment.pop(name, None)
    if without != SPIN:
        environment[name] = value
    command = [sys.executable, __file__, "--train", folder, "--without", without]
    command += ["--steps", str(options.steps), "--threads", str(options.threads)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def train(folder: Path, steps: int, threads: int, without: str) -> float:
    """Train on the scenes in a folder; return seconds per step, those of the warm-up left out."""
    if without == MALLOC:
        cpu.keep_freed_memory = lambda: False
    if without == ATTENTION:
        HypCLIP.use_explicit_attention = lambda _: None  # type: ignore[method-assign]
    changes = {"output_dir": folder / "run", "data.shards": folder / "train", "train.threads": threads,
               "train.trackers": "[]", "train.log_every": 1_000_000, "evaluate.retrieval": "{}",
               "evaluate.hierarchy": "{}"}  # fmt: skip
    overrides = [f"{key}={value}" for key, value in changes.items()]
    run = Run(configure(read(ROOT / "configs" / "quickstart.yaml", overrides, RunConfig)), resume=False, overwrite=True)
    batches = iter(run.stream)
    for step in range(-(steps // 4), steps):
        if step == 0:
            began = time.perf_counter()
        run.step(run.next_batch(batches))
    seconds = (time.perf_counter() - began) / steps
    run.saver.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
