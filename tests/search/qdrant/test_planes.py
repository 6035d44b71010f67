"""Half-spaces in Qdrant: both ways as brute force has them, in collections of models of either rule."""

import math

import pytest
import torch

from hypclip.geometry import lorentz, planes
from hypclip.search import Cone, ModelMismatch, Plane, Route, Space, Where
from hypclip.search.hierarchy.traverse import traverse
from hypclip.search.qdrant.planes import ancestors, descendants
from hypclip.search.qdrant.store import QdrantStore
from tests.support.qdrant import CURVS, DIM, Server, cloud, points, queries

RULES = [Plane(), Cone()]


def put(store, curv, rule, far=5.0, n=120):
    x = cloud(curv, n, far)
    metadata = [{"third": i // (n // 3), "even": i % 2 == 0} for i in range(n)]
    pool = points(x, metadata=metadata, modality=["text" if i % 3 else "image" for i in range(n)])
    store.create_collection("c", Space("m", curv, DIM, entailment=rule))
    store.upsert("c", pool)
    return pool


@pytest.fixture(scope="module", params=[(curv, rule) for curv in CURVS for rule in RULES], ids=str)
def filled(request):
    """A store with points of a model that entails by half-spaces, or by cones, and these points."""
    curv, rule = request.param
    with QdrantStore.connect(":memory:") as store:
        yield store, curv, put(store, curv, rule)


def brute(pool, query, side, plane, curv):
    """Return heights, distances, radii and which rows are inside, row by row in float64."""
    x = pool.vectors.double()
    q = query.double().expand_as(x)
    height = planes.height(*((x, q) if side == "ancestors" else (q, x)), curv)
    distance = lorentz.dist(x, q, curv)
    height = torch.where(distance > 0, height, 0)
    inside = (height >= plane.threshold) & ((distance > 0) | (not plane.strict))
    return height, distance, lorentz.radius(x, curv), inside.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [-0.7, 0.0, 0.4])
@pytest.mark.parametrize("side", ["ancestors", "descendants"])
def test_half_spaces_hold_what_brute_force_says(filled, side, threshold):
    store, curv, pool = filled
    plane = Plane(threshold, strict=threshold != 0.4)
    where = Where({"third": [0, 2]}) if threshold == 0.4 else Where()
    seen = 0
    for query in queries(pool, curv):
        height, distance, radius, inside = brute(pool, query, side, plane, curv)
        rows = [
            i
            for i, is_inside in enumerate(inside)
            if is_inside and (threshold != 0.4 or pool.metadata[i]["third"] != 1)
        ]
        seen += len(rows)
        orders = {"margin": threshold - height, "distance": distance, "radius": radius}
        for order, key in orders.items() if threshold == 0 else [("margin", threshold - height)]:
            result = store.cone("c", query, side, plane, where, order_by=order, k=9, offset=1)
            assert (result.total, result.exact) == (len(rows), True)
            # What ties in the last digits may come in either order.
            wanted = sorted(float(key[i]) for i in rows)[1:10]
            assert [getattr(hit, order) for hit in result.hits] == pytest.approx(wanted, abs=1e-11)
            for hit in result.hits:
                i = pool.ids.index(hit.id)
                assert i in rows
                have = (hit.distance, hit.radius, hit.aperture, hit.margin)
                want = (float(distance[i]), float(radius[i]), math.pi / 2, threshold - float(height[i]))
                assert have == pytest.approx(want, abs=1e-11)
    assert seen


def test_the_rule_of_the_collection_is_the_default(filled):
    store, curv, pool = filled
    rule = store.describe("c").space.entailment
    query = pool.vectors[10]
    for side in ("ancestors", "descendants"):
        assert store.cone("c", query, side) == store.cone("c", query, side, rule)
    other = next(one for one in RULES if one != rule)
    assert store.cone("c", query, "descendants") != store.cone("c", query, "descendants", other)
    with pytest.raises(ModelMismatch, match=r"entailment by (half-spaces.*cones|cones.*half-spaces)"):
        store.create_collection("c", Space("m", curv, DIM, entailment=other))


@pytest.mark.parametrize("threshold", [-1e6, -40.0, 40.0, 1e6])
def test_thresholds_beyond_every_height_hold_all_or_nothing(filled, threshold):
    store, _, pool = filled
    for side in ("ancestors", "descendants"):
        for query in (pool.vectors[70], torch.zeros(DIM)):
            found = store.cone("c", query, side, Plane(threshold, strict=False), k=1)
            assert found.total == (len(pool.ids) if threshold < 0 else 0)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("curv", CURVS)
def test_points_far_out_are_not_lost_to_the_rounding_of_float32(curv, rule):
    with QdrantStore.connect(":memory:") as store:
        pool = put(store, curv, rule, far=12.0, n=90)
        for query in pool.vectors[31:90:9]:
            for side in ("ancestors", "descendants"):
                for threshold in (-1.0, 0.0):
                    *_, inside = brute(pool, query, side, Plane(threshold), curv)
                    assert store.cone("c", query, side, Plane(threshold)).total == sum(inside)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.3])
@pytest.mark.parametrize("steps", [None, 40])
@pytest.mark.parametrize("target", [None, 119])
def test_candidates_contain_what_holds_a_place(filled, threshold, steps, target):
    store, curv, pool = filled
    end = None if target is None else pool.vectors[target]
    x = pool.vectors.double()
    for start in (0, 100):
        path = Route(pool.vectors[start], curv, end, steps)
        route_candidates, exact = store.route_candidates("c", path, Plane(threshold))
        assert exact
        assert len(set(route_candidates.ids)) == len(route_candidates.ids)
        held = set()
        for place in path.places(torch.linspace(0, 1, 40, dtype=torch.float64)):
            inside = planes.height(x, place.expand_as(x), curv) >= threshold + 1e-9
            held |= {pool.ids[i] for i in inside.nonzero().flatten().tolist()}
        assert held <= set(route_candidates.ids)
        assert traverse(store, "c", path, Plane(threshold)).exact


def test_only_models_of_half_spaces_have_the_fourth_vector(filled):
    store, curv, pool = filled
    rule = store.describe("c").space.entailment
    vectors = store._client.get_collection("hypclip-c").config.params.vectors
    assert ("general" in vectors) == isinstance(rule, Plane)
    space = Space("m", curv, DIM, entailment=rule)
    _, searches = ancestors(space, pool.vectors[90].double(), Plane(), Where())
    assert {search.using for search in searches} <= ({"general"} if isinstance(rule, Plane) else {"direction"})
    _, searches = descendants(space, pool.vectors[90].double(), Plane(), Where())
    assert {search.using for search in searches} == {"lorentz"}
    assert len(searches) <= 9


def test_a_collection_of_before_entails_by_the_cones_of_meru(filled):
    store, curv, _ = filled
    ours = {"format": 1, "model_id": "m", "revision": "", "curv": curv, "dim": DIM}
    vectors = dict(store._client.get_collection("hypclip-c").config.params.vectors)
    vectors.pop("general", None)
    for name, entry, wanted in (
        ("before", {}, Cone()),
        (
            "cones",
            {"entailment": {"form": "cone", "eta": 0.7, "min_radius": 0.2, "strict": False}},
            Cone(0.7, 0.2, False),
        ),
    ):
        store._client.create_collection(f"hypclip-{name}", vectors, metadata={"hypclip": ours | entry})
        assert store.describe(name).space.entailment == wanted
        store._client.delete_collection(f"hypclip-{name}")


def test_a_server_is_told_the_rule_and_asked_by_inner_products():
    with Server() as server, QdrantStore.connect(server.url) as store:
        pool = put(store, 1.0, Plane(0.1))
        assert server.created.metadata["hypclip"]["entailment"] == {"form": "plane", "threshold": 0.1, "strict": True}
        assert store.describe("c").space.entailment == Plane(0.1)
        for side in ("ancestors", "descendants"):
            query = pool.vectors[90 if side == "ancestors" else 10]
            *_, inside = brute(pool, query, side, Plane(0.1), 1.0)
            assert store.cone("c", query, side).total == sum(inside) > 0
