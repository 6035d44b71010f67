"""δ against its definition, trees, reference values and its nulls."""

import inspect
import itertools
import math
import subprocess
import sys
import time
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.analysis._check_matrix import checked_distances
from hypclip.geometry.analysis.gromov import (
    _matched_gaussian,
    _pairwise,
    _vectors,
    delta,
    hyperbolicity,
    hyperbolicity_of_distances,
    relative_delta,
)
from tests.support.real_features import of_drawings


def gaussian(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def euclidean(x):
    return (x[:, None] - x).norm(dim=-1)


def tree(parents, lengths):
    """The metric of the tree whose node i + 1 hangs below parents[i] by an edge of lengths[i]."""
    d = torch.zeros(len(parents) + 1, len(parents) + 1, dtype=torch.float64)
    for node, (parent, length) in enumerate(zip(parents, lengths, strict=True), start=1):
        d[node, :node] = d[:node, node] = d[parent, :node] + length
    return d


def random_tree(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parents = [torch.randint(node, (), generator=generator).item() for node in range(1, n)]
    return tree(parents, torch.randint(1, 10, (n - 1,), generator=generator).tolist())


def cycle(n):
    steps = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return torch.minimum(steps, n - steps).double()


def disk(n, radius, seed=0):
    """Points of the hyperbolic plane, uniform by area."""
    generator = torch.Generator().manual_seed(seed)
    u, angle = torch.rand(2, n, generator=generator, dtype=torch.float64)
    rho, angle = torch.acosh(1 + u * (math.cosh(radius) - 1)), 2 * math.pi * angle
    return torch.sinh(rho)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def unpruned(d, base):
    """max((A ⊗ A) − A), all of it."""
    products = (d[base, :, None] + d[base] - d) / 2
    return max((torch.minimum(row, products).amax(1) - row).max().item() for row in products)


def four_point(d):
    """Half the gap between the largest and the second of the three sums, at worst, by definition."""
    worst = 0.0
    for i, j, k, m in itertools.combinations(range(len(d)), 4):
        sums = sorted([d[i, j] + d[k, m], d[i, k] + d[j, m], d[i, m] + d[j, k]])
        worst = max(worst, (sums[2] - sums[1]) / 2)
    return worst


@st.composite
def trees(draw, lengths):
    n = draw(st.integers(4, 24))
    parents = [draw(st.integers(0, node - 1)) for node in range(1, n)]
    return tree(parents, draw(st.lists(lengths, min_size=n - 1, max_size=n - 1)))


@st.composite
def metrics(draw, max_size=9):
    """Shortest paths of a random complete graph."""
    n = draw(st.integers(4, max_size))
    d = torch.zeros(n, n, dtype=torch.float64)
    for i, j in itertools.combinations(range(n), 2):
        d[i, j] = d[j, i] = draw(st.floats(0.125, 8))
    for k in range(n):
        d = torch.minimum(d, d[:, k, None] + d[k])
    return d


METRICS = {
    "R^2": euclidean(gaussian(300, 2)),
    "R^64": euclidean(gaussian(300, 64)),
    "tree": random_tree(300),
    "cycle": cycle(300),
    "disk": lorentz.pairwise_dist(disk(300, 5.0), disk(300, 5.0), 1.0).fill_diagonal_(0),
}
each_metric = pytest.mark.parametrize("d", [pytest.param(d, id=name) for name, d in METRICS.items()])


# By definition --------------------------------------------------------------------------------------------------------


@given(trees(st.integers(1, 1000)))
def test_delta_of_a_tree_is_exactly_0_at_every_base_point(d):
    assert [delta(d, base) for base in range(len(d))] == [0.0] * len(d)


@given(trees(st.floats(1e-3, 1e3)))
def test_delta_of_a_tree_of_any_lengths_is_0_up_to_the_rounding_of_its_paths(d):
    assert delta(d) <= 2e-16 * len(d) * d.max().item()


@given(metrics())
def test_delta_is_that_of_the_four_point_condition_and_base_points_change_it_by_at_most_2(d):
    deltas = [delta(d, base) for base in range(len(d))]
    worst = four_point(d.numpy())
    assert max(deltas) == pytest.approx(worst, abs=1e-14)
    assert min(deltas) >= max(deltas) / 2 - 1e-14


@given(metrics(max_size=7), st.data())
def test_delta_keeps_to_its_bound(d, data):
    base = data.draw(st.integers(0, len(d) - 1))
    exact = [[Fraction(value) for value in row] for row in d.tolist()]
    a = [[(exact[base][i] + exact[base][j] - exact[i][j]) / 2 for j in range(len(d))] for i in range(len(d))]
    n = range(len(d))
    want = max(max(min(a[i][k], a[k][j]) for k in n) - a[i][j] for i in n for j in n)
    diameter = max(map(max, exact))
    assert abs(Fraction(delta(d, base)) - want) <= Fraction(1e-15) * diameter
    assert abs(Fraction(relative_delta(d, base)) - 2 * want / diameter) <= Fraction(2e-15)
    assert 0 <= relative_delta(d, base) <= 1 + 2e-15


@each_metric
@pytest.mark.parametrize("base", [0, 17])
def test_skipping_entries_changes_no_bit(d, base):
    d = (d + d.T) / 2
    assert delta(d, base) == unpruned(d, base)


def test_skipping_entries_changes_no_bit_without_the_triangle_inequality():
    d = gaussian(200, 200).abs()
    d = (d + d.T).fill_diagonal_(0)
    assert delta(d) == unpruned(d, 0)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 512])
def test_of_1500_points_delta_is_the_cubic_one_and_takes_seconds(dim):
    points = gaussian(1500, dim)
    d = torch.cdist(points, points).fill_diagonal_(0)
    start = time.process_time()
    found = delta(d, 3)
    assert time.process_time() - start < 30
    assert found == pytest.approx(unpruned(d, 3), abs=1e-6)


@each_metric
def test_relative_delta_ignores_scale_order_and_repeats(d):
    d = (d + d.T) / 2
    want = relative_delta(d, 5)
    order = torch.cat([torch.tensor([5]), torch.randperm(len(d)), torch.tensor([7, 7])])
    assert relative_delta(d[order][:, order]) == want
    assert relative_delta(4 * d, 5) == want
    assert relative_delta(d.float(), 5) == pytest.approx(want, abs=1e-6)


@pytest.mark.slow
def test_memory_grows_with_the_square_of_n():
    # 1,500³ float64 numbers would take 27 GB. A tree lets no entry be skipped.
    script = """
import resource, sys, torch
from hypclip.geometry.analysis.gromov import delta
torch.set_num_threads(1)
torch.manual_seed(0)
d = torch.zeros(1500, 1500, dtype=torch.float64)
for node in range(1, 1500):
    d[node, :node] = d[:node, node] = d[torch.randint(node, ()), :node] + 1
delta(d[:64, :64])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
assert delta(d) == 0
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


# Reference values -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dim, seed, want", [(2, 3, 0.402), (8, 1, 0.429), (64, 1, 0.339), (512, 1, 0.182)])
def test_gaussian_noise_scores_its_reference(dim, seed, want):
    # The standard error of the mean is .01: another seed can miss the bound.
    report = hyperbolicity(gaussian(6000, dim, seed), sample_size=1500, draws=3, base_points=3, null_draws=1)
    assert report.relative_delta.mean == pytest.approx(want, abs=0.02)


def test_a_sphere_is_as_far_from_a_tree_as_a_metric_can_be():
    report = hyperbolicity(gaussian(3000, 3), "angle", sample_size=1500, draws=3, null_draws=1)
    assert report.relative_delta.mean == pytest.approx(0.984, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("radius, want", [(1.0, 0.460), (2.0, 0.315), (5.0, 0.139), (10.0, 0.069)])
def test_a_hyperbolic_disk_scores_its_reference(radius, want):
    points = disk(2000, radius)
    report = hyperbolicity(points, "lorentz", curv=1.0, sample_size=500, draws=3, null_draws=1)
    assert report.relative_delta.mean == pytest.approx(want, abs=0.02)


def test_a_cycle_scores_1_and_nearly_so_in_samples():
    assert relative_delta(cycle(400)) == 1
    assert hyperbolicity_of_distances(cycle(2000), sample_size=400).relative_delta.mean == pytest.approx(0.99, abs=0.01)


# The report -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric, curv", [("euclidean", None), ("angle", None), ("lorentz", 0.7)])
def test_a_report_holds_its_nulls_and_how_it_was_made(metric, curv):
    points = gaussian(120, 6)
    before = points.clone()
    report = hyperbolicity(points, metric, curv=curv, sample_size=80, draws=2, base_points=3, seed=4)
    assert [len(s.values) for s in (report.relative_delta, report.matched_null, report.iid_null)] == [6, 15, 15]
    assert (report.metric, report.curv, report.n, report.total, report.dim) == (metric, curv, 80, 120, 6)
    assert (report.draws, report.base_points, report.replacement, report.seed) == (2, 3, False, 4)
    assert 4 < report.effective_dim < 6
    for part in ("Gaussian of the same covariance 0.", "i.i.d. Gaussian 0.", metric, "of 6", "n 80 of 120", "seed 4"):
        assert part in str(report)
    assert torch.equal(points, before)


def test_a_seed_fixes_a_report():
    points = gaussian(60, 3)
    report = hyperbolicity(points, sample_size=40, seed=7)
    assert hyperbolicity(points, sample_size=40, seed=torch.Generator().manual_seed(7)) == report
    assert hyperbolicity(points, sample_size=40, seed=8).relative_delta != report.relative_delta
    state = torch.get_rng_state()
    hyperbolicity(points, sample_size=40)
    assert torch.equal(torch.get_rng_state(), state)


def test_mean_and_spread_are_those_of_the_values():
    spread = hyperbolicity(gaussian(60, 3), draws=1, base_points=1).relative_delta
    assert spread.mean == spread.values[0]
    assert math.isnan(spread.std)
    spread = hyperbolicity(gaussian(60, 3)).relative_delta
    assert spread.std == pytest.approx(torch.tensor(spread.values, dtype=torch.float64).std().item())


@pytest.mark.parametrize("metric, curv", [("euclidean", None), ("angle", None), ("lorentz", 1.0)])
def test_each_metric_measures_its_distances(metric, curv):
    points = gaussian(40, 5) + torch.tensor([30.0, 0, 0, 0, 0])
    unit = torch.nn.functional.normalize(points)
    x = lorentz.exp_map0(points / 10, 1.0) if metric == "lorentz" else points
    d = {
        "euclidean": euclidean(points),
        "angle": torch.acos((unit @ unit.T).clamp(max=1)),
        "lorentz": lorentz.dist(*torch.broadcast_tensors(x[:, None], x), 1.0),
    }[metric].fill_diagonal_(0)
    report = hyperbolicity(x, metric, curv=curv, base_points=40, draws=1)
    want = sorted(relative_delta(d, base) for base in range(40))
    assert sorted(report.relative_delta.values) == pytest.approx(want, abs=1e-7)


@pytest.mark.parametrize("metric", ["euclidean", "angle"])
@pytest.mark.parametrize("dim, offset", [(8, 0), (64, 10), (512, 100), (512, 0)])
def test_distances_keep_to_their_bound(metric, dim, offset):
    points = gaussian(300, dim) + offset
    points[1] = points[0] + 1e-7 * gaussian(1, dim)
    points[3] = points[2] = points[0]
    exact = euclidean(points)
    if metric == "angle":
        exact = 2 * torch.asin(euclidean(points / points.norm(dim=1, keepdim=True)) / 2)
    got = _pairwise(_vectors(points, metric, None), metric, None)
    assert (got - exact).abs().max() <= 1e-7 * exact.max()


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "angle"])
@pytest.mark.parametrize("n, dim", [(300, 512), (300, 300), (300, 30)])
def test_gaussian_noise_is_not_told_from_its_nulls(metric, n, dim):
    points = gaussian(n, dim)
    report = hyperbolicity(points, metric, draws=8)
    assert report.matched_null.mean == pytest.approx(report.relative_delta.mean, abs=0.02)
    assert report.iid_null.mean == pytest.approx(report.relative_delta.mean, abs=0.02)


def test_a_null_drawn_from_the_estimated_covariance_would_see_trees_in_noise():
    points = gaussian(300, 512)
    root = torch.linalg.cholesky(torch.cov(points.T) + 1e-9 * torch.eye(512))
    estimated = relative_delta(euclidean(gaussian(300, 512, seed=1) @ root.T))
    assert estimated > hyperbolicity(points).relative_delta.mean + 0.05


def test_a_hierarchy_lies_below_the_matched_null():
    generator = torch.Generator().manual_seed(0)
    points = torch.zeros(1, 256, dtype=torch.float64)
    for level in range(5):
        steps = torch.randn(len(points), 4, 256, generator=generator, dtype=torch.float64)
        points = (points[:, None] + steps / 1.3**level).flatten(0, 1)
    report = hyperbolicity(points, sample_size=300)
    assert report.relative_delta.mean < report.matched_null.mean - 4 * report.matched_null.std


@pytest.mark.parametrize("n, dim, rank", [(50, 7, 7), (50, 7, 3), (20, 20, 20), (21, 20, 20), (12, 40, 40), (4, 1, 1)])
def test_the_matched_null_has_the_mean_and_covariance_of_the_points(n, dim, rank):
    points = gaussian(n, rank) @ gaussian(rank, dim, seed=1) + 3
    null = _matched_gaussian(points, torch.Generator().manual_seed(2))
    torch.testing.assert_close(null.mean(0), points.mean(0))
    torch.testing.assert_close(torch.cov(null.T), torch.cov(points.T))
    assert (null - points).abs().max() > 0.1


def test_effective_dimension_is_the_participation_ratio():
    wide = gaussian(4000, 10)
    assert hyperbolicity(wide, sample_size=20).effective_dim == pytest.approx(10, rel=0.02)
    values = torch.linalg.eigvalsh(torch.cov((wide * torch.arange(10)).T))
    ratio = (values.sum().square() / values.square().sum()).item()
    assert hyperbolicity(wide * torch.arange(10), sample_size=20).effective_dim == pytest.approx(ratio)


def test_draws_repeat_no_point_unless_asked():
    sizes = []

    def count(points):
        sizes.append(len(points.unique(dim=0)))
        return euclidean(points)

    hyperbolicity(gaussian(100, 2), count, sample_size=100, draws=3)
    hyperbolicity(gaussian(100, 2), count, sample_size=500, draws=3)
    assert sizes == [100] * 6
    report = hyperbolicity(gaussian(100, 2), count, sample_size=100, draws=3, replacement=True)
    assert report.replacement
    assert "n 100 of 100 with replacement" in str(report)
    assert all(50 < size < 80 for size in sizes[6:])


def test_a_function_or_distances_have_no_nulls():
    points = gaussian(50, 3)
    named = hyperbolicity(points, draws=2)
    by_function = hyperbolicity(points, euclidean, draws=2)
    by_distances = hyperbolicity_of_distances(euclidean(points), draws=2)
    for report in (by_function, by_distances):
        assert report.relative_delta.values == pytest.approx(named.relative_delta.values, abs=1e-7)
        assert report.matched_null is report.iid_null is None
        assert "absent" in str(report)
    assert (by_function.metric, by_distances.metric) == ("euclidean", "distances")
    assert by_distances.dim is by_distances.effective_dim is None


def test_an_outer_autocast_changes_nothing():
    points = gaussian(30, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = hyperbolicity(points, "lorentz", curv=1.0)
    assert inside == hyperbolicity(points, "lorentz", curv=1.0)


@pytest.mark.slow
def test_features_of_drawings_lie_below_their_matched_null_and_above_noise():
    """Relative δ alone, .25, would be "more hyperbolic" than R^8 (.43) and less than R^512 (.18)."""
    features, _ = of_drawings()
    report = hyperbolicity(features.double(), base_points=1)
    assert report.relative_delta.mean == pytest.approx(0.246, abs=0.02)
    assert report.matched_null.mean > report.relative_delta.mean + 0.02
    assert report.iid_null.mean == pytest.approx(0.115, abs=0.01)


# Errors ---------------------------------------------------------------------------------------------------------------


def changed(entry, value):
    d = cycle(6)
    d[entry] = value
    return d


@pytest.mark.parametrize(
    "d, message",
    [
        (torch.zeros(4, 5), r"square matrix of distances, got shape \(4, 5\)"),
        (torch.zeros(4), "square matrix of distances"),
        (torch.zeros(6, 6, dtype=torch.int64), "float32 or float64, got torch.int64"),
        (torch.zeros(6, 6, dtype=torch.bfloat16), "float32 or float64, got torch.bfloat16"),
        (torch.zeros(3, 3), "at least 4 points, got 3"),
        (changed((1, 2), torch.nan), r"finite, got nan at \(1, 2\)"),
        (changed((1, 2), torch.inf), r"finite, got inf at \(1, 2\)"),
        (changed((1, 2), -1.0), r"negative, got -1.0 at \(1, 2\)"),
        (changed((1, 2), 2.0), r"symmetric, got 2.0 at \(1, 2\) and 1.0"),
        (changed((3, 3), 1.0), r"0 from a point to itself, got 1.0 at \(3, 3\)"),
    ],
)
def test_what_is_no_distance_matrix_is_refused(d, message):
    with pytest.raises(InputError, match=message):
        checked_distances(d, "distances", at_least=4)
    if d.dim() == 2 and len(d) == d.shape[1] and d.is_floating_point():
        for function in (delta, relative_delta, hyperbolicity_of_distances):
            with pytest.raises(InputError, match=message):
                function(d)


def test_rounding_is_not_refused():
    d = cycle(8).float() + 1e-4 * torch.rand(8, 8)
    assert relative_delta(d) == pytest.approx(relative_delta(cycle(8)), abs=1e-3)


@pytest.mark.parametrize("base", [-1, 6])
def test_a_base_point_must_exist(base):
    with pytest.raises(InputError, match="base must be a point from 0 to 5"):
        delta(cycle(6), base)


@pytest.mark.parametrize(
    "points, options, message",
    [
        (gaussian(10, 2).half(), {}, "float32 or float64 points"),
        (gaussian(3, 2), {}, "at least 4 points, got 3"),
        (gaussian(10, 2), {"sample_size": 3}, "sample_size 3"),
        (gaussian(10, 2).fill_(torch.nan), {}, r"finite, got nan at \(0, 0\)"),
        (torch.ones(10, 2), {}, "coincide"),
        (torch.eye(10)[:, :9], {"metric": "angle"}, "point 9 is 0"),
        (gaussian(10, 2), {"metric": "lorentz"}, "lorentz needs curv"),
        (gaussian(10, 2), {"metric": "lorentz", "curv": -1.0}, "curv must be positive"),
        (gaussian(10, 2), {"curv": 1.0}, "no other takes one"),
        (gaussian(10, 2), {"draws": 0}, "draws must be at least 1"),
        (gaussian(10, 2), {"base_points": 0}, "base_points must be at least 1"),
        (gaussian(10, 2), {"null_draws": 0}, "null_draws must be at least 1"),
        (gaussian(10, 2), {"metric": lambda points: points}, "square matrix"),
    ],
)
def test_a_bad_request_is_refused(points, options, message):
    with pytest.raises(InputError, match=message):
        hyperbolicity(points, **options)


def test_an_unknown_metric_is_refused_without_the_checks_of_the_tests():
    with pytest.raises(InputError, match="euclidean, angle, lorentz or a function, got 'cosine'"):
        inspect.unwrap(hyperbolicity)(gaussian(10, 2), "cosine")
