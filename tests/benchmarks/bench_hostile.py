"""What 2,000 hostile requests do to a server that runs the demo's model.

python tests/benchmarks/bench_hostile.py [--count 2000] [--seed 0]

Each goes over a connection of its own to `python -m serve`; after each a good request has to be answered as before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from serve_process import hypclip_server, running

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hostile_payloads  # noqa: E402
from hostile_request import check, posted, send  # noqa: E402

GOOD = posted({"inputs": ["a dog"]}, Connection="close")
SLOW_S = 2.0
POINT = {"id": "dog", "text": "a dog", "metadata": {"kind": "animal"}}


def main() -> None:
    """Send them, and print what came back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs/quickstart/checkpoint")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    statuses: Counter[int] = Counter()
    faults, slowest = [], 0.0
    environment = {"HYPCLIP_IMAGE_URL_HOSTS": hostile_payloads.ALLOWED_HOST, "HYPCLIP_ACCESS_LOG": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command = hypclip_server(options.checkpoint, Path(folder) / "index")
        with running(command, Path(folder), environment=environment) as server:
            send(server.port, posted({"points": [POINT]}, "/collections/default/points", "PUT", Connection="close"))
            expected = _embedding(server.port)
            before = server.memory()
            for payload in hostile_payloads.payloads(options.count, options.seed):
                raw = payload.raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nConnection: close\r\n", 1)
                try:
                    status, headers, body, seconds = send(server.port, raw)
                except TimeoutError:
                    faults.append(f"{payload.name}: no answer")
                    continue
                statuses[status] += 1
                slowest = max(slowest, seconds)
                if seconds > SLOW_S:
                    faults.append(f"{payload.name}: took {seconds:.1f} s")
                if (fault := check(payload, status, headers, body)) is not None:
                    faults.append(f"{payload.name}: {fault}")
                if _embedding(server.port) != expected:
                    faults.append(f"{payload.name}: another embedding after it")
            time.sleep(1.0)
            growth = server.memory() - before
    print(f"hostile requests        {options.count}; answers by status {dict(sorted(statuses.items()))}")
    print(f"answers of 500 and more {sum(n for status, n in statuses.items() if status >= 500)}   goal 0")
    print(f"not as they should be   {len(faults)}   goal 0")
    print(f"slowest {slowest:.2f} s; memory {growth / 2**20:+.0f} MiB")
    print("\n".join(faults[:20]))


def _embedding(port: int) -> object:
    status, _, body, _ = send(port, GOOD)
    assert status == 200, (status, body)
    return json.loads(body)["data"]


if __name__ == "__main__":
    main()
