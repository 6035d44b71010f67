"""How fast searches are, beside faiss and beside one product of matrix and vector, and whether they are right.

python tests/benchmarks/bench_search.py [exact] [cones] [planes] [real] [index] [write] [kill] [memory]

Every timing is a ratio of medians taken in turns. The index is the store as a user calls it: ids and metadata included,
hits and all. faiss runs with one and with two threads, and the faster counts.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faiss
import numpy as np
import torch

from hypclip.geometry import cones, lorentz, planes
from hypclip.search import Cone, LocalStore, Plane, Points, Route, Space
from hypclip.search.hierarchy.traverse import ROOT, traverse

CURV = 1.0
K = 10


def medians(functions: dict[str, Callable[[], object]], rounds: int = 3, calls: int = 10) -> dict[str, float]:
    """Return the median seconds of each function, in turns of some calls.

    The first two calls of a turn do not count: the threads of the library before it are still awake then.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            for call in range(calls + 2):
                start = time.perf_counter()
                function()
                if call >= 2:
                    times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def hierarchy(count: int, dim: int, seed: int, branching: int = 10, levels: int = 5) -> torch.Tensor:
    """Return a random tree of points: children lie in the cone of their parent and further out, at radii 0.3 to 4."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.linspace(0.3, 4.0, levels)
    units = torch.nn.functional.normalize(torch.randn(branching, dim, generator=generator), dim=1)
    radii = steps[0].expand(branching, 1)
    points = [lorentz.exp_map0(units * radii, CURV)]
    for level in range(1, levels):
        room = count - sum(map(len, points))
        size = room if level == levels - 1 else min(branching ** (level + 1), room)
        parents = torch.randint(len(units), (size,), generator=generator)
        apertures = cones.half_aperture(points[-1][parents], CURV)
        widest = cones.origin_angle(radii[parents].squeeze(1), apertures, CURV).unsqueeze(1)
        noise = torch.nn.functional.normalize(torch.randn(size, dim, generator=generator), dim=1)
        spread = torch.tan(0.7 * widest * torch.rand(size, 1, generator=generator))
        units = torch.nn.functional.normalize(units[parents] + spread * noise, dim=1)
        radii = steps[level] + 0.3 * torch.rand(size, 1, generator=generator)
        points.append(lorentz.exp_map0(units * radii, CURV))
    return torch.cat(points)


def clusters(count: int, dim: int, seed: int, centres: int = 1000) -> torch.Tensor:
    """Return points around random directions, at tangent norms U(0.5, 3): the data of the published comparison."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(centres, dim, generator=generator)
    generator.manual_seed(seed)
    chosen = means[torch.randint(centres, (count,), generator=generator)]
    units = torch.nn.functional.normalize(chosen + 0.5 * torch.randn(count, dim, generator=generator), dim=1)
    return lorentz.exp_map0(units * (0.5 + 2.5 * torch.rand(count, 1, generator=generator)), CURV)


@contextlib.contextmanager
def stored(points: torch.Tensor, curv: float = CURV) -> Iterator[LocalStore]:
    """Lend a store that holds points, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder, LocalStore(folder, create=True, approximate_above=None) as store:
        fill(store, points, curv)
        yield store


def fill(store: LocalStore, points: torch.Tensor, curv: float = CURV, rows: int = 1000) -> None:
    """Write points, some metadata with each."""
    store.create_collection("c", Space("bench", curv, points.shape[1]))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        ids = [f"point-{i:08}" for i in range(start, start + len(block))]
        store.upsert("c", Points(ids, block, ["image"] * len(block), [{"class": i % 7} for i in range(len(block))]))


def truth(points: torch.Tensor, query: torch.Tensor, curv: float) -> torch.Tensor:
    """Return all distances to a query in float64, from the definition in coordinates."""
    x, q = points.double(), query.double()
    return torch.cat([lorentz.dist(b, q.expand_as(b), curv) for b in torch.split(x, 20_000)])


def cone_truth(points: torch.Tensor, of: torch.Tensor, side: str, eta: float, curv: float) -> set[int]:
    """Return the rows of the ancestors or descendants: the test of the cone on every pair, in float64."""
    found = []
    for x in torch.split(points.double(), 20_000):
        q = of.double().expand_as(x)
        general, specific = (x, q) if side == "ancestors" else (q, x)
        inside = cones.oxy_angle(general, specific, curv) <= eta * cones.half_aperture(general, curv)
        found.append(inside & (x != q).any(1))
    return set(torch.nonzero(torch.cat(found)).flatten().tolist())


def row(point_id: str) -> int:
    """Return which point an id names."""
    return int(point_id.removeprefix("point-"))


def bench_exact() -> None:
    """Exact nearest neighbours against a flat inner-product index of faiss."""
    print("\nexact knn, k = 10, 100,000 points; times in ms")
    print(f"{'D':>4} {'queries':>8} {'hypclip':>9} {'faiss':>9} {'ratio':>6} {'recall':>7} {'error':>11} {'d(x,x)':>7}")
    for dim in (512, 128):
        points, queries = clusters(100_000, dim, 1), clusters(64, dim, 2)
        index = faiss.IndexFlatIP(dim)
        index.add(points.numpy())
        with stored(points) as store:
            for n in (1, 64):
                q, flat = queries[:n], queries[:n].numpy()

                def peer(threads: int, flat: np.ndarray = flat, index: faiss.Index = index) -> None:
                    faiss.omp_set_num_threads(threads)
                    index.search(flat, K)

                ours = lambda q=q, store=store: store.knn("c", q, K)  # noqa: E731
                calls = 15 if n == 1 else 3
                found = medians({"ours": ours, "one": lambda: peer(1), "two": lambda: peer(2)}, calls=calls)
                hits, error, self_distance = quality(store, points, q)
                faster = min(found["one"], found["two"])
                print(
                    f"{dim:>4} {n:>8} {1e3 * found['ours']:>9.2f} {1e3 * faster:>9.2f} {found['ours'] / faster:>6.2f} "
                    f"{hits:>7.4f} {error:>11.1e} {self_distance:>7.1g}"
                )


def quality(store: LocalStore, points: torch.Tensor, queries: torch.Tensor) -> tuple[float, float, float]:
    """Return recall, the worst relative error of a distance with near pairs among them, and the largest d(x, x)."""
    near = points[:64] * (1 + 1e-5 * torch.randn(64, points.shape[1], generator=torch.Generator().manual_seed(3)))
    error, found, wanted = 0.0, 0, 0
    for query in [*queries[:16], *near[:8]]:
        distance = truth(points, query, CURV)
        best = set(distance.topk(K, largest=False).indices.tolist())
        hits = store.knn("c", query[None], K)[0].hits
        found += len(best & {row(hit.id) for hit in hits})
        wanted += K
        for hit in hits:
            exact = reference(points[row(hit.id)], query)
            error = max(error, abs(hit.distance - exact) / exact)
    own = max(store.knn("c", points[i : i + 1], 1)[0].hits[0].distance for i in range(16))
    return found / wanted, error, own


def reference(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the distance of two float32 points in 80-bit arithmetic, from the difference of their coordinates."""
    a, b = x.numpy().astype(np.longdouble), y.numpy().astype(np.longdouble)
    at, bt = np.sqrt(1 + (a**2).sum()), np.sqrt(1 + (b**2).sum())
    step = a - b
    lag = (step * (a + b)).sum() / (at + bt)
    return float(2 * np.arcsinh(np.sqrt((step**2).sum() - lag**2) / 2))


def bench_cones() -> None:
    """Cones and traversal on a random hierarchy, over one product of matrix and vector."""
    print("\n100,000 points of a random hierarchy: median time over that of one float32 product of matrix and vector")
    for dim in (512, 128):
        points = hierarchy(100_000, dim, 1)
        with stored(points) as store:
            cone_rows(store, points, CURV, f"D = {dim}")


def bench_planes() -> None:
    """Half-spaces, both ways, over one product of matrix and vector; the first lines are of as many points as the demo.

    Where other work runs, set OPENBLAS_NUM_THREADS=1 and read the time of the thread itself.
    """
    print(
        "\nhalf-spaces, pages of 10: median time over that of one float32 product of matrix and vector, taken in turns"
    )
    for count, dim in ((5_000, 128), (100_000, 128), (100_000, 512)):
        points = hierarchy(count, dim, 1)
        with stored(points) as store:
            plane_rows(store, points, f"{count:,} x {dim}")


def plane_rows(store: LocalStore, points: torch.Tensor, title: str) -> None:
    """Print times and mismatches of ancestors and descendants, of queries that few and that many points belong to."""
    matrix, count = points.numpy(), len(points)
    order = torch.argsort(lorentz.radius(points, CURV))
    leaves = points[order[-count // 2 :: max(1, count // 40)][:20]]
    inner = points[order[20 : count // 50 : max(1, count // 1100)][:20]]
    # Half of all points lie in the half-space of one so near the root.
    wide = 1e-3 * points[order[: 20 * 4 : 4]]
    for name, side, queries, rule in (
        ("ancestors", "ancestors", leaves, Plane()),
        ("ancestors, t = -2.3", "ancestors", inner, Plane(-2.3)),
        ("descendants", "descendants", inner, Plane()),
        ("descendants, half of all", "descendants", wide, Plane()),
    ):
        wrong, totals, checked = 0, [], queries[::4]
        for q in checked:
            found = store.cone("c", q, side, rule, k=10)  # type: ignore[arg-type]
            x, y = points.double(), q.double().expand_as(points)
            height = planes.height(*((x, y) if side == "ancestors" else (y, x)), CURV)
            inside = (height >= rule.threshold) & (points != q).any(1)
            totals.append(int(inside.sum()))
            first = torch.where(inside, height, -torch.inf).topk(min(10, totals[-1])).values
            best = torch.tensor([rule.threshold - hit.margin for hit in found.hits], dtype=torch.float64)
            wrong += found.total != totals[-1] or not torch.allclose(best, first, rtol=1e-9, atol=1e-12)
        # One query, one product, and so on; on a busy machine the time of the thread itself tells more.
        times: dict[str, list[tuple[float, float]]] = {"ask": [], "product": []}
        for _ in range(4):
            for q in queries:
                vector = q.numpy()
                ask = lambda q=q, side=side, rule=rule: store.cone("c", q, side, rule, k=10)  # noqa: E731
                for what, call in (("ask", ask), ("product", lambda vector=vector: matrix @ vector)):
                    start, own = time.perf_counter(), time.thread_time()
                    call()
                    times[what].append((time.perf_counter() - start, time.thread_time() - own))
        (asked, own), (product, alone) = (np.median(times[what], axis=0) for what in ("ask", "product"))
        print(
            f"{title:<14} {name:<25} {asked / product:>5.2f} x   {1e3 * asked:.2f} ms; of the thread's own time "
            f"{own / alone:.2f} x, {1e3 * own:.2f} ms; {wrong} of {len(checked)} differ from float64; "
            f"{np.median(totals):.0f} found (median)"
        )


def bench_real() -> None:
    """The same on the embeddings of the quickstart, if `make demo` has run."""
    folder = Path("runs/quickstart/index")
    if not folder.is_dir():
        print("\nno demo index: run make demo first")
        return
    with LocalStore(folder) as store:
        space = store.describe("default").space
        points = torch.cat([block.vectors for block in store.scan("default")])
    print(f"\nthe demo's embeddings, {len(points):,} points: overhead shows at this size")
    with stored(points, space.curv) as store:
        cone_rows(store, points, space.curv, f"D = {space.dim}")


def cone_rows(store: LocalStore, points: torch.Tensor, curv: float, title: str) -> None:
    """Print times and mismatches of ancestors, descendants and traversal."""
    matrix, count = points.numpy(), len(points)
    order = torch.argsort(lorentz.radius(points, curv))
    leaves = order[-count // 2 :: max(1, count // 40)].tolist()[:20]
    inner = order[count // 1000 : count // 50 : max(1, count // 1100)].tolist()[:20] or [int(order[1])]
    for side, rows in (("ancestors", leaves), ("descendants", inner)):
        wrong, sizes = 0, []
        for i in rows:
            found = store.cone("c", points[i], side, Cone(), k=count)
            wrong += {row(hit.id) for hit in found.hits} != cone_truth(points, points[i], side, 1.0, curv)
            sizes.append(len(found.hits))

        def ask(rows: list[int] = rows, side: str = side) -> None:
            for i in rows:
                store.cone("c", points[i], side, Cone(), k=10)

        found = medians({"ask": ask, "product": lambda rows=rows: [matrix @ matrix[i] for i in rows]}, calls=1)
        print(
            f"{title:<8} {side:<12} {found['ask'] / found['product']:>5.2f} x   {1e3 * found['ask'] / len(rows):.2f} ms"
            f"; {wrong} of {len(rows)} differ from float64; {np.median(sizes):.0f} found (median), {max(sizes)} at most"
        )
    for entailment in (True, False):
        cone = Cone() if entailment else None
        wrong = sum(
            [stop.id for stop in traverse(store, "c", Route(points[i], curv, steps=50), cone).stops]
            != published(points, points[i], curv, entailment)
            for i in leaves
        )

        def go(cone: Cone | None = cone) -> None:
            for i in leaves:
                traverse(store, "c", Route(points[i], curv, steps=50), cone)

        found = medians({"go": go, "product": lambda: [matrix @ matrix[i] for i in leaves]}, calls=1)
        print(
            f"{title:<8} traversal, 50 steps, {'with' if entailment else 'without'} entailment "
            f"{found['go'] / found['product']:>5.2f} x   {1e3 * found['go'] / len(leaves):.2f} ms; "
            f"{wrong} of {len(leaves)} differ from the published algorithm"
        )


def published(points: torch.Tensor, start: torch.Tensor, curv: float, entailment: bool) -> list[str]:
    """Return the path of the published algorithm (arXiv:2304.09172), every step against the whole pool, in float64.

    The starting point is taken out of the pool, as the algorithm's arccos gives noise for it.
    """
    keep = (points != start).any(1) if entailment else torch.ones(len(points), dtype=torch.bool)
    rows = torch.nonzero(keep).flatten()
    pool = torch.cat([points[rows].double(), torch.zeros(1, points.shape[1], dtype=torch.float64)])
    tangent = lorentz.log_map0(start.double(), curv)
    weights = torch.linspace(1, 0, 50, dtype=torch.float64)
    steps = lorentz.exp_map0(torch.stack([w * tangent for w in weights]), curv)
    pool_time, step_time = (lorentz.time_component(z, curv).squeeze(1) for z in (pool, steps))
    norm = pool.norm(dim=1)
    best = []
    for z, z_time in zip(steps, step_time, strict=True):
        inner = pool @ z - pool_time * z_time
        if entailment:
            along = (z_time + curv * inner * pool_time) / (
                norm * torch.sqrt(torch.clamp((curv * inner) ** 2 - 1, 1e-15))
            )
            aperture = torch.asin(torch.clamp(0.2 / (math.sqrt(curv) * norm), max=1))
            outside = torch.acos(torch.clamp(along, -1, 1)) > aperture
            outside[-1] = False
            inner = torch.where(outside, -1e12, inner)
        best.append(int(inner.argmax()))
    names = [f"point-{int(rows[i]):08}" if i < len(rows) else ROOT for i in best]
    return list(dict.fromkeys(names))


def bench_index() -> None:
    """The approximate search at a million points, for queries that are not stored."""
    dim, count = 128, 1_000_000
    points, queries = clusters(count, dim, 1), clusters(200, dim, 2)
    with stored(points) as store:
        start = time.perf_counter()
        index = store.optimize("c")
        print(f"\n1,000,000 x {dim}: built in {time.perf_counter() - start:.0f} s, {index}")
        found = 0
        for query in queries:
            best = {hit.id for hit in store.knn("c", query[None], K, exact=True)[0].hits}
            found += len(best & {hit.id for hit in store.knn("c", query[None], K)[0].hits})
        for query in queries[:3]:
            best = truth(points, query, CURV).topk(K, largest=False).indices.tolist()
            assert {row(hit.id) for hit in store.knn("c", query[None], K, exact=True)[0].hits} == set(best)
        some = queries[:20]
        times = medians(
            {
                "index": lambda: [store.knn("c", q[None], K) for q in some],
                "exact": lambda: [store.knn("c", q[None], K, exact=True) for q in some],
            },
            calls=1,
        )
        print(
            f"recall@10 of held-out queries {found / (K * len(queries)):.4f}; "
            f"{1e3 * times['index'] / len(some):.2f} ms, "
            f"exact scan {1e3 * times['exact'] / len(some):.2f} ms: {times['exact'] / times['index']:.1f} x its speed"
        )


def bench_write() -> None:
    """Writes that are durable when they return."""
    points = clusters(100_000, 128, 1)
    with tempfile.TemporaryDirectory() as folder, LocalStore(folder, create=True) as store:
        store.create_collection("c", Space("bench", CURV, 128))
        start = time.perf_counter()
        fill(store, points)
        first = len(points) / (time.perf_counter() - start)
        start = time.perf_counter()
        fill(store, points)
        again = len(points) / (time.perf_counter() - start)
        print(f"\nupserts of 1,000 points, D = 128, synced: {first:,.0f} points/s; replacing all of them {again:,.0f}")


_WRITER = """
import sys, torch
from hypclip.search import LocalStore, Points, Space
store = LocalStore(sys.argv[1], create=True)
store.create_collection("c", Space("m", 1.0, 32))
batch = int(sys.argv[2])
while True:
    ids = [f"{batch}-{i}" for i in range(200)] + [f"shared-{i}" for i in range(100)]
    vectors = torch.full((300, 32), float(batch % 1000) / 1000)
    store.upsert("c", Points(ids, vectors, ["text"] * 300, [{"batch": batch}] * 300))
    print(batch, flush=True)
    batch += 1
"""


def bench_kill() -> None:
    """Kill a writer at random, twenty times, and look at what it had acknowledged."""
    generator, lost, torn, batches = random.Random(0), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        acknowledged = -1
        for _ in range(20):
            writer = subprocess.Popen(
                [sys.executable, "-c", _WRITER, folder, str(acknowledged + 1)], stdout=subprocess.PIPE, text=True
            )
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(generator.uniform(0, 0.5))
            os.kill(writer.pid, signal.SIGKILL)
            lines = writer.stdout.read().split()
            writer.wait()
            acknowledged = max(acknowledged + 1, *(int(line) for line in lines)) if lines else acknowledged + 1
            with LocalStore(folder) as store:
                seen: dict[int, int] = {}
                newest = set()
                for block in store.scan("c"):
                    for point_id, metadata, vector in zip(block.ids, block.metadata, block.vectors, strict=True):
                        batch = metadata["batch"]
                        torn += not torch.equal(vector, torch.full((32,), float(batch % 1000) / 1000))
                        if point_id.startswith("shared"):
                            newest.add(batch)
                        else:
                            seen[batch] = seen.get(batch, 0) + 1
                lost += sum(seen.get(batch) != 200 for batch in range(acknowledged + 1))
                torn += sum(n != 200 for n in seen.values()) + (len(newest) != 1) + (newest != {max(seen)})
                batches, acknowledged = max(seen), max(seen)
    print(
        f"\nkill -9 at random, 20 times in {batches + 1} batches: {lost} acknowledged lost, {torn} torn; "
        "opened every time"
    )


_OPENER = """
import json, sys, resource
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
import torch
from hypclip.search import LocalStore
torch.ones(512, 512) @ torch.ones(512, 512)
before = resident()
store = LocalStore(sys.argv[1], approximate_above=None)
space = store.describe("c").space
query = torch.zeros(1, space.dim) + 0.01
store.knn("c", query, 10)
print(json.dumps([resident() - before, 4 * space.dim * store.describe("c").count]))
"""


def bench_memory() -> None:
    """What an open store adds to the memory of a process, over that of the vectors in float32."""
    print("\nresident memory of an open store over the raw vectors, after a search")
    for count, dim, indexed in ((100_000, 512, False), (1_000_000, 128, False), (1_000_000, 128, True)):
        points = clusters(count, dim, 1)
        with tempfile.TemporaryDirectory() as folder:
            with LocalStore(folder, create=True, approximate_above=None) as store:
                fill(store, points)
                if indexed:
                    store.optimize("c", cell_count=1024)
            done = subprocess.run(
                [sys.executable, "-c", _OPENER, folder], stdout=subprocess.PIPE, text=True, check=True
            )
        resident, raw = json.loads(done.stdout)
        print(
            f"{count:>9,} x {dim}{', with cells' if indexed else '':<12} {resident / raw:.3f} x "
            f"({resident / 2**20:.0f} MiB)"
        )


if __name__ == "__main__":
    torch.set_num_threads(2)
    parts = {name.removeprefix("bench_"): value for name, value in list(globals().items()) if name.startswith("bench_")}
    for name in sys.argv[1:] or parts:
        parts[name]()
