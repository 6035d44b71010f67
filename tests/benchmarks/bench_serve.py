"""What HTTP leaves of the model's own speed, beside two other servers, and what overload and kill -9 do.

python tests/benchmarks/bench_serve.py [text] [image] [plain] [infinity] [latency] [overload] [kill] [tune] [client]
                                       [--model demo|vit] [--seconds 10] [--rounds 2] [--infinity VENV] [--deadline 30]

The models are that of `make demo` and a ViT-B/32 with random weights. Server and client share the machine; the client
is a process of its own, whose share of a core is printed. No text is sent twice and no picture as the same file, so no
cache helps. Every answer is checked, and some are compared with the model's own. What is compared is measured in turns,
and the median counts. `tune` and `client` run only when asked for.

`infinity` needs the peer in an environment of its own, as it wants older libraries than ours:
    python -m venv VENV && VENV/bin/pip install 'infinity-emb[server,torch]==0.0.78' aiohttp
`tune` tries its settings; INFINITY has the best on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import load
import serve_infinity as infinity
import serve_kill
import torch
from serve_forward import Forward
from serve_inputs import text_requests
from serve_plan import Plan, quantile_of
from serve_setup import CLIENTS, DEMO, WARM_UP_S, Bench
from servers import HERE, PORT, hypclip_server, plain_server, running, start

OPEN_LOOP_S = 30.0
OVERLOAD_S = 60.0
OVERLOAD_CONNECTIONS = 2000
OVERLOAD_TEXTS = 320_000  # that many before the first comes again
OVERLOAD_WIDTH = {"demo": 16, "vit": 1}  # texts a request: ten times the demo's speed is too many requests to send
KILLS = 5
INFINITY = {"text": (32, False), "image": (32, False)}  # batch size, compiled


def bench_text(bench: Bench) -> None:
    """One caption a request, over the model's own batches of captions of like length."""
    alone, reports = [], []
    with bench.server() as server, Forward(bench.checkpoint) as forward:
        for _ in range(bench.options.rounds):
            alone.append(forward.rates(texts=bench.texts(512))["text"])
            reports.append(bench.closed(server.port))
    ours, (batch, own) = median(report.rate for report in reports), _best(alone)
    what = f"{ours:,.1f} texts/s of {CLIENTS} clients ({reports[0].cpu:.2f} of a core); the model's own {own:,.1f}"
    bench.show("text", f"{what}, batches of {batch}", f"{ours / own:.1%}", "≥ 85 %")


def bench_image(bench: Bench) -> None:
    """One picture a request, over the model's own batches, with and without what makes tensors of files."""
    alone, tensors, reports = [], [], []
    paths = [bench.folder / f"{number}.jpg" for number in range(64)]
    for path, file in zip(paths, bench.files, strict=False):
        path.write_bytes(file)
    with bench.server() as server, Forward(bench.checkpoint) as forward:
        for _ in range(bench.options.rounds):
            found = forward.rates(pictures=[str(path) for path in paths])
            alone.append(found["image"])
            tensors.append(found["tensor"])
            reports.append(bench.closed(server.port, "image"))
    ours, size = median(report.rate for report in reports), sum(map(len, bench.files)) / len(bench.files) / 1e3
    what = f"{ours:,.1f} pictures/s of {size:.0f} kB, {CLIENTS} clients ({reports[0].cpu:.2f} of a core)"
    for name, rates in ("decode + resize + forward", alone), ("forward", tensors):
        batch, own = _best(rates)
        bench.show("image", f"{what}; {name} {own:,.1f}, batches of {batch}", f"{ours / own:.1%}", "≥ 90 %")


def bench_plain(bench: Bench) -> None:
    """One caption a request, over a server that makes one forward pass of each."""
    rates: dict[str, list[float]] = {"ours": [], "async": [], "def": []}
    with (
        bench.server() as ours,
        running(plain_server(bench.checkpoint, "async"), bench.folder) as on_loop,
        running(plain_server(bench.checkpoint, "def"), bench.folder) as in_threads,
    ):
        for _ in range(bench.options.rounds):
            for name, server in ("ours", ours), ("async", on_loop), ("def", in_threads):
                rates[name].append(bench.closed(server.port).rate)
    own, plain = median(rates["ours"]), {name: median(rates[name]) for name in ("async", "def")}
    what = (
        f"{own:,.1f} texts/s of {CLIENTS} clients; plain server, async {plain['async']:,.1f}, def {plain['def']:,.1f}"
    )
    bench.show("plain", what, f"{own / max(plain.values()):.2f} x", "≥ 4 x")


def bench_infinity(bench: Bench) -> None:
    """Texts and pictures over infinity with a model of the same size."""
    venv: Path | None = bench.options.infinity
    if venv is None:
        print("infinity  not asked for: --infinity VENV")
        return
    model = _infinity_model(bench)
    for what, goal in ("text", "≥ 1.4 x"), ("image", "≥ 1.1 x"):
        batch_size, compiled = INFINITY[what]
        command = infinity.command(venv, model, batch_size, compiled)
        ours, theirs = [], []
        with bench.server() as server, running(command, bench.folder, "/health", infinity.OFFLINE) as peer:
            for _ in range(bench.options.rounds):
                ours.append(bench.closed(server.port, what, "/v1/embeddings").rate)
                theirs.append(bench.closed(peer.port, what, "/embeddings", same_model=False).rate)
        settings = f"batches of {batch_size}{', compiled' if compiled else ''}"
        line = f"{what}: {median(ours):,.1f}/s of {CLIENTS} clients; infinity {median(theirs):,.1f}/s, {settings}"
        bench.show("infinity", line, f"{median(ours) / median(theirs):.2f} x", goal)


def bench_tune(bench: Bench) -> None:
    """Try infinity's settings."""
    model = _infinity_model(bench)
    for compiled in (False, True):
        for batch_size in (16, 32, 64, 128):
            command = infinity.command(bench.options.infinity, model, batch_size, compiled)
            try:
                with running(command, bench.folder, "/health", infinity.OFFLINE) as peer:
                    found = [
                        bench.closed(peer.port, what, "/embeddings", same_model=False).rate
                        for what in ("text", "image")
                    ]
            except RuntimeError as error:
                found = []
                print(error)
            setting = (
                f"infinity, batches of {batch_size}, {'' if compiled else 'not '}compiled: texts, pictures a second"
            )
            bench.show("tune", setting, " ".join(f"{rate:.1f}" for rate in found))


def bench_latency(bench: Bench) -> None:
    """Random arrivals at half of what the server can do, over one client at a time."""
    with bench.server() as server:
        single = bench.closed(server.port, clients=1).latency(0.5)
        capacity = bench.closed(server.port).rate
        rate = capacity / 2
        requests = text_requests(bench.texts(math.ceil(1.2 * rate * (OPEN_LOOP_S + WARM_UP_S)) + 100))
        report = load.run(Plan(server.port, requests, 1, bench.dim, OPEN_LOOP_S, WARM_UP_S, 1000, rate))
        report.check()
    bench.show("latency", "one client, median", f"{1e3 * single:.2f} ms")
    what = f"Poisson arrivals, {report.offered:,.1f}/s of {rate:,.1f} offered, {report.due - report.sent} not sent"
    late = f"sent {1e3 * quantile_of(report.lateness, 0.99):.1f} ms late (p99, counted)"
    bench.show("latency", f"{what}; {late}; p50", f"{1e3 * report.latency(0.5):.2f} ms")
    ratio = report.latency(0.99) / single
    bench.show(
        "latency", f"the same, p99: {1e3 * report.latency(0.99):.1f} ms, over one client", f"{ratio:.2f} x", "≤ 5 x"
    )


def bench_overload(bench: Bench) -> None:
    """Ten times as many requests as the server can answer, for a minute."""
    width = OVERLOAD_WIDTH[bench.name]
    texts = bench.texts(OVERLOAD_TEXTS)
    requests = text_requests(texts, width=width)
    common = {"width": width, "dim": bench.dim, "timeout_s": bench.options.deadline + 30}
    with bench.server() as server:
        capacity = load.run(Plan(server.port, requests, seconds=bench.options.seconds, warmup_s=WARM_UP_S, **common))
        capacity.check()
        rate = 10 * capacity.rate
        open_loop = {**common, "connections": OVERLOAD_CONNECTIONS, "rate": rate, "requests": requests}
        load.run(Plan(server.port, seconds=5, **open_loop))
        time.sleep(2)
        before = server.memory()
        probes = text_requests(bench.texts(2000), width=width)
        report = load.run(Plan(server.port, seconds=OVERLOAD_S, seed=1, probes=probes, **open_loop))
        time.sleep(2)
        after = server.memory()
    bench.compare(report, texts, width)
    offered = f"{report.offered:,.0f}/s of {rate:,.0f} requests of {width} offered, {report.most_connections:,} of "
    offered += f"{OVERLOAD_CONNECTIONS:,} connections, client {report.cpu:.2f} of a core; over capacity"
    bench.show("overload", offered, f"{report.offered / capacity.rate:.1f} x", "10 x")
    answers = ", ".join(f"{status or 'none'}: {count:,}" for status, count in sorted(report.statuses.items()))
    good = report.rate / capacity.rate
    bench.show("overload", f"answers by status {answers}; wrong {len(report.wrong)}; 200s over capacity", f"{good:.0%}")
    others = sum(count for status, count in report.statuses.items() if status not in (200, 429, 503, 504))
    bench.show("overload", "answers that are none of 200, 429, 503, 504", f"{others}", "0")
    bench.show("overload", "p99 of the 200s", f"{report.latency(0.99):.2f} s", f"≤ {bench.options.deadline:g} s")
    growth = f"memory, {before / 2**20:,.0f} MiB after 5 s of it, {after / 2**20:,.0f} MiB after {OVERLOAD_S:g} s more"
    bench.show("overload", growth, f"{after / before - 1:+.1%}", "≤ +10 %")
    idle = f"until 20 probes in a row, one each 50 ms, take ≤ 2 x the {1e3 * report.idle_latency:.1f} ms of before"
    bench.show("overload", idle, f"{report.recovery:.2f} s", "≤ 2 s")


def bench_kill(bench: Bench) -> None:
    """Kill the server while it is written to, look for what it had acknowledged."""
    chosen, starts = random.Random(0), []
    acknowledged: list[str] = []
    lost: list[str] = []
    altered: list[str] = []
    with tempfile.TemporaryDirectory(dir=bench.folder) as index:
        command = hypclip_server(bench.checkpoint, Path(index))
        server = start(command, bench.folder, environment=bench.environment)
        try:
            for number in range(KILLS):
                writers = serve_kill.Writers(server.port, bench.dim, bench.folder, f"{number}")
                writers.start()
                time.sleep(chosen.uniform(1, 3))
                server.kill()
                new = writers.join()
                assert not writers.refused, f"writes were refused with {writers.refused}"
                begin = time.monotonic()
                server = start(command, bench.folder, environment=bench.environment)
                starts.append(time.monotonic() - begin)
                acknowledged += new
                gone, wrong = serve_kill.missing(server.port, bench.dim, new if number + 1 < KILLS else acknowledged)
                lost += gone
                altered += wrong
            _, info = serve_kill.call(server.port, "GET", f"/collections/{serve_kill.COLLECTION}")
        finally:
            server.stop()
    what = f"kill -9, {KILLS} times, {len(acknowledged):,} points acknowledged, {info['count']:,} there"
    what += f", {len(altered)} altered, ready again in {median(starts):.1f} s; lost"
    bench.show("kill", what, f"{len(lost)}", "0")


def bench_client(bench: Bench) -> None:
    """What the client could do against a server that costs nothing."""
    with running([sys.executable, str(HERE / "serve_client.py"), PORT], bench.folder, "/") as server:
        report = load.run(Plan(server.port, text_requests(bench.texts(1000)), 1, 128, 5, 1))
        report.check()
    cost = 1e6 * report.cpu / report.rate
    bench.show("client", f"against a trivial server {report.rate:,.0f} requests/s; of a core, each", f"{cost:.0f} µs")


def _best(rounds: list[dict[str, float]]) -> tuple[str, float]:
    """Return the batch size with the best median, and that."""
    rates = {batch: median(found[batch] for found in rounds) for batch in rounds[0]}
    batch = max(rates, key=rates.__getitem__)
    return batch, rates[batch]


def _infinity_model(bench: Bench) -> Path:
    folder = bench.folder / "clip"
    if not folder.exists():
        infinity.make_model(bench.options.infinity, folder)
    return folder


def main() -> None:
    """Run the parts that are asked for."""
    parts: dict[str, Callable[[Bench], None]] = {
        name.removeprefix("bench_"): part for name, part in globals().items() if name.startswith("bench_")
    }
    usual = [name for name in parts if name not in ("tune", "client")]
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    parser.add_argument("--model", choices=["demo", "vit"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--deadline", type=float, default=30)
    parser.add_argument("--infinity", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        for name in ["demo", "vit"] if options.model is None else [options.model]:
            if name == "demo" and not DEMO.is_dir():
                print("no demo model: run make demo first")
                continue
            bench = Bench(name, Path(folder), options)
            for part in options.parts or usual:
                if name == "vit" or part not in ("infinity", "tune"):
                    try:
                        parts[part](bench)
                    except RuntimeError as error:
                        bench.show(part, "FAILED", "")
                        print(error)


if __name__ == "__main__":
    main()
