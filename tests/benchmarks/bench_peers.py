"""Print errors and times of the geometry beside those of geoopt, HypLL and the usual acosh form, in one run.

python tests/benchmarks/bench_peers.py

Everything is float32 at c = 1. A time is the median over rounds of its ratio to the first contender's in the same
round, so that a load on the machine falls on both. The broadcasts take seconds and up to 4 GB.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from hypll.tensors import ManifoldTensor, TangentTensor
from torch import Tensor
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypclip.geometry import lorentz
from hypclip.geometry.interop import to_geoopt, to_hypll
from tests.support import reference
from tests.support.reference import exact

CURV = 1.0
ROUNDS, SLOW_ROUNDS = 21, 3
# Bars of hypclip: times over a cosine matrix, and relative errors.
PAIRWISE_BAR = 1.3
ROUND_TRIP_BAR = 5e-6
DIST_BAR = 1e-7

Maps = Callable[[Tensor], Tensor]
Pairs = Callable[[Tensor, Tensor], Tensor]

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # geoopt compiles with torch.jit.script when it is imported
    HYPERBOLOID = to_geoopt(torch.zeros(1, 1), CURV, "lorentz")[1]
DISK = to_geoopt(torch.zeros(1, 1), CURV, "poincare")[1]
HYPLL = to_hypll(torch.zeros(1, 1), CURV).manifold


# Contenders: from tangent vectors of hypclip, of which a ball's are the halves ----------------------------------------


def hypclip_round_trip(v: Tensor) -> Tensor:
    return lorentz.log_map0(lorentz.exp_map0(v, CURV), CURV)


def geoopt_lorentz_lift(v: Tensor) -> Tensor:
    return HYPERBOLOID.expmap0(torch.cat([torch.zeros_like(v[..., :1]), v], -1))


def geoopt_lorentz_round_trip(v: Tensor) -> Tensor:
    return HYPERBOLOID.logmap0(geoopt_lorentz_lift(v))[..., 1:]


def geoopt_ball_round_trip(v: Tensor) -> Tensor:
    return 2 * DISK.logmap0(DISK.expmap0(v / 2))


def hypll_lift(v: Tensor) -> ManifoldTensor:
    return HYPLL.expmap(TangentTensor(v / 2, manifold=HYPLL))


def hypll_round_trip(v: Tensor) -> Tensor:
    return 2 * HYPLL.logmap(None, hypll_lift(v)).tensor


def cosine_matrix(v: Tensor, w: Tensor) -> Tensor:
    return normalize(v, dim=-1) @ normalize(w, dim=-1).T


def hypclip_matrix(v: Tensor, w: Tensor) -> Tensor:
    return lorentz.pairwise_dist(lorentz.exp_map0(v, CURV), lorentz.exp_map0(w, CURV), CURV)


def acosh_matrix(v: Tensor, w: Tensor) -> Tensor:
    """The form that most code has: exact for far pairs, and nothing below a distance of 1e-3."""
    points = []
    for tangents in (v, w):
        length = CURV**0.5 * tangents.norm(dim=-1, keepdim=True)
        space = torch.sinh(length) / length.clamp(min=1e-8) * tangents
        points.append((space, torch.sqrt(1 / CURV + space.square().sum(-1, keepdim=True))))
    (x, x_time), (y, y_time) = points
    return torch.clamp(CURV * (x_time @ y_time.T - x @ y.T), min=1 + 1e-8).acosh() / CURV**0.5


def geoopt_lorentz_matrix(v: Tensor, w: Tensor) -> Tensor:
    return HYPERBOLOID.dist(geoopt_lorentz_lift(v)[:, None], geoopt_lorentz_lift(w)[None])


def hypll_matrix(v: Tensor, w: Tensor) -> Tensor:
    return HYPLL.cdist(hypll_lift(v).unsqueeze(0), hypll_lift(w).unsqueeze(0))[0]


# Measures -------------------------------------------------------------------------------------------------------------


def step(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """Return a call of forward and backward."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    upstream = torch.randn_like(function(*leaves))
    return lambda: torch.autograd.grad(function(*leaves), leaves, upstream)


def ratios(contenders: dict[str, Callable[[], object]], slow: tuple[str, ...] = ()) -> dict[str, float]:
    """Time the contenders in turn, the slow ones in the first rounds, and return the medians over the first one's."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(ROUNDS):
        for name, call in contenders.items():
            if name not in slow or index < SLOW_ROUNDS:
                calls = 1 if name in slow else 4
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                times[name].append((time.perf_counter() - start) / calls)
    unit = next(iter(times.values()))
    return {name: statistics.median(a / b for a, b in zip(times[name], unit, strict=False)) for name in times}


def verdict(value: float, bar: float) -> str:
    return f"bar {bar:g}" if value <= bar else f"bar {bar:g} BROKEN"


def round_trips() -> bool:
    """Print the errors and times of log0(exp0(v))."""
    radii = (1e-4, 0.01, 1.0, 5.0, 10.0)
    contenders: dict[str, Maps] = {
        "hypclip": hypclip_round_trip,
        "geoopt Lorentz": geoopt_lorentz_round_trip,
        "geoopt PoincareBall": geoopt_ball_round_trip,
        "HypLL PoincareBall": hypll_round_trip,
    }
    batch = torch.randn(4096, 512) / 512**0.5
    times = ratios({name: step(function, batch) for name, function in contenders.items()})
    print("\nlog0(exp0(v)): worst relative error at each radius; forward + backward of 4096 × 512, time over hypclip's")
    print(f"{'':22}" + "".join(f"{radius:>9g}" for radius in radii) + f"{'time':>9}")
    worst = 0.0
    for name, function in contenders.items():
        cells = ""
        for radius in radii:
            v = reference.vectors((radius,), 16, torch.float32, each=64)
            error = reference.relative_rows(function(v), exact(v)).max().item()
            cells += f"{error:9.0e}"
            worst = max(worst, error) if name == "hypclip" else worst
        mark = f"  error {verdict(worst, ROUND_TRIP_BAR)}" if name == "hypclip" else ""
        print(f"{name:22}{cells}{times[name]:9.2f}{mark}")
    return worst <= ROUND_TRIP_BAR


def near_pairs() -> bool:
    """Print the errors and times of row-wise distances, each from 50 digits of the points that it was given."""
    curv = torch.tensor(CURV)
    contenders: dict[str, Pairs] = {
        "hypclip": lambda x, y: lorentz.dist(x, y, curv),
        "geoopt Lorentz": HYPERBOLOID.dist,
        "geoopt PoincareBall": DISK.dist,
        "HypLL PoincareBall": lambda p, q: HYPLL.dist(*(ManifoldTensor(points, HYPLL) for points in (p, q))),
    }

    def inputs(name: str, x: Tensor) -> Tensor:
        return x if name == "hypclip" else to_geoopt(x, curv, "lorentz" if "Lorentz" in name else "poincare")[0]

    x, y = (lorentz.exp_map0(torch.randn(4096, 512) / 512**0.5, curv) for _ in range(2))
    times = ratios({name: step(call, inputs(name, x), inputs(name, y)) for name, call in contenders.items()})
    places = [(radius, apart) for radius in (1.0, 5.0, 10.0) for apart in (0.01, 0.1)]
    print("\nrow-wise distance: median|worst relative error at radius, separation; time as above")
    print(f"{'':22}" + "".join(f"{f'{radius:g}, {apart:g}':>13}" for radius, apart in places) + f"{'time':>9}")
    worst = 0.0
    for name, call in contenders.items():
        cells = ""
        for radius, apart in places:
            x, y = reference.pairs(curv, 16, (radius,), (apart,), each=64)
            a, b = inputs(name, x), inputs(name, y)
            differ = (a != b).any(-1)
            a, b, x, y = a[differ], b[differ], x[differ], y[differ]
            on_ball = "Ball" in name
            want = (reference.ball_dist if on_ball else reference.dist)(
                exact(a if on_ball else x), exact(b if on_ball else y), exact(curv)
            )
            got = call(a, b)
            defined = got.isfinite()
            error = reference.relative(got[defined], want[defined.numpy()])
            lost = "" if defined.all() else "*"
            cells += f"{f'{error.median():.0e}|{error.max():.0e}{lost}' if len(error) else 'nan':>13}"
            worst = max(worst, error.max().item()) if name == "hypclip" else worst
        mark = f"  error {verdict(worst, DIST_BAR)}" if name == "hypclip" else ""
        print(f"{name:22}{cells}{times[name]:9.2f}{mark}")
    print("* some are NaN or infinite")
    return worst <= DIST_BAR


def matrices() -> bool:
    """Print the times of all distances between two batches, lift included."""
    v, w = torch.randn(512, 512) / 512**0.5, torch.randn(512, 512) / 512**0.5
    contenders: dict[str, Pairs] = {
        "cosine matrix": cosine_matrix,
        "hypclip": hypclip_matrix,
        "acosh of a Gram matrix": acosh_matrix,
        "geoopt Lorentz": geoopt_lorentz_matrix,
        "HypLL cdist": hypll_matrix,
    }
    few = [call(v[:8], w[:8]) for name, call in contenders.items() if name != "cosine matrix"]
    assert all(torch.allclose(few[0], other, rtol=1e-4) for other in few)
    slow = ("geoopt Lorentz", "HypLL cdist")
    times = ratios({name: step(call, v, w) for name, call in contenders.items()}, slow)
    print(
        "\nall distances of 512 × 512 points in 512 dimensions, lift, forward and backward: time over a cosine matrix"
    )
    for name, ratio in times.items():
        mark = f"  {verdict(ratio, PAIRWISE_BAR)}" if name == "hypclip" else ""
        print(f"{name:24}{ratio:9.3g}{mark}")
    return times["hypclip"] <= PAIRWISE_BAR


def main() -> int:
    """Print the tables; return 1 when a bar is broken."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    kept = [measure() for measure in (round_trips, near_pairs, matrices)]
    return int(not all(kept))


if __name__ == "__main__":
    raise SystemExit(main())
