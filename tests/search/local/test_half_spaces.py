"""Searches by half-spaces answer as a loop over all points in float64 does, by the definition of the height."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.geometry import cones, lorentz
from hypclip.search import LocalStore, Plane, Route, Space, Where
from hypclip.search.exact import measure_cone
from hypclip.search.local import scan_planes
from hypclip.search.where import MODALITIES
from tests.support.search import CURVS, SEEDS, crowd, ids_of, keys_at, marks, snapshot_of, stored

SIDES = st.sampled_from(["ancestors", "descendants"])
DIMS = st.sampled_from([2, 3, 8, 64, 512])
RADII = st.floats(0.01, 8)
THRESHOLDS = st.sampled_from([-30.0, -1.0, -0.2, 0.0, 1e-9, 0.3, 2.0, 5.0])
ORDERS = st.sampled_from(["margin", "distance", "radius"])


def heights(general, specific, curv):
    """Of pairs of rows, from cosh and sinh of the radii and the cosine at the root, in 80-bit floats."""
    x, y = (np.asarray(v).astype(np.longdouble) * np.sqrt(np.longdouble(curv)) for v in (general, specific))
    x, y = np.broadcast_arrays(x, y)
    norm_x, norm_y = (np.sqrt((v * v).sum(-1)) for v in (x, y))
    times = [np.sqrt(1 + n * n) for n in (norm_x, norm_y)]
    over = np.where(norm_x > 0, norm_x, 1)
    found = np.arcsinh(times[0] * (x * y).sum(-1) / over - norm_x * times[1])
    return np.where((norm_x > 0) & (x != y).any(-1), found, 0).astype(float)


def pair(side, points, query):
    return (points, query) if side == "ancestors" else (query, points)


def slack(points, query, curv):
    """What 80-bit floats and float64 may lose of a height: they cancel where both are far out."""
    lengths = [np.sqrt(1 + curv * (v.astype(float) ** 2).sum(-1)) for v in (points, query)]
    return 1e-12 + 4e-15 * lengths[0] * lengths[1]


@settings(max_examples=100)
@given(SEEDS, DIMS, CURVS, RADII, THRESHOLDS, SIDES)
def test_heights_are_those_of_the_definition(seed, dim, curv, rho, threshold, side):
    points, query = crowd(seed, dim, curv, rho, n=8)
    found, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, Plane(threshold, False), curv)
    general, specific = pair(side, points, query)
    want = heights(general, specific, curv)
    near = slack(points, query, curv)
    assert (abs(threshold - found.margin.numpy() - want) <= near).all()
    sure = abs(want - threshold) > near
    np.testing.assert_array_equal(inside.numpy()[sure], (want >= threshold)[sure])
    assert (found.aperture == math.pi / 2).all()
    x, y = (torch.from_numpy(np.broadcast_to(v, points.shape).copy()).double() for v in (general, specific))
    angle = cones.oxy_angle(x, y, curv)
    far = found.distance > 1e-3 / math.sqrt(curv)
    torch.testing.assert_close(found.angle[far], angle[far], rtol=0, atol=1e-6)
    same = (points == query).all(1)
    assert (found.margin.numpy()[same] == threshold).all()
    _, strictly = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, Plane(threshold), curv)
    np.testing.assert_array_equal(strictly, inside & ~torch.from_numpy(same))


@settings(max_examples=150)
@given(SEEDS, DIMS, CURVS, RADII, THRESHOLDS, SIDES, ORDERS, st.booleans(), st.integers(1, 40))
def test_what_is_not_measured_is_inside_and_after_the_page(
    seed, dim, curv, rho, threshold, side, order, strict, wanted
):
    points, query = crowd(seed, dim, curv, rho)
    snapshot, rng, plane = snapshot_of(points, curv), np.random.default_rng(seed), Plane(threshold, strict)
    masks = [None if rng.random() < 0.3 else rng.random(len(s)) < 0.6 for s in snapshot]
    found, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, plane, curv)
    inside = inside.numpy() & marks(snapshot, masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_planes, "_FEW", 0)
        places, more = scan_planes.search(snapshot, masks, query.astype(np.float64), side, plane, curv, order, wanted)
    measured = np.zeros(len(points), bool)
    measured[list(keys_at(snapshot, places))] = True
    assert more == (inside & ~measured).sum()
    assert not (measured & ~marks(snapshot, masks)).any()
    key = found.by(order).numpy()
    if inside.sum() > wanted:
        last = np.sort(key[inside])[wanted - 1]
        assert (measured | ~inside | (key > last)).all()
    else:
        assert (measured | ~inside).all()
    candidates = scan_planes.candidates(snapshot, masks, query.astype(np.float64), side, plane, curv)
    assert set(np.flatnonzero(inside)) <= keys_at(snapshot, candidates)


@settings(max_examples=60)
@given(SEEDS, DIMS, CURVS, RADII, THRESHOLDS, SIDES, st.integers(1, 8))
def test_rows_within_a_hair_of_the_border_are_told_apart(seed, dim, curv, rho, threshold, side, wanted):
    """Rows whose height is the threshold and up to 1e-6 more or less."""
    rng = np.random.default_rng(seed)
    axis, across = np.linalg.qr(rng.normal(size=(dim, 2)))[0].T
    height = np.maximum(threshold, -8.0) + 10 ** rng.uniform(-12, -6, 200) * rng.choice([-1, 1], 200)
    other, sign = rng.uniform(0.01, 8, 200), rng.choice([-1, 1], 200)
    general, specific = (other, rho) if side == "ancestors" else (rho, other)
    cosine = (np.sinh(height) + np.sinh(general) * np.cosh(specific)) / (np.cosh(general) * np.sinh(specific))
    there = abs(cosine) <= 1
    cosine, other, sign = cosine[there], other[there], sign[there]
    query = (math.sinh(rho) / math.sqrt(curv) * axis).astype(np.float32)
    directions = cosine[:, None] * axis + (sign * np.sqrt(1 - cosine**2))[:, None] * across
    points = (np.sinh(other)[:, None] / math.sqrt(curv) * directions).astype(np.float32)
    points = np.concatenate([query[None], points])
    snapshot, plane = snapshot_of(points, curv), Plane(max(threshold, -8.0))
    _, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, plane, curv)
    places, more = scan_planes.search(
        snapshot, [None] * len(snapshot), query.astype(np.float64), side, plane, curv, "margin", wanted
    )
    measured = sorted(keys_at(snapshot, places))
    assert int(inside[measured].sum()) + more == int(inside.sum())


@pytest.mark.parametrize("side", ["ancestors", "descendants"])
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.5])
def test_the_root_has_height_0_over_everything_and_minus_its_radius_under_it(side, threshold):
    points, _ = crowd(3, 3, 1.0, 1.0)
    snapshot, origin = snapshot_of(points, 1.0), np.zeros(3)
    plane = Plane(threshold, strict=False)
    places, more = scan_planes.search(snapshot, [None] * len(snapshot), origin, side, plane, 1.0, "margin", 5)
    radii = lorentz.radius(torch.from_numpy(points).double(), 1.0).numpy()
    want = (-radii if side == "ancestors" else np.zeros(len(points))) >= threshold
    _, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(origin), side, plane, 1.0)
    np.testing.assert_array_equal(inside, want)
    assert int(inside[sorted(keys_at(snapshot, places))].sum()) + more == want.sum()


def test_rows_next_to_the_origin_and_radii_beyond_every_threshold_are_told_apart():
    tiny = np.array([[1e-45, 0], [1e-38, 1e-38], [-1e-30, 1e-30], [1e-20, 0], [-1e-8, 0], [0, 0], [1e-3, 0]])
    far = np.array([[9e6, 1.0], [-9e6, 1.0]])
    points = np.concatenate([tiny, far]).astype(np.float32)
    snapshot = snapshot_of(points, 1.0)
    for query in [*points.astype(np.float64), np.array([1.0, 1.0])]:
        for threshold in (-1e9, -50.0, -1e-6, 0.0, 1e-6, 0.5, 50.0, 1e300):
            for side in ("ancestors", "descendants"):
                plane = Plane(threshold)
                _, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, plane, 1.0)
                for few in (0, 64):
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr(scan_planes, "_FEW", few)
                        places, more = scan_planes.search(snapshot, [None], query, side, plane, 1.0, "margin", 1)
                    assert int(inside[sorted(keys_at(snapshot, places))].sum()) + more == int(inside.sum())


KINDS = st.sampled_from(["apart", "near", "opposite", "one line", "same", "to the root", "from the root"])


@settings(max_examples=100)
@given(SEEDS, DIMS, CURVS, RADII, THRESHOLDS, KINDS, st.sampled_from([None, 2, 9, 150]))
def test_what_holds_a_place_of_a_path_is_among_the_candidates(seed, dim, curv, rho, threshold, kind, steps):
    points, query = crowd(seed, dim, curv, rho, n=20)
    start = torch.from_numpy(query).double()
    end = {
        "apart": torch.from_numpy(points[7]).double(),
        "near": start * 1.01 + 1e-3 / math.sqrt(curv),
        "opposite": -start,
        "one line": start / 3,
        "same": start,
        "to the root": None,
        "from the root": start,
    }[kind]
    route = Route(torch.zeros_like(start) if kind == "from the root" else start, curv, end, steps)
    snapshot = snapshot_of(points, curv)
    rng = np.random.default_rng(seed)
    masks = [None if rng.random() < 0.3 else rng.random(len(s)) < 0.6 for s in snapshot]
    counted = marks(snapshot, masks)
    found = keys_at(snapshot, scan_planes.on_route(snapshot, masks, route, Plane(threshold), curv))
    assert found <= set(np.flatnonzero(counted))
    t = torch.linspace(0, 1, 41, dtype=torch.float64) if steps is None else route.fractions()[:: max(1, steps // 40)]
    for place in route.places(t).numpy():
        inside = heights(points, place, curv) >= threshold + slack(points, place, curv)
        assert set(np.flatnonzero(inside & counted)) <= found


def test_the_candidates_are_few():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(50, 64))[rng.integers(50, size=4000)] + 0.4 * rng.normal(size=(4000, 64))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = (np.sinh(rng.uniform(0.3, 3.0, (4000, 1))) * direction).astype(np.float32)
    snapshot = snapshot_of(points, 1.0, 1500)
    masks = [None] * len(snapshot)
    for row in range(0, 4000, 400):
        query = points[row].astype(np.float64)
        for threshold in (-1.0, 0.0, 0.2):
            for side in ("ancestors", "descendants"):
                plane = Plane(threshold)
                _, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, plane, 1.0)
                total = int(inside.sum())
                found = scan_planes.candidates(snapshot, masks, query, side, plane, 1.0)
                assert len(keys_at(snapshot, found)) <= 1.02 * total + 5
                places, more = scan_planes.search(snapshot, masks, query, side, plane, 1.0, "margin", 10)
                assert len(keys_at(snapshot, places)) <= 80
                assert more >= total - 80


@pytest.mark.parametrize("curv", [0.3, 2.0])
@pytest.mark.parametrize("threshold", [-0.4, 0.0, 0.4])
@pytest.mark.parametrize("side", ["ancestors", "descendants"])
def test_a_store_gives_pages_in_order_with_all_counted(tmp_path, curv, threshold, side, monkeypatch):
    monkeypatch.setattr(scan_planes, "_FEW", 5)
    points, query = crowd(11, 8, curv, 1.5, n=150)
    rule = Plane(threshold)
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", curv, 8, entailment=rule))
        ids = stored(store, points)
        found, inside = measure_cone(torch.from_numpy(points), torch.from_numpy(query), side, rule, curv)
        where = {"all": Where(), "some": Where({"i": {"lt": 200}}), "far": Where(modality="text", min_radius=1.0)}
        counted = {
            "all": torch.ones(len(points), dtype=torch.bool),
            "some": torch.arange(len(points)) < 200,
            "far": (torch.arange(len(points)) % 3 == MODALITIES.index("text")) & (found.radius >= 1.0),
        }
        for name, condition in where.items():
            mine = (inside & counted[name]).nonzero().squeeze(1).tolist()
            assert mine or name == "far"
            for order in ("margin", "distance", "radius"):
                key = found.by(order)
                expected = [ids[row] for row in sorted(mine, key=lambda row: (float(f"{key[row]:.12e}"), ids[row]))]
                whole = store.cone("c", query, side, None, condition, order_by=order)
                assert (ids_of(whole), whole.total, whole.exact) == (expected, len(mine), True)
                page = store.cone("c", query, side, rule, condition, order_by=order, k=3, offset=2)
                assert (ids_of(page), page.total) == (expected[2:5], len(mine))
                for hit in page.hits:
                    row = ids.index(hit.id)
                    assert hit.margin == pytest.approx(float(found.margin[row]), abs=1e-12)
                    assert hit.aperture == math.pi / 2
