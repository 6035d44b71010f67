"""Traversal against the published algorithm, and against a walk in very small steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.errors import InputError
from hypclip.geometry import cones, lorentz
from hypclip.search import Cone, LocalStore, Plane, Points, Route, Space, UnknownCollection, Where
from hypclip.search.hierarchy.traverse import ROOT, traverse

N = 600


@pytest.fixture
def pool(tmp_path):
    """Make a store of points that crowd around a few directions, at all radii, and return it with them."""

    def make(seed: int, curv: float, dim: int) -> tuple[LocalStore, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(5, dim, generator=generator)[torch.randint(5, (N,), generator=generator)]
        noise = torch.randn(N, dim, generator=generator) * torch.rand(N, 1, generator=generator)
        units = torch.nn.functional.normalize(centres + 0.3 * noise, dim=1)
        radii = 0.02 + 4 * torch.rand(N, 1, generator=generator) ** 1.5
        points = lorentz.exp_map0(units * radii / math.sqrt(curv), curv)
        store = LocalStore(tmp_path / str(len(list(tmp_path.iterdir()))), create=True)
        store.create_collection("c", Space("m", curv, dim))
        store.upsert("c", Points(names(N), points, ["text"] * N, [{"even": i % 2 == 0} for i in range(N)]))
        opened.append(store)
        return store, points.double()

    opened: list[LocalStore] = []
    yield make
    for store in opened:
        store.close()


def names(n: int) -> list[str]:
    return [f"{i:04}" for i in range(n)]


def published(pool, start, end, curv, cone, steps):
    """The algorithm of arXiv:2304.09172 in float64, in its own formulas; the end log-mapped. No filter without cone."""
    tangents = [lorentz.log_map0(x, curv) for x in (start, end)]
    weights = torch.linspace(0, 1, steps, dtype=torch.float64)
    places = lorentz.exp_map0(torch.stack([torch.lerp(*tangents, w) for w in weights]), curv)
    pool = torch.cat([pool, torch.zeros(1, pool.shape[1], dtype=torch.float64)])
    pool_time = torch.sqrt(1 / curv + (pool**2).sum(1))
    place_time = torch.sqrt(1 / curv + (places**2).sum(1))
    inner = places @ pool.T - place_time[:, None] * pool_time
    if isinstance(cone, Plane):
        outside = heights(pool, places, curv) < math.sinh(cone.threshold)
        outside[:, -1] = False
        inner[outside] = -1e12
    elif cone is not None:
        c_inner, norm = curv * inner, pool.norm(dim=1)
        along = place_time[:, None] + c_inner * pool_time
        angle = torch.acos((along / (norm * torch.sqrt((c_inner**2 - 1).clamp(min=1e-300)))).clamp(-1, 1))
        outside = angle > cone.eta * torch.asin((0.2 / (math.sqrt(curv) * norm)).clamp(max=1))
        outside[:, -1] = False
        inner[outside] = -1e12
    found = inner.argmax(1).tolist()
    return list(dict.fromkeys(ROOT if i == len(pool) - 1 else f"{i:04}" for i in found))


def heights(pool, places, curv):
    """sinh of the height of each place over each point, (places, points); 0 over the root."""
    norm, out = pool.norm(dim=1), math.sqrt(curv)
    along = torch.sqrt(1 + curv * norm**2) * out * (places @ pool.T) / norm.clamp(min=1e-300)
    return torch.where(norm > 0, along - out * norm * torch.sqrt(1 + curv * (places**2).sum(1))[:, None], 0)


RULES = [None, Cone(0.7), Cone(), Cone(1.5), Plane(-0.3), Plane(), Plane(0.3)]
CASES = [(seed, curv, dim) for seed, curv, dim in ((0, 1.0, 3), (1, 0.3, 8), (2, 2.5, 32), (3, 0.1, 16))]


def ends(pool, curv):
    """A place far out, beside a point of the pool, and one in another direction."""
    outer = lorentz.log_map0(pool[7], curv)
    start = lorentz.exp_map0(outer / outer.norm() * 3.5 / math.sqrt(curv), curv)
    other = lorentz.log_map0(pool[11], curv)
    return start, lorentz.exp_map0(other / other.norm() * 2.5 / math.sqrt(curv), curv)


@pytest.mark.parametrize(("seed", "curv", "dim"), CASES)
@pytest.mark.parametrize("cone", RULES, ids=str)
@pytest.mark.parametrize("to_root", [True, False])
def test_steps_are_the_published_algorithm(pool, seed, curv, dim, cone, to_root):
    store, points = pool(seed, curv, dim)
    start, target = ends(points, curv)
    end = None if to_root else target
    for steps in (2, 7, 50):
        found = traverse(store, "c", Route(start, curv, end, steps), cone)
        expected = published(points, start, torch.zeros_like(start) if to_root else target, curv, cone, steps)
        assert [stop.id for stop in found.stops] == expected
        assert found.exact


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "curv", "dim"), CASES)
@pytest.mark.parametrize("cone", [*RULES, Cone(1.8)], ids=str)
@pytest.mark.parametrize("to_root", [True, False])
def test_without_steps_no_change_is_missed(pool, seed, curv, dim, cone, to_root):
    store, points = pool(seed, curv, dim)
    start, target = ends(points, curv)
    route = Route(start, curv, None if to_root else target)
    found = {stop.id: stop.t for stop in traverse(store, "c", route, cone).stops}
    fractions = torch.linspace(0, 1, 3001, dtype=torch.float64)
    places = route.places(fractions)
    everything = torch.cat([points, torch.zeros(1, dim, dtype=torch.float64)])
    inner = lorentz.pairwise_inner(places, everything, curv)
    if cone is not None:
        if isinstance(cone, Plane):
            outside = heights(everything, places, curv) < math.sinh(cone.threshold)
        else:
            angles = cones.pairwise_oxy_angle(everything, places, curv).T
            outside = angles > cone.eta * cones.half_aperture(everything, curv)
        outside[:, -1] = False
        inner[outside] = -torch.inf
    first: dict[str, float] = {}
    for t, row in zip(fractions.tolist(), inner.argmax(1).tolist(), strict=True):
        first.setdefault(ROOT if row == N else f"{row:04}", t)
    assert set(first) <= set(found)
    assert all(abs(found[name] - t) <= 1e-3 for name, t in first.items())
    # What the small steps passed over lasted for less than one of them.
    assert len(found) <= len(first) + 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 5), st.integers(2, 6), st.floats(0.3, 2.5))
def test_a_walk_in_many_steps_finds_no_more_than_the_geodesic(tmp_path_factory, seed, curv, dim, eta):
    generator = torch.Generator().manual_seed(seed)
    points = lorentz.exp_map0(torch.randn(60, dim, generator=generator) / math.sqrt(curv), curv)
    start = lorentz.exp_map0(2.5 * torch.randn(dim, generator=generator) / math.sqrt(curv * dim), curv)
    with LocalStore(tmp_path_factory.mktemp("walk"), create=True) as store:
        store.create_collection("c", Space("m", curv, dim))
        store.upsert("c", Points(names(60), points, ["text"] * 60, [{}] * 60))
        for cone in (None, Cone(eta)):
            steps = traverse(store, "c", Route(start, curv, steps=400), cone)
            whole = traverse(store, "c", Route(start, curv), cone)
            order = [stop.id for stop in whole.stops]
            assert [order.index(stop.id) for stop in steps.stops] == sorted(order.index(s.id) for s in steps.stops)
            assert [stop.t for stop in whole.stops] == sorted(stop.t for stop in whole.stops)


def test_stops_carry_their_point_and_their_distance(pool):
    store, points = pool(0, 1.0, 8)
    start, _ = ends(points, 1.0)
    route = Route(start, 1.0, steps=50)
    stops = traverse(store, "c", route).stops
    for stop in stops[:-1]:
        place = route.places(torch.tensor([stop.t], dtype=torch.float64))[0]
        assert stop.distance == pytest.approx(float(lorentz.dist(place, points[int(stop.id)], 1.0)), abs=1e-12)
        assert stop.radius == pytest.approx(float(lorentz.radius(points[int(stop.id)], 1.0)), rel=1e-9)
        assert (stop.modality, stop.metadata) == ("text", {"even": int(stop.id) % 2 == 0})
    root = stops[-1]
    assert (root.id, root.t, root.radius, root.modality, root.metadata) == (ROOT, 1.0, 0.0, None, {})


def test_a_filter_leaves_points_out(pool):
    store, points = pool(0, 1.0, 8)
    start, _ = ends(points, 1.0)
    found = traverse(store, "c", Route(start, 1.0, steps=50), where=Where({"even": True})).stops
    assert len(found) > 2
    assert all(stop.metadata["even"] for stop in found[:-1])


def test_strict_leaves_the_start_out_and_reflexive_keeps_it(pool):
    store, points = pool(0, 1.0, 8)
    far = points[int(lorentz.radius(points, 1.0).argmax())]
    for steps in (50, None):
        route = Route(far.float(), 1.0, steps=steps)
        name = store.knn("c", far[None].float(), 1)[0].hits[0].id
        assert name not in [stop.id for stop in traverse(store, "c", route, Cone()).stops]
    reflexive = traverse(store, "c", Route(far.float(), 1.0, steps=50), Cone(strict=False)).stops
    assert (reflexive[0].id, reflexive[0].distance) == (name, 0.0)


def test_an_empty_pool_has_the_root(tmp_path):
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", 1.0, 4))
        for steps in (50, None):
            for cone in (None, Cone()):
                for end in (None, torch.full((4,), 0.5)):
                    found = traverse(store, "c", Route(torch.ones(4), 1.0, end, steps), cone)
                    assert [(stop.id, stop.t) for stop in found.stops] == [(ROOT, 0.0)]


def test_a_start_at_the_root_stays_there(pool):
    store, _ = pool(0, 1.0, 8)
    for steps in (50, None):
        assert traverse(store, "c", Route(torch.zeros(8), 1.0, steps=steps)).stops[0].id == ROOT


def test_refused(pool):
    store, _ = pool(0, 1.0, 8)
    with pytest.raises(UnknownCollection, match="'x'"):
        traverse(store, "x", Route(torch.ones(8), 1.0))
    with pytest.raises(InputError, match="8 space components"):
        traverse(store, "c", Route(torch.ones(4), 1.0))
    with pytest.raises(InputError, match="NaN"):
        traverse(store, "c", Route(torch.full((8,), math.nan), 1.0))
