"""How well the map of a collection keeps radii and neighbours, beside other layouts; how long map and focus take.

Rows `layout`: recall of the 10 true nearest points among the 10 and 50 nearest in the picture, rank correlations of
drawn with true radii and distances, purity of labels among the 10 nearest, processor time. On a synthetic hierarchy,
and on the quickstart's index where there is one. Rows `map` and `focus`: processor time of the server's answers, one
thread; of a map from nothing, and when it is remembered.

    python tests/benchmarks/bench_explorer.py
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from numpy.typing import NDArray

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone, Plane
from hypclip.search import LocalStore, Points, Space
from hypclip.search.contents import Block
from hypclip.search.layout.circle import Circle
from hypclip.search.layout.disk import radii
from hypclip.search.layout.kept import landmarks
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy.sources.emoji import emoji_edges
from serve.explore import Explorer
from tests.support.layouts import collection, drawn, quality

INDEX = Path(__file__).parents[2] / "runs" / "quickstart" / "index"
SIZES = ((5_000, 128), (10_000, 128), (10_000, 512), (100_000, 128))


def main() -> int:
    """Measure and print."""
    torch.set_num_threads(1)
    x, families = collection(5000, 128)
    layouts("synthetic hierarchy, 5,000 × 128, c = 0.5; label: family", x, 0.5, families)
    if INDEX.is_dir():
        x, curv, labels = stored(INDEX)
        what = f"quickstart's index, {len(x):,} × {x.shape[1]}, c = {curv:.3g}; label: family of a class"
        layouts(what, x, curv, labels)
    for n, dim in SIZES:
        times(n, dim)
    return 0


def layouts(what: str, x: NDArray[np.float32], curv: float, labels: NDArray[np.int64] | None) -> None:
    """Print a row for each layout of a collection."""
    print(what)
    print(f"{'':<34} {'10 in 10':>9} {'10 in 50':>9} {'radius':>7} {'dist.':>6} {'purity':>7} {'s':>7}")
    radius = radii(x, curv)
    rows: dict[str, Callable[[], torch.Tensor]] = {
        "true radius, circle of landmarks": lambda: drawn(radius, circled(x), curv),
        "true radius, angle by PCA": lambda: drawn(radius, turned(x), curv),
        "true radius, random angle": lambda: drawn(radius, anywhere(len(x)), curv),
        "PCA of tangent vectors": lambda: tangent(x, curv),
    }
    for name, draw in rows.items():
        began = time.thread_time()
        picture = draw()
        took = time.thread_time() - began
        found = quality(x, curv, picture, labels)
        purity = "" if found.purity is None else f"{found.purity:.2f}"
        print(
            f"layout {name:<27} {found.recall_10:>9.3f} {found.recall_50:>9.3f} {found.radius:>7.2f} "
            f"{found.distances:>6.2f} {purity:>7} {took:>7.2f}"
        )


def circled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the angles of the map."""
    blocks = [Block(np.arange(len(x)), x, np.zeros(len(x), np.uint8))]
    return Circle.of(landmarks(blocks, x.shape[1])).angles(x)


def anywhere(n: int) -> NDArray[np.float32]:
    """Return random angles."""
    return np.random.default_rng(0).uniform(0, 2 * math.pi, n).astype(np.float32)


def principal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinates of rows along the two directions in which they spread most."""
    centred = x - x.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T


def turned(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the angles of the first two principal components of the directions."""
    first, second = principal(x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)).T
    return np.arctan2(second, first).astype(np.float32)


def tangent(x: NDArray[np.float32], curv: float) -> torch.Tensor:
    """Return the usual picture: PCA of the tangent vectors at the root, and back."""
    v = lorentz.log_map0(torch.from_numpy(x).double(), curv).numpy()
    return lorentz.exp_map0(torch.from_numpy(principal(v)), curv)


def stored(index: Path) -> tuple[NDArray[np.float32], float, NDArray[np.int64]]:
    """Return the points of an index's first collection, its curvature, and the families of the classes it names."""
    with tempfile.TemporaryDirectory() as folder:  # a copy, since a server may have the index open
        file = Path(folder) / "points.sqlite3"
        shutil.copy(index / "points.sqlite3", file)
        with sqlite3.connect(file) as connection:
            number, curv, dim = connection.execute("SELECT id, curv, dim FROM collections").fetchone()
            rows = connection.execute(
                "SELECT vector, metadata FROM points WHERE collection = ? ORDER BY key", (number,)
            ).fetchall()
    x = np.frombuffer(b"".join(vector for vector, _ in rows), "<f4").reshape(len(rows), dim).copy()
    taxonomy = Taxonomy([*emoji_edges(), *emoji_edges(held_out=True)])
    named = [family(str(json.loads(text).get("class")), taxonomy) for _, text in rows]
    numbers = {name: i for i, name in enumerate(sorted(set(named) - {None}, key=str))}
    return x, curv, np.array([numbers.get(name, -1) for name in named])


def family(name: str, taxonomy: Taxonomy) -> str | None:
    """Return the most general of what the taxonomy has above a name; None of a name that it does not have."""
    phrase = next((p for p in (name, f"a {name}", f"an {name}") if p in taxonomy), None)
    above = () if phrase is None else taxonomy.ancestors(phrase)
    return min(above, key=taxonomy.level) if above else None


def times(n: int, dim: int) -> None:
    """Print what maps and views of a collection cost."""
    x, _ = collection(n, dim)
    with tempfile.TemporaryDirectory() as folder, LocalStore(folder, create=True, approximate_above=None) as store:
        store.create_collection("c", Space("m", 0.5, dim))
        for start in range(0, n, 10_000):
            part = x[start : start + 10_000]
            ids = [f"{i}" for i in range(start, start + len(part))]
            store.upsert("c", Points(ids, part, ["text"] * len(part), None))
        explorer = Explorer(store, Path(folder))
        cold = spent(lambda: explorer.map("c"))
        again = Explorer(store, Path(folder))
        kept = spent(lambda: again.map("c"))
        warm = min(spent(lambda: again.map("c")) for _ in range(5))
        print(f"map   {n:>7,} × {dim:<3}  cold {cold:.2f} s, layout kept {kept:.2f} s, remembered {1e3 * warm:.1f} ms")
        query = torch.from_numpy(x[7])
        for rule in (Cone(), Plane()):
            best = min(spent(lambda rule=rule: again.focus("c", query, rule, None, {})) for _ in range(5))  # type: ignore[misc]
            two = spent(lambda rule=rule: again.focus("c", query, rule, torch.from_numpy(x[8]), {}))  # type: ignore[misc]
            print(f"focus {n:>7,} × {dim:<3}  {rule.form:<5} {1e3 * best:.1f} ms, with a target {1e3 * two:.1f} ms")


def spent(call: Callable[[], object]) -> float:
    """Return the processor time of this thread that a call takes."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


if __name__ == "__main__":
    sys.exit(main())
