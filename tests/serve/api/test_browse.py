"""The routes that browse: what they answer, what they refuse, and ids that are hard on a path."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from hypclip.geometry import lorentz
from serve.app import create_app
from serve.settings import Settings
from tests.support.serving import FakeEngine, app_at, assert_error, encoded, quadrants, text_point

HOSTILE = [
    "../../x", "a/b", "a%2Fb", "a\nb", "\u202eabc", "x" * 512, "a\0b", "é?#&+ ", "lookup", "x/thumbnail", "0001/image",
    "<script>", "//x", "a/", "/a", "%", "...",
]  # fmt: skip
POINTS = [
    {"id": f"t{i}", "text": f"text {i}", "metadata": {"i": i, "even": i % 2 == 0, "kind": "name"}} for i in range(20)
]


def escaped(point_id):
    return quote(point_id, safe="")


@pytest.fixture(params=["local", "qdrant"])
def client(request, tmp_path):
    settings = Settings(index=tmp_path, create_index=True, max_k=200)
    if request.param == "qdrant":
        settings = Settings(qdrant_url=":memory:", max_k=200)
    with TestClient(create_app(settings, FakeEngine())) as client:
        picture = {"id": "p/image", "image": encoded(quadrants()), "metadata": {"kind": "drawing"}}
        assert client.put("/collections/default/points", json={"points": [*POINTS, picture]}).status_code == 200
        yield client


def ids(response):
    assert response.status_code == 200, response.text
    return [point["id"] for point in response.json()["points"]]


def test_points_come_page_by_page(client):
    for order in ("id", "radius"):
        found, after = [], None
        for _ in range(3):
            asked = {"order": order, "k": 8} | ({} if after is None else {"after": after})
            body = client.get("/collections/default/points", params=asked).json()
            assert body["total"] == 21
            found += body["points"]
            after = body["next"]
        assert after is None
        assert {point["id"] for point in found} == {*(p["id"] for p in POINTS), "p/image"}
        if order == "radius":
            assert [p["radius"] for p in found] == sorted(p["radius"] for p in found)
    point = next(p for p in found if p["id"] == "t3")
    assert point.keys() == {"id", "key", "radius", "modality", "metadata", "thumbnail"}
    radius = float(lorentz.radius(text_point("text 3").double(), FakeEngine.curv))
    assert point["radius"] == pytest.approx(radius)
    assert (point["modality"], point["metadata"]["i"]) == ("text", 3)


def test_a_listing_can_be_restricted(client):
    def listed(**asked):
        return set(ids(client.get("/collections/default/points", params=asked)))

    assert listed(modality="image") == {"p/image"}
    assert listed(filter=json.dumps({"i": {"lt": 3}, "even": True})) == {"t0", "t2"}
    radii = {p["id"]: p["radius"] for p in client.get("/collections/default/points").json()["points"]}
    assert listed(min_radius=1.0, max_radius=1.5) == {i for i, r in radii.items() if 1.0 <= r <= 1.5}


@pytest.mark.parametrize(
    "asked, type, part",
    [
        ({"order": "name"}, "invalid_request", "order"),
        ({"after": "x"}, "invalid_input", "after"),
        ({"k": 0}, "invalid_request", "k"),
        ({"k": 201}, "limit_exceeded", "HYPCLIP_MAX_K"),
        ({"filter": "{"}, "invalid_request", "filter"),
        ({"filter": "[]"}, "invalid_request", "filter"),
        ({"filter": '{"yaer": 1}'}, "unknown_field", "yaer"),
        ({"min_radius": 2, "max_radius": 1}, "invalid_input", "min_radius"),
        ({"min_radius": "nan"}, "invalid_request", "min_radius"),
        ({"limit": 3}, "invalid_request", "limit"),
    ],
)
def test_what_cannot_be_listed_is_refused(client, asked, type, part):
    assert_error(client.get("/collections/default/points", params=asked), 422, type, part)


def test_a_collection_that_is_not_there_is_404(client):
    for method, path, body in (
        ("GET", "points", None), ("GET", "points/a", None), ("GET", "fields", None), ("POST", "points/lookup", ["a"]),
    ):  # fmt: skip
        response = client.request(method, f"/collections/nope/{path}", json=body and {"ids": body})
        assert_error(response, 404, "unknown_collection", "nope")


def test_a_point_by_id(client):
    body = client.get("/collections/default/points/t3").json()
    assert body == next(p for p in client.get("/collections/default/points").json()["points"] if p["id"] == "t3")
    body = client.get("/collections/default/points/t3", params={"vector": "true"}).json()
    assert body["embedding"] == pytest.approx(text_point("text 3").tolist())
    assert_error(client.get("/collections/default/points/nope"), 404, "unknown_point", "nope")
    assert_error(client.get(f"/collections/default/points/{'x' * 513}"), 422, "invalid_request")


def test_hostile_ids_come_back(client):
    points = [{"id": point_id, "text": point_id} for point_id in HOSTILE]
    assert client.put("/collections/default/points", json={"points": points}).status_code == 200
    for point_id in HOSTILE:
        response = client.get(f"/collections/default/points/{escaped(point_id)}")
        assert response.status_code == 200, (point_id, response.text)
        assert response.json()["id"] == point_id
    found = client.post("/collections/default/points/lookup", json={"ids": [*HOSTILE, "absent", HOSTILE[0]]})
    assert ids(found) == HOSTILE


def test_points_by_key(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        client.put("/collections/default/points", json={"points": POINTS})
        keys = {p["id"]: p["key"] for p in client.get("/collections/default/points").json()["points"]}
        path = "/collections/default/points/lookup"
        assert ids(client.post(path, json={"keys": [keys["t5"], 10**9, keys["t2"], keys["t5"]]})) == ["t5", "t2"]


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": ["a"], "keys": [1]}, {"ids": []}, {"ids": ["a"] * 257}, {"keys": [-1]}, {"keys": [1.5]},
     {"keys": [2**60]}, {"ids": [""]}],
)  # fmt: skip
def test_a_lookup_that_names_nothing_or_too_much_is_refused(client, body):
    assert_error(client.post("/collections/default/points/lookup", json=body), 422, "invalid_request")


def test_fields_and_modalities(client):
    body = client.get("/collections/default/fields").json()
    assert body["modalities"] == {"text": 20, "image": 1, "embedding": 0}
    assert body["sampled"] is None
    fields = {field["name"]: field for field in body["fields"]}
    assert fields["kind"] == {
        "name": "kind", "count": 21, "distinct": 2, "min": None, "max": None,
        "values": [{"value": "name", "count": 20}, {"value": "drawing", "count": 1}],
    }  # fmt: skip
    assert (fields["i"]["min"], fields["i"]["max"], len(fields["i"]["values"])) == (0, 19, 20)


def test_collections_are_counted_by_modality(client):
    counts = {"text": 20, "image": 1, "embedding": 0}
    assert client.get("/collections/default").json()["counts"] == counts
    assert client.get("/collections").json()["collections"][0]["counts"] == counts


def test_a_collection_of_another_model_is_browsed_too(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        client.put("/collections/default/points", json={"points": POINTS})
    with TestClient(app_at(tmp_path, FakeEngine("fake-2"))) as client:
        assert len(ids(client.get("/collections/default/points"))) == 20
