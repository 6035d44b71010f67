"""What entails what over HTTP: by the rule of the model unless the request has its own, which may be none."""

from __future__ import annotations

import math

import pytest
import torch
from fastapi.testclient import TestClient

from hypclip.geometry import cones, planes
from hypclip.geometry.entailment import Cone, Entailment, Plane
from tests.serve.api.test_hierarchy import PLACES, ids, post
from tests.support.serving import FakeEngine, app_at, assert_error, text_point

CURV = FakeEngine.curv
PLANE = {"form": "plane", "threshold": 0.1}
CONE = {"form": "cone", "eta": 1.5, "min_radius": 0.2}
RULES: dict[str, Entailment] = {"planes": Plane(threshold=0.1), "cones": Cone(eta=1.5, min_radius=0.2), "meru": Cone()}
OF = {"id": "terrier"}
EACH = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("ancestors", {"of": OF}),
        ("descendants", {"of": OF}),
        ("common_ancestors", {"of": [OF]}),
        ("traverse", {"source": OF}),
        ("order", {"first": {"id": "dog"}, "second": OF}),
    ],
)


class Engine(FakeEngine):
    def __init__(self, rule: Entailment):
        super().__init__()
        self.entailment = rule


@pytest.fixture(scope="module")
def clients(tmp_path_factory):
    """Servers of the same points and models that differ in their rule."""
    points = [{"id": name, "embedding": x, "modality": "text"} for name, x in PLACES.items()]
    made = {}
    for name, rule in RULES.items():
        made[name] = TestClient(app_at(tmp_path_factory.mktemp("serve"), Engine(rule)))
        made[name].__enter__()
        assert made[name].put("/collections/default/points", json={"points": points}).status_code == 200
    yield made
    for client in made.values():
        client.__exit__(None, None, None)


def margin(rule: Entailment, general: str, specific: str) -> float:
    x, y = (torch.tensor(PLACES[name], dtype=torch.float64) for name in (general, specific))
    if isinstance(rule, Plane):
        return rule.threshold - float(planes.height(x, y, CURV))
    return float(cones.oxy_angle(x, y, CURV) - rule.eta * cones.half_aperture(x, CURV, rule.min_radius))


def entailed(rule: Entailment, general: str, specific: str) -> bool:
    return general != specific and margin(rule, general, specific) <= 0


def test_the_model_tells_its_rule_and_so_does_a_collection(clients):
    told = {"planes": PLANE, "cones": CONE, "meru": {"form": "cone", "eta": 1.0, "min_radius": 0.1}}
    for name, client in clients.items():
        assert client.get("/model").json()["entailment"] == told[name]
        assert client.get("/collections/default").json()["entailment"] == told[name]


@pytest.mark.parametrize("name", RULES)
def test_the_rule_of_the_model_decides(clients, name):
    client, rule = clients[name], RULES[name]
    for place in PLACES:
        up = post(client, "/hierarchy/ancestors", of={"id": place}, order_by="radius")
        assert sorted(ids(up)) == sorted(x for x in PLACES if entailed(rule, x, place))
        down = post(client, "/hierarchy/descendants", of={"id": place})
        assert sorted(ids(down)) == sorted(x for x in PLACES if entailed(rule, place, x))
        for hit in up["hits"]:
            assert hit["margin"] == pytest.approx(margin(rule, hit["id"], place), abs=1e-6)
        for hit in down["hits"]:
            assert hit["margin"] == pytest.approx(margin(rule, place, hit["id"]), abs=1e-6)
        common = post(client, "/hierarchy/common_ancestors", of=[{"id": place}, {"id": "cat"}])
        assert sorted(ids(common)) == sorted(x for x in PLACES if entailed(rule, x, place) and entailed(rule, x, "cat"))
        for other in set(PLACES) - {place}:
            found = post(client, "/hierarchy/order", first={"id": place}, second={"id": other})
            over, under = margin(rule, place, other), margin(rule, other, place)
            assert found["first_over_second"] == pytest.approx(over, abs=1e-6)
            assert found["second_over_first"] == pytest.approx(under, abs=1e-6)
            held = {"general": over, "specific": under}
            assert found["relation"] == (min(held, key=held.get) if min(over, under) <= 0 else "neither")


def test_the_rules_differ_where_they_should(clients):
    way = {name: post(client, "/hierarchy/traverse", source=OF)["path"] for name, client in clients.items()}
    assert [stop["id"] for stop in way["planes"]] == ["cat", "dog", "animal", "[ROOT]"]  # the cat is near the ray
    assert [stop["id"] for stop in way["meru"]] == ["dog", "animal", "[ROOT]"]
    assert ids(post(clients["planes"], "/hierarchy/ancestors", of=OF)) == ["animal", "dog", "cat"]
    assert ids(post(clients["meru"], "/hierarchy/ancestors", of=OF, order_by="radius")) == ["animal", "dog"]


def test_of_planes_the_angle_is_that_at_the_general_point_and_the_aperture_a_right_one(clients):
    hits = {hit["id"]: hit for hit in post(clients["planes"], "/hierarchy/ancestors", of=OF)["hits"]}
    cat, terrier = (torch.tensor(PLACES[name], dtype=torch.float64) for name in ("cat", "terrier"))
    assert hits["cat"]["angle"] == pytest.approx(float(cones.oxy_angle(cat, terrier, CURV)), abs=1e-6)
    assert hits["cat"]["aperture"] == pytest.approx(math.pi / 2)


@EACH
def test_a_request_may_have_a_rule_of_its_own(clients, path, body):
    """It is answered as by a server whose model has that rule; numbers that are left out are those of MERU."""
    for other, rule in (("planes", PLANE), ("cones", CONE), ("meru", {"form": "cone"})):
        expected = post(clients[other], f"/hierarchy/{path}", **body)
        assert post(clients[other], f"/hierarchy/{path}", **body, rule=None) == expected
        for client in clients.values():
            assert post(client, f"/hierarchy/{path}", **body, rule=rule) == expected


def test_a_point_is_its_own_ancestor_when_asked(clients):
    assert "dog" not in ids(post(clients["planes"], "/hierarchy/ancestors", of={"id": "dog"}, rule={"form": "plane"}))
    own = post(clients["planes"], "/hierarchy/ancestors", of={"id": "dog"}, rule={"form": "plane"}, reflexive=True)
    assert "dog" in ids(own)
    strict = post(clients["planes"], "/hierarchy/ancestors", of={"id": "dog"}, reflexive=True)
    assert "dog" not in ids(strict)  # whose height over itself, 0, is below the threshold


@EACH
def test_a_scale_multiplies_eta(clients, path, body):
    scaled = {"form": "cone", "eta": 1.5 * 0.25, "min_radius": 0.2}
    expected = post(clients["meru"], f"/hierarchy/{path}", **body, rule=scaled)
    assert post(clients["cones"], f"/hierarchy/{path}", **body, aperture_scale=0.25) == expected
    assert post(clients["planes"], f"/hierarchy/{path}", **body, aperture_scale=0.25, rule=CONE) == expected
    assert post(clients["cones"], f"/hierarchy/{path}", **body) != expected or path == "descendants"


@EACH
def test_planes_have_no_width_to_scale(clients, path, body):
    planar = clients["planes"]
    assert post(planar, f"/hierarchy/{path}", **body, aperture_scale=1) == post(planar, f"/hierarchy/{path}", **body)
    refused = planar.post(f"/hierarchy/{path}", json={**body, "aperture_scale": 0.9})
    advice = '{"form": "plane", "threshold": 0.2}'
    assert_error(refused, 422, "invalid_request", "aperture_scale: 0.9 is for cones", "the model", advice)
    refused = clients["meru"].post(f"/hierarchy/{path}", json={**body, "aperture_scale": 2, "rule": {"form": "plane"}})
    assert_error(refused, 422, "invalid_request", "aperture_scale: 2 is for cones", "the rule", '"threshold": 0.1')


def test_without_entailment_there_is_no_rule(clients):
    nearest = {"source": {"id": "car"}, "entailment": False}
    way = post(clients["planes"], "/hierarchy/traverse", **nearest, aperture_scale=0.5)
    assert way["path"][0]["id"] == "car"
    refused = clients["planes"].post("/hierarchy/traverse", json={**nearest, "rule": PLANE})
    assert_error(refused, 422, "invalid_request", "rule: with entailment false")


@EACH
@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("plane", "rule: expected an object of form 'cone', with eta and min_radius, or 'plane', with threshold"),
        (0.2, "rule: expected an object"),
        ([PLANE], "rule: expected an object"),
        ({}, "rule: expected an object"),
        ({"threshold": 0.1}, "rule: expected an object"),
        ({"form": "ball"}, "rule: expected an object"),
        ({"form": ["plane"]}, "rule: expected an object"),
        ({"form": "plane", "eta": 1.0}, "rule.eta: Extra inputs are not permitted"),
        ({"form": "plane", "strict": False}, "rule.strict: Extra inputs are not permitted"),
        ({"form": "cone", "threshold": 0.1}, "rule.threshold: Extra inputs are not permitted"),
        ({"form": "plane", "threshold": "0.1"}, "rule.threshold: Input should be a valid number"),
        ({"form": "plane", "threshold": None}, "rule.threshold: Input should be a valid number"),
        ({"form": "plane", "threshold": 1e300}, "rule.threshold: Input should be less than or equal to 1000000"),
        ({"form": "cone", "eta": 0}, "rule.eta: Input should be greater than 0"),
        ({"form": "cone", "eta": True}, "rule.eta: Input should be a valid number"),
        ({"form": "cone", "min_radius": -0.1}, "rule.min_radius: Input should be greater than 0"),
    ],
)
def test_a_rule_that_is_none_is_refused_by_name(clients, path, body, rule, part):
    assert_error(clients["meru"].post(f"/hierarchy/{path}", json={**body, "rule": rule}), 422, "invalid_request", part)


@pytest.mark.parametrize("threshold", [1e6, -1e6, 40, -40, 1e-300])
def test_thresholds_that_nothing_or_everything_reaches(clients, threshold):
    rule = {"form": "plane", "threshold": threshold}
    for steps in (50, None):
        way = post(clients["meru"], "/hierarchy/traverse", source=OF, rule=rule, steps=steps)["path"]
        assert (way[0]["id"] == "[ROOT]") == (threshold > 1)
    everything = post(clients["meru"], "/hierarchy/ancestors", of={"id": "dog"}, rule=rule, reflexive=True)
    count = len(PLACES) if threshold < 0 else 0 if threshold > 1 else 1
    assert everything["total"] == count


def test_a_rule_of_its_own_changes_nothing_for_the_next(clients):
    before = post(clients["meru"], "/hierarchy/ancestors", of=OF)
    post(clients["meru"], "/hierarchy/ancestors", of=OF, rule=PLANE)
    assert post(clients["meru"], "/hierarchy/ancestors", of=OF) == before


def test_a_collection_of_another_rule_is_refused_by_both_names(tmp_path):
    with TestClient(app_at(tmp_path, Engine(Cone()))) as client:
        client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
    with TestClient(app_at(tmp_path, Engine(Plane(threshold=0.25)))) as client:
        both = ("cones of eta 1 and min_radius 0.1", "half-spaces of threshold 0.25")
        for path, body in (
            ("/hierarchy/ancestors", {"of": "a"}),
            ("/hierarchy/ancestors", {"of": "a", "rule": {"form": "cone"}}),
            ("/hierarchy/common_ancestors", {"of": ["a"]}),
            ("/hierarchy/traverse", {"source": "a"}),
            ("/retrieve", {"query": "a"}),
            ("/embed", {"inputs": [{"id": "a"}]}),
        ):
            assert_error(client.post(path, json=body), 409, "model_mismatch", *both)
        points = {"points": [{"id": "b", "embedding": text_point("b").tolist()}]}
        assert_error(client.put("/collections/default/points", json=points), 409, "model_mismatch", *both)
        assert client.get("/collections/default").json()["entailment"]["form"] == "cone"
        new = client.put("/collections/other/points", json=points)
        assert new.status_code == 200
