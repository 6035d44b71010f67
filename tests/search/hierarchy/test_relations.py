"""Common ancestors, means and order against their definitions."""

from __future__ import annotations

import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import cones, lorentz, planes
from hypclip.search import Cone, LocalStore, Plane, Points, Space, Where
from hypclip.search.hierarchy.relations import common_ancestors, mean, order

CURV = 0.8


def ray(radius: float, angle: float = 0.0) -> torch.Tensor:
    angle_ = torch.tensor(angle)
    return lorentz.exp_map0(radius * torch.stack([torch.cos(angle_), torch.sin(angle_), torch.tensor(0.0)]), CURV)


@pytest.fixture
def store(tmp_path):
    generator = torch.Generator().manual_seed(0)
    units = torch.nn.functional.normalize(torch.randn(400, 3, generator=generator), dim=1)
    points = lorentz.exp_map0(units * (0.05 + 1.5 * torch.rand(400, 1, generator=generator)), CURV)
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", CURV, 3))
        ids = [f"{i:03}" for i in range(400)]
        store.upsert("c", Points(ids, points, ["text"] * 400, [{"i": i} for i in range(400)]))
        yield store


def expected(store, of, cone):
    found = {}
    for block in store.scan("c"):
        for point_id, x in zip(block.ids, block.vectors.double(), strict=True):
            if isinstance(cone, Plane):
                margins = [cone.threshold - planes.height(x, y.double(), CURV) for y in of]
            else:
                wide = cone.eta * cones.half_aperture(x, CURV)
                margins = [cones.oxy_angle(x, y.double(), CURV) - wide for y in of]
            if all(m <= 0 for m in margins) and all((x != y.double()).any() for y in of):
                found[point_id] = (float(lorentz.radius(x, CURV)), float(max(margins)))
    return sorted(found, key=lambda name: -found[name][0]), found


@pytest.mark.slow
@pytest.mark.parametrize("cone", [Cone(0.7), Cone(), Cone(1.4), Plane(-0.2), Plane(), Plane(0.2)], ids=str)
@pytest.mark.parametrize("places", [[(2.0, 0.1)], [(2.0, 0.1), (1.5, 0.4)], [(2.0, 0.0), (2.5, 0.8), (1.0, -0.5)]])
def test_common_ancestors_are_those_of_every_point(store, cone, places):
    of = torch.stack([ray(*place) for place in places])
    names, facts = expected(store, of, cone)
    assert names
    found = common_ancestors(store, "c", of, cone, k=1000)
    assert [hit.id for hit in found.hits] == names
    assert (found.total, found.exact) == (len(names), True)
    for hit in found.hits:
        assert hit.radius == pytest.approx(facts[hit.id][0], rel=1e-9)
        assert hit.margin == pytest.approx(facts[hit.id][1], abs=1e-9)
        if isinstance(cone, Cone):
            assert hit.angle - cone.eta * hit.aperture == pytest.approx(hit.margin, abs=1e-12)
    page = common_ancestors(store, "c", of, cone, k=2, offset=1)
    assert [hit.id for hit in page.hits] == names[1:3]


def test_common_ancestors_keep_to_the_conditions(store):
    of = ray(2.0)[None]
    found = common_ancestors(store, "c", of, Cone(), Where({"i": {"lt": 200}}), k=1000)
    assert found.hits
    assert all(hit.metadata["i"] < 200 for hit in found.hits)


def test_the_mean_of_two_is_the_midpoint():
    x, y = ray(1.0, 0.3), ray(2.0, -0.9)
    torch.testing.assert_close(mean(torch.stack([x, y]), CURV), lorentz.geodesic(x.double(), y.double(), 0.5, CURV))


def test_weights_pull():
    x = torch.stack([ray(1.0), ray(2.0, 1.0), ray(0.5, 2.0)])
    torch.testing.assert_close(mean(x, CURV, [0.0, 3.0, 0.0]), x[1].double())
    torch.testing.assert_close(mean(x, CURV, [2.0, 2.0, 2.0]), mean(x, CURV))
    torch.testing.assert_close(mean(x, CURV, [1.0, 2.0, 1.0]), mean(x[[0, 1, 1, 2]], CURV))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "one weight per point"),
        ([1.0, -1.0], "0 or more"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, float("nan")], "finite"),
    ],
)
def test_weights_that_are_none(weights, message):
    with pytest.raises(InputError, match=message):
        mean(torch.stack([ray(1.0), ray(2.0)]), CURV, weights)


def test_no_points():
    with pytest.raises(InputError, match="at least one"):
        mean(torch.zeros(0, 3), CURV)


def test_no_points_have_no_common_ancestor(store):
    with pytest.raises(InputError, match="at least one"):
        common_ancestors(store, "c", torch.zeros(0, 3), Cone())


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        (ray(0.5), ray(2.0, 0.05), "general"),
        (ray(2.0, 0.05), ray(0.5), "specific"),
        (ray(1.0), ray(1.0, 2.0), "neither"),
        (ray(1.0), ray(1.0), "same"),
        (torch.zeros(3), ray(1.0), "general"),
    ],
)
def test_order(first, second, relation):
    found = order(first, second, CURV, Cone())
    assert found.relation == relation
    x, y = first.double(), second.double()
    for margin, a, b in ((found.first_over_second, x, y), (found.second_over_first, y, x)):
        assert margin == pytest.approx(float(cones.oxy_angle(a, b, CURV) - cones.half_aperture(a, CURV)), abs=1e-12)
    assert found.distance == pytest.approx(float(lorentz.dist(x, y, CURV)), abs=1e-12)


def test_order_by_half_spaces():
    low, high, aside = ray(0.5), ray(2.0, 0.05), ray(1.0, 2.0)
    found = order(low, high, CURV, Plane(0.1))
    assert found.relation == "general"
    assert found.first_over_second == pytest.approx(0.1 - float(planes.height(low, high, CURV)), abs=1e-7)
    assert order(high, low, CURV, Plane(0.1)).relation == "specific"
    assert order(low, aside, CURV, Plane()).relation == "neither"
    assert order(low, low, CURV, Plane(-1.0)).relation == "same"
    # 1.5 apart along one ray: a stricter rule leaves them unordered.
    assert order(ray(0.5), ray(2.0), CURV, Plane(1.5 * CURV**0.5 - 1e-3)).relation == "general"
    assert order(ray(0.5), ray(2.0), CURV, Plane(1.5 * CURV**0.5 + 1e-3)).relation == "neither"


@pytest.mark.parametrize("rule", [Cone(0.8), Plane(0.1)], ids=str)
def test_common_ancestors_go_by_the_rule_of_the_collection(store, rule):
    store.create_collection("ruled", Space("m", CURV, 3, entailment=rule))
    for block in store.scan("c"):
        store.upsert("ruled", block)
    of = torch.stack([ray(2.0, 0.1), ray(1.5, 0.4)])
    found = common_ancestors(store, "ruled", of, k=1000)
    assert [hit.id for hit in found.hits] == expected(store, of, rule)[0]
    assert len(found.hits) > 0


def test_where_both_hold_each_other_the_deeper_counts():
    low, high = ray(0.05), ray(0.06, 0.3)
    wide = Cone(eta=2.0)
    found = order(low, high, CURV, wide)
    assert max(found.first_over_second, found.second_over_first) <= 0
    assert found.relation == ("general" if found.first_over_second <= found.second_over_first else "specific")
    assert order(high, low, CURV, wide).relation != found.relation
