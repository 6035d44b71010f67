"""What hostile requests do to the server: made from its document by schemathesis, and 2,000 by hand over raw sockets.

python tests/benchmarks/bench_hostile.py [schema] [payloads] [--cases 5000] [--count 2000] [--seed 0] [--checkpoint DIR]

`schema` runs in process with a fake model until it has had so many cases, all checks on. `payloads` attacks a process
`python -m serve` with the model of `make demo`, or with random weights where there is none. After every payload a good
request has to get the same embedding as before. Goals: no failure; no crash, no 5xx, every refusal named, no answer
later than after 2 s, and memory that does not grow by more than 100 MB.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from servers import ROOT, Server, hypclip_server, running

sys.path.insert(0, str(ROOT))

import torch

from hypclip import HypCLIP, ModelConfig
from hypclip.checkpoint import save
from tests.support import schema_run
from tests.support.hostile import payloads as hostile_payloads
from tests.support.hostile.request import check, closing, posted, send

DEMO = ROOT / "runs/quickstart/checkpoint"
TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
GOOD = posted({"inputs": ["a dog"]}, Connection="close")
POINT = {"id": "dog", "text": "a dog", "metadata": {"kind": "animal"}}
SLOW_S = 2.0
WARM_UP = 100


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="schema, payloads; both when none is given")
    parser.add_argument("--cases", type=int, default=5_000, help="requests from the document, at least")
    parser.add_argument("--count", type=int, default=2_000, help="requests by hand")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=60, help="random ones of each operation and run")
    parser.add_argument("--checkpoint", type=Path, default=DEMO)
    options = parser.parse_args(argv)
    parts = {"schema": schema, "payloads": payloads}
    if unknown := set(options.parts) - parts.keys():
        parser.error(f"unknown part {unknown.pop()!r}, expected some of {', '.join(parts)}")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.parts or parts:
            scratch = Path(folder, name)
            scratch.mkdir()
            bad += parts[name](options, scratch)
    return 1 if bad else 0


def schema(options: argparse.Namespace, folder: Path) -> int:
    """Print how many requests each operation got, and what failed."""
    torch.set_num_threads(1)
    begin, total, runs = time.monotonic(), schema_run.Summary(), 0
    while total.cases.total() < options.cases:
        path = folder / str(runs)
        path.mkdir()
        summary = schema_run.run(path, examples=options.examples, seed=options.seed + runs)
        for name in ("cases", "phases", "codes", "checks"):
            getattr(total, name).update(getattr(summary, name))
        total.failures += summary.failures
        total.not_made += summary.not_made
        runs += 1
    print(f"{'operation':40} cases")
    for operation, count in sorted(total.cases.items()):
        print(f"{operation:40} {count:5}")
    print(f"{'all':40} {total.cases.total():5}, in {time.monotonic() - begin:.0f} s")
    print("phases:", dict(total.phases))
    print("answers:", dict(sorted(total.codes.items())))
    print(f"checks: {total.checks.total():,} of {len(total.checks)} kinds")
    print(f"not made by schemathesis: {total.not_made}")
    print(f"failures: {len(total.failures)} (goal 0)")
    print(*total.failures[:50], sep="\n")
    return len(total.failures)


def payloads(options: argparse.Namespace, folder: Path) -> int:
    """Attack a server, and print what became of it, by kind of payload."""
    checkpoint = options.checkpoint if options.checkpoint.is_dir() else _random_model(folder / "model")
    environment = {"HYPCLIP_IMAGE_URL_HOSTS": hostile_payloads.ALLOWED_HOST, "HYPCLIP_DRAIN_S": "0"}
    index = folder / "index"
    with running(hypclip_server(checkpoint, index), folder, environment=environment) as server:
        return _attack(server, options, folder)


def _attack(server: Server, options: argparse.Namespace, folder: Path) -> int:
    port = server.port
    assert send(port, posted({"points": [POINT]}, "/collections/default/points", "PUT", Connection="close"))[0] == 200
    expected = _embedding(port)
    codes: dict[str, Counter[int]] = defaultdict(Counter)
    seconds: dict[str, list[float]] = defaultdict(list)
    wrong: list[str] = []
    sizes: list[int] = []
    for i, payload in enumerate(hostile_payloads.payloads(options.count, options.seed)):
        kind = payload.name.split(":")[0]
        try:
            status, headers, body, taken = send(port, closing(payload.raw))
        except TimeoutError:
            status, headers, body, taken = 0, {}, b"", 20.0
        codes[kind][status] += 1
        seconds[kind].append(taken)
        if (fault := check(payload, status, headers, body)) is not None:
            wrong.append(f"{payload.name}: {fault}")
        if taken > SLOW_S:
            wrong.append(f"{payload.name}: took {taken:.1f} s")
        if _embedding(port) != expected:
            wrong.append(f"{payload.name}: a good request does not get its embedding any more")
        if i >= WARM_UP or i == options.count - 1:
            sizes.append(server.memory())
    print(f"{'kind':20} count {'slowest s':>9} {'median ms':>9}  answers")
    for kind, taken_s in seconds.items():
        answers = " ".join(f"{code}:{count}" for code, count in sorted(codes[kind].items()))
        print(f"{kind:20} {len(taken_s):5} {max(taken_s):9.2f} {1e3 * statistics.median(taken_s):9.1f}  {answers}")
    alive = server.process.is_running() and server.get("/healthz") == 200
    log = next(folder.glob("server-*.log")).read_text(errors="replace")
    every = Counter(code // 100 for counter in codes.values() for code in counter.elements())
    growth = (sizes[-1] - sizes[0]) / 2**20
    print(f"payloads: {sum(map(len, seconds.values())):,}; 5xx: {every[5]} (goal 0); alive: {alive}")
    print(f"tracebacks in the log: {log.count('Traceback (most recent call last)')}; lines: {log.count(chr(10)):,}")
    print(
        f"memory of the server after {WARM_UP}, at most, in the end: {sizes[0] / 2**20:.0f}, {max(sizes) / 2**20:.0f}, "
        f"{sizes[-1] / 2**20:.0f} MiB, that is {growth:+.0f} (goal +100)"
    )
    print(f"wrong: {len(wrong)} (goal 0)")
    print(*wrong[:100], sep="\n")
    return len(wrong) + (not alive) + every[5] + (growth > 100)


def _embedding(port: int) -> list[float] | None:
    """Return the embedding of the good request, None if there is none."""
    status, _, body, _ = send(port, GOOD)
    return json.loads(body)["data"][0]["embedding"] if status == 200 else None


def _random_model(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    save(HypCLIP(ModelConfig(TOWERS, curv_init=0.5)).eval(), folder, name="random")
    return folder


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    sys.exit(main())
