"""Print the errors of the geometry against 50 digits of the same inputs, beside the bars it must stay under.

python tests/benchmarks/bench_geometry.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hypclip.geometry import cones, lorentz, poincare
from tests.support import reference
from tests.support.reference import exact, known_pairs

Row = tuple[str, str, Tensor, float]
"""What is measured, where, the errors, and the bar."""

NORMS = torch.logspace(-6, 1, 22).tolist()
EVERYWHERE = "radii 1e-6…15"


def one_point(curv: Tensor) -> Iterator[Row]:
    """Yield the errors of the functions of one point; the norms and radii of the first two are not scaled by √c."""
    c, scale = exact(curv), curv.sqrt().item()
    v = reference.vectors(NORMS, 32, curv.dtype, each=4)
    x = reference.points(curv, 32, [norm * scale for norm in NORMS], each=4)
    yield (
        "exp_map0",
        "norms 1e-6…10",
        reference.relative_rows(lorentz.exp_map0(v, curv), reference.exp_map0(exact(v), c)),
        1e-5,
    )
    yield (
        "log_map0",
        "norms 1e-6…10",
        reference.relative_rows(lorentz.log_map0(x, curv), reference.log_map0(exact(x), c)),
        1e-5,
    )
    x = reference.points(curv, 32, each=8)
    time = lorentz.time_component(x, curv).squeeze(-1)
    yield "time_component", EVERYWHERE, reference.relative(time, reference.time_component(exact(x), c)), 3e-7
    yield "radius", EVERYWHERE, reference.relative(lorentz.radius(x, curv), reference.radius(exact(x), c)), 4e-7
    aperture = reference.half_aperture(exact(x), c, cones.MIN_RADIUS)
    yield "half_aperture, rad", EVERYWHERE, reference.absolute(cones.half_aperture(x, curv), aperture), 1e-7
    p = poincare.from_lorentz(x, curv)
    yield "ball from_lorentz", EVERYWHERE, reference.relative_rows(p, reference.ball_from_lorentz(exact(x), c)), 1e-7
    back = reference.relative_rows(poincare.to_lorentz(p, curv), reference.ball_to_lorentz(exact(p), c))
    yield "ball to_lorentz", EVERYWHERE, back, 1e-7


def two_points(curv: Tensor) -> Iterator[Row]:
    """Yield the errors of the row-wise functions of two points."""
    pairs = known_pairs(curv.dtype, curv.item())
    dist = reference.relative(lorentz.dist(pairs.x, pairs.y, curv), pairs.exact_dist)
    angle = reference.absolute(
        cones.oxy_angle(pairs.x, pairs.y, curv), reference.oxy_angle(pairs.exact_x, pairs.exact_y, pairs.c)
    )
    # Rounding the points to float32 moves a separation by a few percent: 0.9 stands for 1 here.
    apart = pairs.separation / 0.9
    near_origin = pairs.rho_x < 4.01
    yield "dist", f"≥ 0.1 apart, {EVERYWHERE}", dist[apart >= 0.1], 1e-5
    yield "dist", "≥ 1e-3 apart, radius ≤ 4", dist[(apart >= 1e-3) & near_origin], 1e-4
    yield "dist", "≥ 1e-5 apart, radius ≤ 4", dist[(apart >= 1e-5) & near_origin], 1e-2
    yield "dist", f"every pair, {EVERYWHERE}", dist, 1e-7
    yield "oxy_angle, rad", "≥ 1e-3 apart, radius ≤ 4", angle[(apart >= 1e-3) & near_origin], 1e-3
    yield "oxy_angle, rad", f"every pair, {EVERYWHERE}", angle, 4e-7
    within = pairs.rho_y < 15.01
    p, q = (poincare.from_lorentz(points[within], curv) for points in (pairs.x, pairs.y))
    p, q = p[(p != q).any(-1)], q[(p != q).any(-1)]
    ball = reference.relative(poincare.dist(p, q, curv), reference.ball_dist(exact(p), exact(q), exact(curv)))
    yield "ball dist", f"every pair, {EVERYWHERE}", ball, 1e-7


def all_pairs(curv: Tensor) -> Iterator[Row]:
    """Yield the errors of the functions that use one matmul, for pairs whose directions are not close."""
    x, y = (reference.points(curv, 64, (0.1, 1.0, 4.0, 15.0), each=4, seed=seed) for seed in (1, 2))
    x, y = x[torch.arange(len(x)) % 4 > 0], y[torch.arange(len(y)) % 4 > 0]
    exact_x, exact_y, c = exact(x)[:, None], exact(y)[None], exact(curv)
    times = reference.rounded(reference.time_component(exact_x, c) * reference.time_component(exact_y, c))
    inner = reference.absolute(lorentz.pairwise_inner(x, y, curv), reference.inner(exact_x, exact_y, c)) / times
    yield "pairwise_inner / x_t y_t", f"random pairs, {EVERYWHERE}", inner.flatten(), 1e-6
    dist = reference.relative(lorentz.pairwise_dist(x, y, curv), reference.dist(exact_x, exact_y, c))
    yield "pairwise_dist", f"random pairs, {EVERYWHERE}", dist.flatten(), 1e-5
    angle = reference.absolute(cones.pairwise_oxy_angle(x, y, curv), reference.oxy_angle(exact_x, exact_y, c))
    yield "pairwise_oxy_angle, rad", f"random pairs, {EVERYWHERE}", angle.flatten(), 1e-5


def main() -> int:
    """Print the table; return 1 when a bar is broken."""
    torch.set_num_threads(1)
    table: dict[tuple[str, str, float], list[Tensor]] = {}
    for c in reference.CURVS:
        curv = torch.tensor(c)
        for measure in (one_point, two_points, all_pairs):
            for name, where, errors, bar in measure(curv):
                table.setdefault((name, where, bar), []).append(errors)
    print(f"float32 against 50 digits of the same inputs, c in {reference.CURVS}; radii and separations are times √c")
    print(f"{'relative error of':26}{'where':34}{'n':>6}{'median':>10}{'worst':>10}{'bar':>9}")
    broken = False
    for (name, where, bar), parts in table.items():
        errors = torch.cat(parts)
        broken |= not errors.max() <= bar
        mark = "" if errors.max() <= bar else "  BROKEN"
        print(f"{name:26}{where:34}{len(errors):6}{errors.median():10.1e}{errors.max():10.1e}{bar:9.0e}{mark}")
    return int(broken)


if __name__ == "__main__":
    raise SystemExit(main())
