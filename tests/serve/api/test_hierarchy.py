"""The routes of the hierarchy: right answers on points whose order is known, and every wrong request by name."""

from __future__ import annotations

import pytest
import torch
from fastapi.testclient import TestClient

from hypclip.geometry import cones, lorentz
from tests.support.serving import FakeEngine, app_at, assert_error, text_point

CURV, DIM = FakeEngine.curv, FakeEngine.dim


def at(radius: float, angle: float = 0.0) -> list[float]:
    """A point in the first plane."""
    v = torch.zeros(DIM)
    v[0], v[1] = radius * torch.cos(torch.tensor(angle)), radius * torch.sin(torch.tensor(angle))
    return lorentz.exp_map0(v, CURV).tolist()


# Along one ray: animal ⊐ dog ⊐ terrier; cat is another way out, below animal too; car lies on the far side.
PLACES = {
    "animal": at(0.25, 0.03),
    "dog": at(1.0),
    "terrier": at(2.0),
    "cat": at(1.2, 0.15),
    "car": at(1.0, 3.0),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    points = [
        {"id": name, "embedding": x, "modality": "text", "metadata": {"length": len(name)}}
        for name, x in PLACES.items()
    ]
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        assert client.put("/collections/default/points", json={"points": points}).status_code == 200
        yield client


def post(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def ids(answer):
    return [hit["id"] for hit in answer["hits"]]


def test_ancestors_and_descendants(client):
    up = post(client, "/hierarchy/ancestors", of={"id": "terrier"}, order_by="radius")
    assert ids(up) == ["animal", "dog"]
    assert (up["exact"], up["total"]) == (True, 2)
    down = post(client, "/hierarchy/descendants", of={"id": "animal"}, order_by="distance")
    assert ids(down) == ["dog", "cat", "terrier"]
    assert ids(post(client, "/hierarchy/descendants", of={"id": "animal"}, order_by="distance", k=1, offset=1)) == [
        "cat"
    ]


def test_angles_and_margins_are_those_of_the_general_point(client):
    dog = torch.tensor(PLACES["dog"])
    for route, of, found in (("ancestors", "dog", "animal"), ("descendants", "animal", "dog")):
        hit = next(
            h
            for h in post(client, f"/hierarchy/{route}", of={"id": of}, aperture_scale=0.9)["hits"]
            if h["id"] == found
        )
        animal = torch.tensor(PLACES["animal"])
        assert hit["angle"] == pytest.approx(float(cones.oxy_angle(animal, dog, CURV)), abs=1e-6)
        assert hit["aperture"] == pytest.approx(float(cones.half_aperture(animal, CURV)), abs=1e-6)
        assert hit["margin"] == pytest.approx(hit["angle"] - 0.9 * hit["aperture"], abs=1e-9)
        assert hit["distance"] == pytest.approx(float(lorentz.dist(animal, dog, CURV)), rel=1e-6)


def test_reflexive_adds_the_point_itself(client):
    assert "dog" not in ids(post(client, "/hierarchy/ancestors", of={"id": "dog"}))
    assert "dog" in ids(post(client, "/hierarchy/ancestors", of={"id": "dog"}, reflexive=True))


def test_searches_keep_to_radius_modality_and_filter(client):
    assert ids(post(client, "/hierarchy/ancestors", of={"id": "terrier"}, min_radius=0.5)) == ["dog"]
    assert ids(post(client, "/hierarchy/ancestors", of={"id": "terrier"}, max_radius=0.5)) == ["animal"]
    assert ids(post(client, "/hierarchy/ancestors", of={"id": "terrier"}, filter={"length": {"lt": 4}})) == ["dog"]
    assert ids(post(client, "/hierarchy/ancestors", of={"id": "terrier"}, modality="image")) == []


def test_a_narrow_scale_leaves_only_what_lies_on_the_axis(client):
    assert ids(post(client, "/hierarchy/ancestors", of={"id": "terrier"}, aperture_scale=1e-3)) == ["dog"]


def test_the_way_to_the_root_goes_from_specific_to_general(client):
    for steps in (50, None):
        way = post(client, "/hierarchy/traverse", source={"embedding": at(2.5)}, steps=steps)
        assert [stop["id"] for stop in way["path"]] == ["terrier", "dog", "animal", "[ROOT]"]
        assert way["exact"]
        assert [stop["t"] for stop in way["path"]] == sorted(stop["t"] for stop in way["path"])
        assert way["path"][-1]["modality"] is None


def test_without_entailment_the_nearest_counts(client):
    way = post(client, "/hierarchy/traverse", source={"id": "car"}, entailment=False)
    assert way["path"][0]["id"] == "car"
    strict = post(client, "/hierarchy/traverse", source={"id": "car"})
    assert [stop["id"] for stop in strict["path"]] == ["[ROOT]"]


def test_the_way_to_a_target_ends_there(client):
    for steps in (50, None):
        way = post(
            client, "/hierarchy/traverse", source={"id": "terrier"}, target={"id": "cat"}, entailment=False, steps=steps
        )
        assert (way["path"][0]["id"], way["path"][-1]["id"]) == ("terrier", "cat")


def test_common_ancestors_come_most_specific_first(client):
    assert ids(post(client, "/hierarchy/common_ancestors", of=[{"id": "terrier"}, {"id": "cat"}])) == ["animal"]
    both = post(client, "/hierarchy/common_ancestors", of=[{"id": "terrier"}, {"embedding": at(2.4)}])
    assert ids(both) == ["dog", "animal"]
    assert both["total"] == 2


def test_the_mean_lies_between(client):
    middle = post(client, "/hierarchy/mean", inputs=["a", "b"])
    a, b, x = text_point("a"), text_point("b"), torch.tensor(middle["embedding"])
    assert float(lorentz.dist(a, x, CURV)) == pytest.approx(float(lorentz.dist(b, x, CURV)), rel=1e-5)
    heavy = post(client, "/hierarchy/mean", inputs=["a", "b"], weights=[1, 0])["embedding"]
    assert heavy == pytest.approx(a.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [("animal", "dog", "general"), ("dog", "animal", "specific"), ("dog", "car", "neither"), ("dog", "dog", "same")],
)
def test_order(client, first, second, relation):
    found = post(client, "/hierarchy/order", first={"id": first}, second={"id": second})
    assert found["relation"] == relation
    assert (found["first_over_second"] <= 0) == (relation in ("general", "same"))


def test_retrieval_within_a_distance_counts_all(client):
    found = post(client, "/retrieve", query={"id": "dog"}, max_distance=1.01, k=2)
    assert ids(found) == ["dog", "cat"] or ids(found) == ["dog", "terrier"]
    assert found["total"] == 4
    assert post(client, "/retrieve", query={"id": "dog"}, k=2, offset=1)["hits"][0]["id"] != "dog"


@pytest.mark.parametrize(
    ("path", "body", "status", "type", "part"),
    [
        ("ancestors", {"of": "a", "collection": "x"}, 404, "unknown_collection", "'x'"),
        ("ancestors", {"of": {"id": "nobody"}}, 404, "unknown_point", "'nobody'"),
        ("ancestors", {"of": "a", "k": 1001}, 422, "limit_exceeded", "HYPCLIP_MAX_K"),
        ("ancestors", {"of": "a", "offset": 10**6}, 422, "limit_exceeded", "HYPCLIP_MAX_DEPTH"),
        ("ancestors", {"of": "a", "offset": -1}, 422, "invalid_request", "offset"),
        ("ancestors", {"of": "a", "aperture_scale": 0}, 422, "invalid_request", "aperture_scale"),
        ("ancestors", {"of": "a", "order_by": "name"}, 422, "invalid_request", "order_by"),
        ("ancestors", {"of": "a", "filter": {"colour": "red"}}, 422, "unknown_field", "'colour'"),
        ("ancestors", {"of": "a", "filter": {"length": {"above": 1}}}, 422, "invalid_input", "'length'"),
        ("ancestors", {"of": "a", "min_radius": 2, "max_radius": 1}, 422, "invalid_input", "min_radius"),
        ("descendants", {"of": {"embedding": [0.1]}}, 422, "invalid_input", "12 space components"),
        ("traverse", {"source": "a", "steps": 1}, 422, "invalid_request", "steps"),
        ("traverse", {"source": "a", "target": {"id": "nobody"}}, 404, "unknown_point", "'nobody'"),
        ("mean", {"inputs": ["a", "b"], "weights": [1]}, 422, "invalid_input", "one weight per point"),
        ("mean", {"inputs": ["a", "b"], "weights": [1, -1]}, 422, "invalid_input", "0 or more"),
        ("mean", {"inputs": []}, 422, "invalid_request", "inputs"),
        ("order", {"first": "a"}, 422, "invalid_request", "second"),
        ("common_ancestors", {"of": ["a"] * 1000}, 422, "limit_exceeded", "HYPCLIP_MAX_INPUTS"),
    ],
)
def test_refused(client, path, body, status, type, part):
    assert_error(client.post(f"/hierarchy/{path}", json=body), status, type, part)


def test_another_model_is_refused(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
    with TestClient(app_at(tmp_path, FakeEngine("fake-2"))) as client:
        for path, body in (
            ("ancestors", {"of": "a"}),
            ("traverse", {"source": "a"}),
            ("common_ancestors", {"of": ["a"]}),
        ):
            assert_error(client.post(f"/hierarchy/{path}", json=body), 409, "model_mismatch", "fake-1", "fake-2")
