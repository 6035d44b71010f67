"""Print relative δ of known sets beside reference values and nulls, and the time and memory of δ at n = 1,500.

python tests/benchmarks/bench_gromov.py
"""

import math
import resource
import sys
import time
from collections.abc import Iterator

import networkx as nx
import torch
from torch import Tensor

from hypclip.geometry.analysis.distortion import graph_distances
from hypclip.geometry.analysis.gromov import Hyperbolicity, delta, hyperbolicity, hyperbolicity_of_distances

N = 1500
DRAWS = {"sample_size": N, "draws": 6, "base_points": 3}
Row = tuple[str, Hyperbolicity, float]
"""The set, what it scores, and the mean that an independent program found for such a set."""


def gaussian(n: int, dim: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def disk(n: int, radius: float) -> Tensor:
    """Points of the hyperbolic plane, uniform by area."""
    u, angle = torch.rand(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rho, angle = torch.acosh(1 + u * (math.cosh(radius) - 1)), 2 * math.pi * angle
    return torch.sinh(rho)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def cycle(n: int) -> Tensor:
    steps = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return torch.minimum(steps, n - steps).double()


def tree(n: int) -> Tensor:
    return graph_distances(nx.random_labeled_tree(n, seed=0))[1]


def scores() -> Iterator[Row]:
    """Yield relative δ of sets whose value is known."""
    square = torch.rand(4 * N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield "tree", hyperbolicity_of_distances(tree(N), draws=1), 0.0
    yield "cycle of 6,000", hyperbolicity_of_distances(cycle(4 * N), **DRAWS), 0.992
    yield "sphere S²", hyperbolicity(gaussian(4 * N, 3), "angle", **DRAWS), 0.984
    yield "uniform square", hyperbolicity(square, **DRAWS), 0.489
    for dim, want in {2: 0.402, 8: 0.429, 64: 0.339, 512: 0.182}.items():
        yield f"Gaussian R^{dim}", hyperbolicity(gaussian(4 * N, dim), **DRAWS), want
    yield "Gaussian R^512", hyperbolicity(gaussian(4 * N, 512), "angle", **DRAWS), 0.234
    for radius, want in {1: 0.460, 2: 0.315, 5: 0.139, 10: 0.069, 20: 0.035}.items():
        points = disk(4 * N, radius)
        few = DRAWS | {"draws": 3, "base_points": 1, "null_draws": 3}
        yield f"disk of H², radius {radius}", hyperbolicity(points, "lorentz", curv=1.0, **few), want


def costs() -> Iterator[tuple[str, float, float]]:
    """Yield seconds and peak bytes above the input of one δ; the peak of a process only grows, so the first counts."""
    sets = {
        "tree": tree(N),
        "cycle": cycle(N),
        **{f"Gaussian R^{dim}": torch.cdist(x, x) for dim in (2, 8, 64, 512) for x in [gaussian(N, dim)]},
    }
    for name, d in sets.items():
        d.fill_diagonal_(0)
        before, start = peak(), time.perf_counter()
        delta(d)
        yield name, time.perf_counter() - start, peak() - before


def peak() -> int:
    """Return the largest memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Print both tables; return 1 when δ of 1,500 points takes 30 s or 200 MB."""
    torch.set_num_threads(1)
    broken = False
    print(f"one δ of {N} points, one thread")
    for name, seconds, memory in costs():
        broken |= seconds > 30 or memory > 200e6
        print(f"{name:26}{seconds:8.2f} s{memory / 1e6:8.0f} MB more")
    heads = "".join(f"{head:>15}" for head in ("covariance", "i.i.d."))
    print(f"\n{'relative δ, n = 1,500':26}{'metric':12}{'ours':>15}{'reference':>11}{heads}{'dim':>7}")
    for name, report, want in scores():
        nulls = (str(null or "") for null in (report.matched_null, report.iid_null))
        dim = "" if report.effective_dim is None else f"{report.effective_dim:.1f}"
        columns = "".join(f"{null:>15}" for null in nulls)
        print(f"{name:26}{report.metric:12}{report.relative_delta!s:>15}{want:11.3f}{columns}{dim:>7}", flush=True)
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
