"""The routes of maps: every point once, at its true radius; a focus that agrees with the routes of the hierarchy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from hypclip.geometry import cones, lorentz
from hypclip.search import LocalStore, QdrantStore
from hypclip.search.qdrant.codec import point_uuid
from serve import explore
from serve.app import create_app
from serve.http.keys import new_key
from serve.settings import Settings
from tests.support.columns import parsed
from tests.support.search import crowd
from tests.support.serving import FakeEngine, app_at, assert_error, text_point

CURV, DIM = FakeEngine.curv, FakeEngine.dim
MODALITIES = ("text", "image", "embedding")
PLANE = {"form": "plane", "threshold": 0.05}


def crowded() -> np.ndarray:
    """Points that are hard to tell apart, around the first of them, none further out than a server takes."""
    return crowd(3, DIM, CURV, 1.5, n=60).points


def put(client, vectors, name="default", start=0):
    points = [
        {"id": f"p{i + start:04}", "embedding": x, "modality": MODALITIES[i % 3]}
        for i, x in enumerate(vectors.tolist())
    ]
    response = client.put(f"/collections/{name}/points", json={"points": points})
    assert response.status_code == 200, response.text


def opened(kind, path):
    return LocalStore(path, create=True) if kind == "local" else QdrantStore.connect(":memory:")


@pytest.fixture(scope="module", params=["local", "qdrant"])
def store(request, tmp_path_factory):
    return opened(request.param, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def client(store, tmp_path_factory):
    with TestClient(create_app(Settings(index=tmp_path_factory.mktemp("serve")), FakeEngine(), store)) as client:
        put(client, crowded())
        yield client


@pytest.fixture(scope="module")
def keys(client, store):
    """The key of every point by its id."""
    if isinstance(store, LocalStore):
        ids = [f"p{i:04}" for i in range(len(crowded()))]
        return {row.id: row.key for row in store._database.by_id(1, ids).values()}
    numbered = store._reader.read("default")
    by_uuid = dict(zip(numbered.uuids, numbered.keys.tolist(), strict=True))
    return {f"p{i:04}": by_uuid[point_uuid(f"p{i:04}")] for i in range(len(crowded()))}


def focused(client, **body):
    response = client.post("/collections/default/focus", json=body)
    assert response.status_code == 200, response.text
    return parsed(response.content)


def test_a_map_has_every_point_once_at_its_true_radius(client):
    response = client.get("/collections/default/map")
    assert response.headers["content-type"] == "application/octet-stream"
    header, columns = parsed(response.content)
    x = torch.from_numpy(crowded())
    radii = lorentz.radius(x.double(), CURV).float().numpy()
    assert header["count"] == header["shown"] == len(x)
    assert not header["sampled"]
    assert (np.diff(columns["key"].astype(np.int64)) > 0).all()
    assert np.sort(columns["radius"]).tolist() == np.sort(radii).tolist()
    assert (columns["angle"] >= 0).all()
    assert (columns["angle"] < 2 * np.pi).all()
    assert header["max_radius"] == radii.max()
    assert header["quantiles"][0] == radii.min()
    assert header["quantiles"][-1] == radii.max()
    assert len(header["quantiles"]) == 33
    assert header["rings"] == sorted(header["rings"])
    assert 3 <= len(header["rings"]) <= 7
    counts = np.bincount(columns["modality"], minlength=3).tolist()
    assert header["counts"] == dict(zip(header["modalities"], counts, strict=True))
    assert (header["model"], header["curv"], header["dim"], header["layout"]) == ("fake-1", CURV, DIM, 1)
    assert header["entailment"] == {"form": "cone", "eta": 1.0, "min_radius": 0.1}


def test_the_map_that_a_client_has_is_not_sent_again(client):
    first = client.get("/collections/default/map")
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    assert tag == f'"{parsed(first.content)[0]["version"]}"'
    for known in (tag, f'"other", W/{tag}', "*"):
        again = client.get("/collections/default/map", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/collections/default/map", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("of", [{"id": "p0000"}, {"id": "p0007"}, "a text", {"root": True}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reflexive": True},
        {"aperture_scale": 0.6},
        {"aperture_scale": 1.7, "reflexive": True},
        {"rule": PLANE},
        {"rule": {"form": "plane"}, "reflexive": True},
        {"rule": {"form": "cone", "eta": 1.2, "min_radius": 0.3}},
    ],
    ids=str,
)
def test_flags_and_margins_are_those_of_the_hierarchy(client, keys, of, options):
    header, columns = focused(client, of=of, **options)
    for side, flag, column in (("ancestors", 1, "above"), ("descendants", 2, "below")):
        hits = client.post(f"/hierarchy/{side}", json={"of": of, "k": 1000, **options}).json()["hits"]
        margins = dict(zip(columns["key"].tolist(), columns[column].tolist(), strict=True))
        assert {keys[hit["id"]] for hit in hits} == set(columns["key"][columns["flags"] & flag > 0].tolist())
        assert header["counts"][side] == len(hits)
        for hit in hits:
            assert margins[keys[hit["id"]]] == np.float32(hit["margin"])
        outside = np.sort(columns[column][(columns["flags"] & (flag | 4)) == 0])
        assert header["near_misses"][column] == (outside[min(24, len(outside)) - 1] if len(outside) else None)


def test_a_focus_is_exact_in_the_plane_with_the_root(client, keys):
    header, columns = focused(client, of={"id": "p0007"})
    x, all_ = torch.from_numpy(crowded()[7]).double(), torch.from_numpy(crowded()).double()
    rows = np.searchsorted(columns["key"], [keys[f"p{i:04}"] for i in range(len(all_))])
    radius, angle = (columns[name][rows].astype(np.float64) for name in ("radius", "angle"))
    assert (np.abs(columns["angle"]) <= np.float32(np.pi)).all()
    sqrt_c, here = math.sqrt(CURV), header["of"]["radius"]
    assert here == pytest.approx(float(lorentz.radius(x, CURV)), rel=1e-12)
    half = np.sinh(sqrt_c * (radius - here) / 2) ** 2
    half += np.sinh(sqrt_c * radius) * np.sinh(sqrt_c * here) * np.sin(angle / 2) ** 2
    true = lorentz.dist(all_, x.expand_as(all_), CURV).numpy()
    assert 2 / sqrt_c * np.arcsinh(np.sqrt(half)) == pytest.approx(true, rel=1e-5, abs=1e-3)
    assert header["half_aperture"] == pytest.approx(float(cones.half_aperture(x, CURV)))
    itself = (all_ == x).all(1).numpy()
    assert ((columns["flags"][rows] & 4 > 0) == itself).all()


def test_points_turn_the_short_way_from_the_map_to_the_focus(client):
    _, drawn = parsed(client.get("/collections/default/map").content)
    header, seen = focused(client, of={"id": "p0007"})
    assert (drawn["key"] == seen["key"]).all()
    turn = np.remainder(drawn["angle"] - np.float32(header["of"]["angle"]), np.float32(2 * np.pi))
    away = (turn > 1e-3) & (turn < 2 * np.pi - 1e-3) & (np.abs(turn - np.pi) > 1e-3) & (seen["angle"] != 0)
    assert away.sum() > 100
    assert ((seen["angle"] > 0) == (turn < np.pi))[away].all()
    at = np.flatnonzero(seen["flags"] & 4)
    assert drawn["angle"][at] == pytest.approx(header["of"]["angle"])


def test_with_a_target_distances_from_both_are_true(client, keys):
    header, columns = focused(client, of="a text", target={"id": "p0000"})
    x, aim = text_point("a text").double(), torch.from_numpy(crowded()[0]).double()
    between = float(lorentz.dist(x, aim, CURV))
    assert header["target"] == {
        "radius": pytest.approx(float(lorentz.radius(aim, CURV))),
        "distance": pytest.approx(between),
    }
    assert header["root"]["radius"] == pytest.approx(header["of"]["radius"])
    all_ = torch.from_numpy(crowded()).double()
    rows = np.searchsorted(columns["key"], [keys[f"p{i:04}"] for i in range(len(all_))])
    radius, angle = (columns[name][rows].astype(np.float64) for name in ("radius", "angle"))
    assert radius == pytest.approx(lorentz.dist(all_, x.expand_as(all_), CURV).numpy(), rel=1e-5)
    sqrt_c = math.sqrt(CURV)
    half = np.sinh(sqrt_c * (radius - between) / 2) ** 2
    half += np.sinh(sqrt_c * radius) * np.sinh(sqrt_c * between) * np.sin(angle / 2) ** 2
    true = lorentz.dist(all_, aim.expand_as(all_), CURV).numpy()
    assert 2 / sqrt_c * np.arcsinh(np.sqrt(half)) == pytest.approx(true, rel=1e-4, abs=5e-3)


def test_the_root_is_an_item_everywhere(client):
    header, columns = focused(client, of={"root": True})
    assert header["of"]["radius"] == 0
    assert (columns["angle"] == 0).all()
    assert client.post("/embed", json={"inputs": [{"root": True}]}).json()["data"][0]["radius"] == 0
    near = client.post("/retrieve", json={"query": {"root": True}, "k": 1}).json()["hits"][0]
    assert near["distance"] == near["radius"] == 0
    order = client.post("/hierarchy/order", json={"first": {"root": True}, "second": {"id": "p0007"}}).json()
    assert order["relation"] == "general"
    for wrong in ({"root": False}, {"root": 1}, {"root": True, "id": "p0000"}):
        assert_error(client.post("/retrieve", json={"query": wrong}), 422, "invalid_request", "query")


def test_a_target_in_the_same_place_leaves_the_plane_with_the_root(client):
    header, columns = focused(client, of={"id": "p0007"}, target={"id": "p0007"})
    alone, without = focused(client, of={"id": "p0007"})
    assert header == alone
    assert all((columns[name] == without[name]).all() for name in columns)


def test_what_cannot_be_drawn_is_refused(client):
    assert_error(client.get("/collections/nothing/map"), 404, "unknown_collection", "nothing")
    assert_error(client.post("/collections/nothing/focus", json={"of": "a"}), 404, "unknown_collection", "nothing")
    assert_error(client.post("/collections/default/focus", json={"of": {"id": "nobody"}}), 404, "unknown_point")
    scaled = {"of": "a", "rule": PLANE, "aperture_scale": 2}
    assert_error(client.post("/collections/default/focus", json=scaled), 422, "invalid_request", "threshold")


@pytest.mark.parametrize("kind", ["local", "qdrant"])
def test_nothing_moves_but_what_was_written(kind, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32)
    with TestClient(create_app(Settings(index=tmp_path), FakeEngine(), opened(kind, tmp_path / "store"))) as client:
        put(client, x)
        first = client.get("/collections/default/map")
        before = parsed(first.content)[1]
        put(client, x[:1] + 1, start=500)
        put(client, x[:1] + 2)  # in place of the first
        response = client.get("/collections/default/map", headers={"If-None-Match": first.headers["etag"]})
        assert response.status_code == 200
        after = parsed(response.content)[1]
        assert len(after["key"]) == 301
        there = np.isin(before["key"], after["key"])
        assert there.sum() >= 299
        for name, column in before.items():
            same = column[there] == after[name][np.isin(after["key"], before["key"])]
            assert np.count_nonzero(~same) <= 1, name
        assert client.request("DELETE", "/collections/default/points", json={"ids": ["p0500"]}).json()["deleted"] == 1
        assert len(parsed(client.get("/collections/default/map").content)[1]["key"]) == 300


def test_after_a_restart_the_map_is_the_same_to_the_last_byte(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        put(client, np.random.default_rng(0).normal(size=(300, DIM)).astype(np.float32))
        first = client.get("/collections/default/map")
    with TestClient(app_at(tmp_path)) as client:
        tag = {"If-None-Match": first.headers["etag"]}
        assert client.get("/collections/default/map", headers=tag).status_code == 304
        assert client.get("/collections/default/map").content == first.content


def test_a_collection_is_laid_out_anew_on_request_and_after_fourfold_growth(tmp_path):
    x = np.random.default_rng(0).normal(size=(400, DIM)).astype(np.float32)
    with TestClient(app_at(tmp_path)) as client:
        put(client, x[:50])
        tag = client.get("/collections/default/map").headers["etag"]
        assert client.put("/collections/default/map").json() == {"layout": 2, "built_at": 50}
        again = client.get("/collections/default/map", headers={"If-None-Match": tag})
        assert again.status_code == 200
        assert parsed(again.content)[0]["layout"] == 2
        put(client, x[50:199], start=50)
        assert parsed(client.get("/collections/default/map").content)[0]["layout"] == 2
        put(client, x[199:200], start=199)
        assert parsed(client.get("/collections/default/map").content)[0]["layout"] == 3


def test_an_empty_collection_has_an_empty_map(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        put(client, np.ones((1, DIM), np.float32))
        client.request("DELETE", "/collections/default/points", json={"ids": ["p0000"]})
        header, columns = parsed(client.get("/collections/default/map").content)
        assert (header["count"], header["max_radius"], header["rings"]) == (0, 0, [])
        assert all(len(column) == 0 for column in columns.values())
        assert len(focused(client, of="a")[1]["key"]) == 0


def test_a_large_collection_is_sampled_over_all_radii(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "MOST_SHOWN", 50)
    x = np.random.default_rng(0).normal(size=(400, DIM)).astype(np.float32)
    with TestClient(app_at(tmp_path)) as client:
        put(client, x)
        header, columns = parsed(client.get("/collections/default/map").content)
    assert (header["count"], header["shown"], header["sampled"]) == (400, 50, True)
    assert (np.diff(columns["key"].astype(np.int64)) > 0).all()
    radii = np.sort(lorentz.radius(torch.from_numpy(x).double(), CURV).numpy())
    ranks = np.searchsorted(radii, np.sort(columns["radius"]).astype(np.float64) + 1e-6)
    assert (np.diff(ranks) <= 9).all()


def test_a_map_of_another_model_is_drawn_and_its_focus_refused(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        put(client, crowded())
    with TestClient(app_at(tmp_path, FakeEngine("fake-2"))) as client:
        assert parsed(client.get("/collections/default/map").content)[0]["model"] == "fake-1"
        assert_error(client.post("/collections/default/focus", json={"of": "a"}), 409, "model_mismatch")


def test_reading_is_enough_for_a_map_and_writing_is_needed_to_lay_it_out(tmp_path):
    key, sha256 = new_key()
    (tmp_path / "keys").write_text(f"reader:read:{sha256}\n")
    with TestClient(app_at(tmp_path, api_keys_file=tmp_path / "keys"), headers={"x-api-key": key}) as client:
        assert_error(client.get("/collections/default/map"), 404, "unknown_collection")
        assert_error(client.post("/collections/default/focus", json={"of": "a"}), 404, "unknown_collection")
        assert_error(client.put("/collections/default/map"), 403, "forbidden")
