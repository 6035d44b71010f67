"""Every true answer is among the candidates of a scan, by the definitions in 80-bit floats and 50 digits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.geometry import cones
from hypclip.search import Cone, Route
from hypclip.search.limits import MAX_SINH_RADIUS
from hypclip.search.local import products, scan_cones, scan_knn, scan_routes
from tests.support import reference
from tests.support.search import (
    CURVS,
    DIMS,
    ETAS,
    MIN_RADII,
    RADII,
    SEEDS,
    cone_margins,
    crowd,
    distances,
    keys_at,
    minus_inner,
    snapshot_of,
)

KINDS = st.sampled_from(["apart", "near", "opposite", "one line", "same", "from the root"])


def masks_for(snapshot, seed):
    """For a third of the seeds none, and otherwise random ones, all rows of some segments."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return [None] * len(snapshot), np.ones(sum(map(len, snapshot)), bool)
    masks = [None if rng.random() < 0.3 else rng.random(len(s)) < 0.6 for s in snapshot]
    return masks, np.concatenate(
        [np.ones(len(s), bool) if m is None else m for s, m in zip(snapshot, masks, strict=True)]
    )


def setting(seed, dim, curv, rho, n=60, eta=1.0):
    points, query = crowd(seed, dim, curv, rho, n, eta)
    snapshot = snapshot_of(points, curv)
    return points, query.astype(np.float64), snapshot, *masks_for(snapshot, seed)


def assert_names(candidates, answers, counted):
    """All answers are among the candidates, and nothing that does not count is."""
    assert set(np.flatnonzero(answers)) <= candidates
    assert candidates <= set(np.flatnonzero(counted))


# Everything is found --------------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(SEEDS, DIMS, CURVS, RADII, st.integers(1, 250), st.integers(1, 70))
def test_the_nearest_are_among_the_candidates(seed, dim, curv, rho, k, count):
    points, query, snapshot, masks, counted = setting(seed, dim, curv, rho)
    rng = np.random.default_rng(seed)
    queries = np.stack([query, *points[rng.integers(len(points), size=count - 1)].astype(np.float64)])
    queries[1::2] += 1e-9 * rng.normal(size=queries[1::2].shape)
    found = scan_knn.nearest(snapshot, masks, queries, k, curv)
    assert len(found) == count
    for q, places in zip(queries, found, strict=True):
        d = np.where(counted, distances(points, q, curv), np.inf)
        assert_names(keys_at(snapshot, places), counted & (d <= np.sort(d)[min(k, len(d)) - 1]), counted)


@settings(max_examples=100)
@given(SEEDS, DIMS, CURVS, RADII, st.floats(0, 1), st.sampled_from(["rank", "length"]))
def test_all_within_a_distance_are_among_the_candidates(seed, dim, curv, rho, share, by):
    points, query, snapshot, masks, counted = setting(seed, dim, curv, rho)
    d = distances(points, query, curv)
    reach = float(np.sort(d)[int(share * (len(d) - 1))] if by == "rank" else 25 * share / math.sqrt(curv))
    found = keys_at(snapshot, scan_knn.within(snapshot, masks, query, reach, curv))
    assert_names(found, counted & (d <= reach), counted)


@pytest.fixture(scope="module", params=[0, scan_cones._FEW])
def every_row_twice(request):
    """Look in float64 at however few rows the product in float32 lets through, and then as always."""
    with pytest.MonkeyPatch.context() as patch:
        for scan in (scan_cones, scan_routes):
            patch.setattr(scan, "_FEW", request.param)
        yield


@pytest.mark.parametrize("reach", [1e3, 1e300, math.inf])
def test_any_distance_is_enough_to_find_everything(reach):
    points, query, snapshot, *_ = setting(0, 4, 0.7, 5.0)
    found = keys_at(snapshot, scan_knn.within(snapshot, [None] * len(snapshot), query, reach, 0.7))
    assert found == set(range(len(points)))


@pytest.mark.slow
@pytest.mark.usefixtures("every_row_twice")
@settings(max_examples=60)
@given(SEEDS, DIMS, CURVS, RADII, ETAS, MIN_RADII, st.sampled_from(["ancestors", "descendants"]))
def test_a_cone_is_among_the_candidates(seed, dim, curv, rho, eta, min_radius, side):
    points, query, snapshot, masks, counted = setting(seed, dim, curv, rho, 20, eta)
    general, specific = (points, query) if side == "ancestors" else (query, points)
    inside = counted & (cone_margins(general, specific, curv, eta, min_radius) <= 0)
    candidates = keys_at(snapshot, scan_cones.cone(snapshot, masks, query, side, Cone(eta, min_radius), curv))
    assert_names(candidates, inside, counted)


@pytest.mark.parametrize("side", ["ancestors", "descendants"])
def test_the_cones_at_the_origin_are_among_the_candidates(side):
    points, _, snapshot, *_ = setting(1, 3, 1.0, 1.0)
    origin, masks = np.zeros(3), [None] * len(snapshot)
    candidates = keys_at(snapshot, scan_cones.cone(snapshot, masks, origin, side, Cone(), 1.0))
    at_origin = set(np.flatnonzero(~points.any(1)))
    assert (at_origin if side == "ancestors" else set(range(len(points)))) <= candidates


def path_between(points, query, kind, curv, steps):
    start = torch.from_numpy(query)
    end = {
        "apart": torch.from_numpy(points[7]),
        "near": start * 1.01 + 1e-3 / math.sqrt(curv),
        "opposite": -start,
        "one line": start / 3,
        "same": start,
        "from the root": start,
    }[kind]
    if kind == "from the root":
        start = torch.zeros_like(start)
    return Route(start, curv, end.double(), steps)


def turned(directions, angles, seed):
    """Turn unit vectors (n, D) by angles (n,) towards random sides."""
    side = np.random.default_rng((seed, 1)).normal(size=directions.shape)
    side -= (side * directions).sum(1, keepdims=True) * directions
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.cos(angles)[:, None] * directions + np.sin(angles)[:, None] * side


def spread(route):
    """Places of a route whose directions divide its arc evenly, as far as it has such places."""
    t = torch.linspace(0, 1, 300, dtype=torch.float64) if route.steps is None else route.fractions()
    places = route.places(t).numpy()
    units = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-300)
    angles = np.arccos(np.clip(units @ (units[0] if units[0].any() else units[-1]), -1, 1))
    return places[[int(np.abs(angles - share * angles[-1]).argmin()) for share in (0, 0.3, 0.55, 0.75, 1)]]


def border(rho_general, rho_specific, angle):
    """The largest angle at the root at which a point lies behind an exterior angle, by bisection, (n,)."""
    low, high = np.zeros(len(rho_general)), np.full(len(rho_general), math.pi)
    for _ in range(60):
        middle = (low + high) / 2
        along = np.sinh(rho_specific - rho_general) - 2 * np.cosh(rho_general) * np.sinh(rho_specific) * (
            np.sin(middle / 2) ** 2
        )
        outside = np.arctan2(np.sinh(rho_specific) * np.sin(middle), along) > angle
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return low


@pytest.mark.usefixtures("every_row_twice")
@settings(max_examples=30)
@given(SEEDS, DIMS, CURVS, RADII, ETAS, MIN_RADII, st.sampled_from(["ancestors", "descendants"]))
def test_what_is_just_inside_a_cone_is_among_the_candidates(seed, dim, curv, rho, eta, min_radius, side):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=(1, dim))
    axis /= np.linalg.norm(axis)
    query = (math.sinh(rho) / math.sqrt(curv) * axis[0]).astype(np.float32)
    other, mine = rng.uniform(0.01, 12, 40), np.full(40, rho)
    general, specific = (other, mine) if side == "ancestors" else (mine, other)
    aperture = np.minimum(eta * np.arcsin(np.minimum(1, 2 * min_radius / np.sinh(general))), math.pi)
    angles = border(general, specific, aperture) * (1 - 10 ** rng.uniform(-9, -2, 40))
    points = np.sinh(other)[:, None] / math.sqrt(curv) * turned(axis.repeat(40, 0), angles, seed)
    points = points.astype(np.float32)
    pair = (points, query) if side == "ancestors" else (query, points)
    inside = cone_margins(*pair, curv, eta, min_radius) <= 0
    snapshot = snapshot_of(points, curv)
    found = scan_cones.cone(
        snapshot, [None] * len(snapshot), query.astype(np.float64), side, Cone(eta, min_radius), curv
    )
    assert set(np.flatnonzero(inside)) <= keys_at(snapshot, found)


@pytest.mark.slow
@settings(max_examples=60)
@given(SEEDS, st.sampled_from([2, 3, 8]), CURVS, RADII, ETAS, MIN_RADII, KINDS, st.sampled_from([None, 9]))
def test_the_ancestors_of_every_place_are_among_the_candidates_of_the_arc(
    seed, dim, curv, rho, eta, min_radius, kind, steps
):
    points, query, *_ = setting(seed, dim, curv, rho, 4, eta)
    route = path_between(points, query, kind, curv, steps)
    rng, places = np.random.default_rng(seed), spread(route)
    # Points above every place, near the border of their own cones.
    far = np.linalg.norm(places, axis=1) * math.sqrt(curv)
    ways = (places[far > 1e-6] / np.linalg.norm(places[far > 1e-6], axis=1, keepdims=True)).repeat(6, 0)
    below = np.arcsinh(far[far > 1e-6]).repeat(6)
    above = below * rng.uniform(0.05, 1, len(below))
    aperture = np.minimum(eta * np.arcsin(np.minimum(1, 2 * min_radius / np.sinh(above))), math.pi)
    angles = border(above, below, aperture) * (1 - 10 ** rng.uniform(-9, 0, len(below)))
    kin = np.sinh(above)[:, None] / math.sqrt(curv) * turned(ways, angles, seed)
    points = np.concatenate([points, kin.astype(np.float32)])
    snapshot = snapshot_of(points, curv)
    masks, counted = masks_for(snapshot, seed)
    inside = np.zeros(len(points), bool)
    for place in places:
        inside |= cone_margins(points, place, curv, eta, min_radius) <= 0
    candidates = keys_at(snapshot, scan_routes.arc(snapshot, masks, route, Cone(eta, min_radius), curv))
    assert_names(candidates, counted & inside, counted)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from([2, 3, 8]), CURVS, RADII, ETAS, MIN_RADII)
def test_the_ancestors_of_the_start_are_those_of_every_place_towards_the_root(seed, dim, curv, rho, eta, min_radius):
    points, query, snapshot, *_ = setting(seed, dim, curv, rho, 12, eta)
    route, masks = Route(torch.from_numpy(query), curv), [None] * len(snapshot)
    candidates = keys_at(snapshot, scan_cones.cone(snapshot, masks, query, "ancestors", Cone(eta, min_radius), curv))
    for place in route.places(torch.linspace(0, 1, 4, dtype=torch.float64)).numpy():
        assert set(np.flatnonzero(cone_margins(points, place, curv, eta, min_radius) <= 0)) <= candidates


@settings(max_examples=100)
@given(SEEDS, DIMS, CURVS, RADII, KINDS, st.sampled_from([None, 2, 9, 50]), st.booleans())
def test_the_nearest_of_every_place_is_among_the_candidates(seed, dim, curv, rho, kind, steps, to_root):
    points, query, snapshot, masks, counted = setting(seed, dim, curv, rho)
    route = path_between(points, query, kind, curv, steps)
    if to_root:
        route = Route(route.start, curv, None, steps)
    t = torch.linspace(0, 1, 200, dtype=torch.float64) if route.straight else route.fractions()
    product = np.where(counted, minus_inner(points, route.places(t).numpy(), curv), np.inf)
    # Places have the rounding of float64: what is nearer by less than that is not known to be nearest.
    nearest = (product <= product.min(1, keepdims=True)).any(0)
    assert_names(keys_at(snapshot, scan_routes.along(snapshot, masks, route, curv)), counted & nearest, counted)


def test_what_lies_beyond_a_block_is_found(monkeypatch):
    rng = np.random.default_rng(0)
    points = (3 * rng.normal(size=(9001, 3))).astype(np.float32)
    snapshot = snapshot_of(points, 1.0, 8500)
    masks = [None] * len(snapshot)
    monkeypatch.setattr(products, "BLOCK_BYTES", 1)  # the smallest blocks: 4,096 rows
    for row in (0, 4095, 4096, 8191, 8192, 8499, 8500, 9000):
        query = points[row].astype(np.float64)
        (places,) = scan_knn.nearest(snapshot, masks, query[None], 1, 1.0)
        assert row in keys_at(snapshot, places)
        assert row in keys_at(snapshot, scan_knn.within(snapshot, masks, query, 0.0, 1.0))
        route = Route(torch.from_numpy(query), 1.0)
        assert row in keys_at(snapshot, scan_routes.along(snapshot, masks, route, 1.0))
        for side in ("ancestors", "descendants"):
            assert row in keys_at(snapshot, scan_cones.cone(snapshot, masks, query, side, Cone(), 1.0))


def test_nothing_is_named_where_nothing_counts():
    _, query, snapshot, *_ = setting(0, 3, 1.0, 2.0)
    none = [np.zeros(len(s), bool) for s in snapshot]
    assert [keys_at(snapshot, p) for p in scan_knn.nearest(snapshot, none, query[None], 3, 1.0)] == [set()]
    assert keys_at(snapshot, scan_knn.within(snapshot, none, query, 5.0, 1.0)) == set()
    for side in ("ancestors", "descendants"):
        assert keys_at(snapshot, scan_cones.cone(snapshot, none, query, side, Cone(), 1.0)) == set()
    assert scan_knn.nearest(snapshot, none, np.zeros((0, 3)), 3, 1.0) == []


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("end, steps", [(None, None), (None, 5), ([-1.0, 1.0, 0.0], None), ([-1.0, 1.0, 0.0], 5)])
def test_a_path_among_nothing_has_no_candidates(empty, end, steps):
    points, query, snapshot, *_ = setting(0, 3, 1.0, 2.0)
    snapshot = snapshot_of(points[:0], 1.0) if empty else snapshot
    none = [np.zeros(len(s), bool) for s in snapshot]
    route = Route(torch.from_numpy(query), 1.0, None if end is None else torch.tensor(end), steps)
    assert keys_at(snapshot, scan_routes.along(snapshot, none, route, 1.0)) == set()
    assert keys_at(snapshot, scan_routes.arc(snapshot, none, route, Cone(), 1.0)) == set()


# And little else ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree():
    """4,000 points in 64 dimensions around 50 directions, at the radii of trained models."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(50, 64))[rng.integers(50, size=4000)] + 0.4 * rng.normal(size=(4000, 64))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = (np.sinh(rng.uniform(0.3, 3.0, (4000, 1))) * direction).astype(np.float32)
    return points, snapshot_of(points, 1.0, 1500)


def test_the_candidates_of_the_nearest_are_few(tree):
    points, snapshot = tree
    queries = points[::400].astype(np.float64)
    for k in (1, 10, 100):
        for places in scan_knn.nearest(snapshot, [None] * len(snapshot), queries, k, 1.0):
            assert len(keys_at(snapshot, places)) <= 1.5 * k + 3


def test_the_candidates_of_other_searches_are_few(tree):
    points, snapshot = tree
    masks = [None] * len(snapshot)
    for row in range(0, 4000, 400):
        query = points[row].astype(np.float64)
        d = distances(points, query, 1.0)
        reach = float(np.sort(d)[50])
        assert len(keys_at(snapshot, scan_knn.within(snapshot, masks, query, reach, 1.0))) <= 55
        x = torch.from_numpy(points).double()
        q = torch.from_numpy(query).expand_as(x)
        for side, (a, b) in {"ancestors": (x, q), "descendants": (q, x)}.items():
            inside = int((cones.oxy_angle(a, b, 1.0) <= cones.half_aperture(a, 1.0)).sum())
            candidates = keys_at(snapshot, scan_cones.cone(snapshot, masks, query, side, Cone(), 1.0))
            assert len(candidates) <= 4 * inside + 40
        assert (
            len(keys_at(snapshot, scan_routes.along(snapshot, masks, Route(torch.from_numpy(query), 1.0), 1.0))) <= 40
        )


# How wide a cone is, seen from the root -------------------------------------------------------------------------------


@settings(max_examples=30)
@given(SEEDS, DIMS, CURVS, RADII, st.floats(0, math.pi))
def test_what_lies_behind_an_exterior_angle_lies_within_the_origin_angle(seed, dim, curv, rho, alpha):
    points, query = crowd(seed, dim, curv, rho, 8)
    points = points[points.any(1) & (points != query).any(1)]
    if not query.any():
        return
    x, ys = reference.number(query.astype(np.float64)), reference.number(points.astype(np.float64))
    c = reference.mpf(curv)
    radius = torch.tensor(float(reference.radius(x[None], c)[0]), dtype=torch.float64)
    for y in ys:
        phi = float(reference.oxy_angle(x[None], y[None], c)[0])
        theta = float(reference.acos((x * y).sum() / (reference.norm(x) * reference.norm(y))))
        assert theta <= cones.origin_angle(radius, phi, curv).item() + 1e-9
        if phi <= alpha:
            assert theta <= cones.origin_angle(radius, alpha, curv).item() + 1e-9


@settings(max_examples=10)
@given(CURVS, st.floats(0.01, 5), st.floats(0.05, 3.0))
def test_the_origin_angle_is_reached_by_points_far_out(curv, rho, alpha):
    radius = torch.tensor(rho / math.sqrt(curv), dtype=torch.float64)
    bound = cones.origin_angle(radius, alpha, curv).item()
    x = torch.tensor([[math.sinh(rho), 0.0]], dtype=torch.float64) / math.sqrt(curv)
    # Of points at three radii: the largest angle at the root whose exterior angle is at most alpha, by bisection.
    sinh = torch.sinh(rho + torch.tensor([2.0, 6.0, 12.0], dtype=torch.float64)) / math.sqrt(curv)
    low, high = torch.zeros(3, dtype=torch.float64), torch.full((3,), math.pi, dtype=torch.float64)
    for _ in range(55):
        middle = (low + high) / 2
        y = sinh[:, None] * torch.stack([middle.cos(), middle.sin()], 1)
        outside = cones.oxy_angle(x.expand_as(y), y, curv) > alpha
        low, high = torch.where(outside, low, middle), torch.where(outside, middle, high)
    assert (low <= bound * (1 + 1e-9)).all()
    assert low.tolist() == sorted(low.tolist())
    assert low[-1] >= 0.999 * bound - 1e-9


def test_origin_angles_of_known_triangles():
    zero = torch.tensor(0.0, dtype=torch.float64)
    for angle in (0.0, 0.5, math.pi / 2, math.pi):  # seen from the origin itself the angles are the same
        assert cones.origin_angle(zero, angle, 2.0).item() == pytest.approx(angle)
    radii = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    # peers-serving.md 4.3: the cones of MERU, K = 0.1.
    aperture = cones.half_aperture(torch.sinh(radii)[:, None], 1.0)
    np.testing.assert_allclose(
        torch.rad2deg(cones.origin_angle(radii, aperture, 1.0)), [84.3, 13.8, 3.61, 0.43], rtol=2e-2
    )
    assert cones.origin_angle(torch.tensor(16.8, dtype=torch.float64), math.pi, 1.0).item() == pytest.approx(math.pi)
    assert cones.origin_angle(torch.tensor([1.0]), 0.5, 1.0).dtype == torch.float32
    # Angles of a right-angled ideal triangle: tan(θ/2) = exp(−r), the angle of parallelism.
    assert cones.origin_angle(radii, math.pi / 2, 4.0).tolist() == pytest.approx(
        (2 * (-2 * radii).exp().atan()).tolist()
    )


def test_cones_get_narrower_from_shell_to_shell():
    for eta, min_radius in ((0.3, 0.02), (1.0, 0.1), (2.5, 0.5)):
        cosines = scan_cones.shell_cosines(Cone(eta, min_radius))
        assert (np.diff(cosines) >= 0).all()
        outermost = math.floor(128 * math.asinh(MAX_SINH_RADIUS * (1 + 1e-7)))
        assert len(cosines) > outermost
