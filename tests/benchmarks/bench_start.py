"""Seconds until a server of ViT-B/32 with random weights is ready: the first start, which exports, and the next one.

python tests/benchmarks/bench_start.py
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hypclip import HypCLIP, ModelConfig
from hypclip.checkpoint import atomic_directory, save
from tests.support.ports import free_port
from tests.support.processes import start_module


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoint"
        with atomic_directory(place) as scratch:
            save(HypCLIP(ModelConfig("ViT-B-32")), scratch, name="random")
        arguments = ["--checkpoint", str(place), "--index", f"{folder}/index", "--create-index"]
        for backend in ("onnx", "torch"):
            for start in ("first", "next"):
                began = time.perf_counter()
                server = start_module(arguments, Path(folder) / "log", free_port(), HYPCLIP_BACKEND=backend)
                server.wait_until_ready()
                print(f"{backend:6} {start:6} {time.perf_counter() - began:6.1f} s", flush=True)
                server.send_signal(signal.SIGINT)
                server.exit_code()
                server.end()


if __name__ == "__main__":
    main()
