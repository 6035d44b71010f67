"""A server without a model: an index of taxonomies, each in its own space, asked by points, embeddings and the root."""

from __future__ import annotations

import contextlib

import pytest
import torch
from fastapi.testclient import TestClient

from hypclip.geometry.entailment import Cone, Plane
from hypclip.indexing.trees import tree_space, write_tree
from hypclip.search import LocalStore
from hypclip.taxonomy import Taxonomy, load
from hypclip.taxonomy.embedding import place
from serve.app import create_app
from serve.settings import Settings
from tests.support.serving import assert_error, encoded, quadrants

EMOJI, SMALL = "emoji", "small"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees") / "index"
    small = Taxonomy([("dog", "animal"), ("pug", "dog"), ("cat", "animal")])
    plane = Plane(-0.42)  # which gives all ancestors of the emoji back
    with contextlib.closing(LocalStore(folder, create=True)) as store:
        for name, taxonomy, dim, rule in ((EMOJI, load("emoji"), 32, plane), (SMALL, small, 3, Cone(1.0, 0.5))):
            phrases, x = place(taxonomy, dim, 0.7)
            write_tree(store, name, tree_space(f"{name}-tree", x, 1.0, rule), taxonomy, phrases, x)
    with TestClient(create_app(Settings(index=folder, index_only=True), None)) as found:
        yield found


def ids(response):
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


def test_each_collection_is_asked_in_its_own_space_and_by_its_own_rule(client):
    own = {
        each["name"]: (each["dim"], each["entailment"]["form"])
        for each in client.get("/collections").json()["collections"]
    }
    assert own == {EMOJI: (32, "plane"), SMALL: (3, "cone")}
    above = client.post("/hierarchy/ancestors", json={"of": {"id": "pug"}, "collection": SMALL, "k": 9})
    assert set(ids(above)) == {"dog", "animal"}
    kinds = client.post("/hierarchy/ancestors", json={"of": {"id": "a dog"}, "collection": EMOJI, "k": 9})
    assert set(ids(kinds)) == {"an animal", "a mammal"}


def test_points_embeddings_and_the_root_are_items_everywhere(client):
    scope = {"collection": SMALL}
    found = client.post("/embed", json={"inputs": [{"id": "dog"}, {"root": True}], **scope}).json()
    assert found["model"] == "small-tree"
    dog, root = (each["embedding"] for each in found["data"])
    assert root == [0.0, 0.0, 0.0]
    assert ids(client.post("/retrieve", json={"query": {"embedding": dog}, "k": 1, **scope})) == ["dog"]
    assert "dog" in ids(client.post("/hierarchy/descendants", json={"of": {"root": True}, "k": 9, **scope}))
    path = client.post("/hierarchy/traverse", json={"source": {"id": "pug"}, **scope}).json()["path"]
    assert path[-1]["id"] == "[ROOT]"
    mean = client.post("/hierarchy/mean", json={"inputs": [{"id": "dog"}, {"id": "cat"}], **scope}).json()
    assert len(mean["embedding"]) == 3
    order = client.post("/hierarchy/order", json={"first": {"id": "dog"}, "second": {"id": "pug"}, **scope}).json()
    assert order["relation"] == "general"
    both = {"of": [{"id": "dog"}, {"id": "cat"}], "k": 5, **scope}
    assert ids(client.post("/hierarchy/common_ancestors", json=both)) == ["animal"]
    assert client.get(f"/collections/{EMOJI}/map").status_code == 200
    focus = client.post(f"/collections/{EMOJI}/focus", json={"of": {"id": "a dog"}})
    assert focus.status_code == 200


def test_an_embedding_of_another_space_is_refused(client):
    response = client.post("/retrieve", json={"query": {"embedding": [0.1] * 16}, "k": 1, "collection": SMALL})
    assert_error(response, 422, "invalid_input", "has 16 numbers", "3 space components")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/retrieve", {"query": "a dog", "k": 1, "collection": EMOJI}),
        ("/hierarchy/ancestors", {"of": {"text": "a dog"}, "k": 1, "collection": EMOJI}),
        ("/hierarchy/order", {"first": {"id": "dog"}, "second": {"image": encoded(quadrants())}, "collection": SMALL}),
        ("/embed", {"inputs": ["a dog"]}),
        ("/v1/embeddings", {"input": ["a dog"]}),
        ("/classify", {"inputs": [{"id": "dog"}], "labels": ["a dog"], "collection": SMALL}),
        (f"/collections/{EMOJI}/focus", {"of": "a dog"}),
    ],
)
def test_what_needs_a_model_says_so(client, path, body):
    assert_error(client.post(path, json=body), 409, "no_model", "HYPCLIP_INDEX_ONLY", '{"root": true}')


def test_points_are_added_to_collections_that_there_are(client):
    point = {"id": "new", "embedding": [0.0, 0.2, 0.0]}
    assert client.put(f"/collections/{SMALL}/points", json={"points": [point]}).json()["count"] == 5
    assert client.request("DELETE", f"/collections/{SMALL}/points", json={"ids": ["new"]}).json()["count"] == 4
    text = client.put(f"/collections/{SMALL}/points", json={"points": [{"id": "t", "text": "a text"}]})
    assert_error(text, 409, "no_model", "to embed a text")
    other = client.put("/collections/other/points", json={"points": [point]})
    assert_error(other, 409, "no_model", "to make a collection")


def test_the_server_tells_that_it_has_no_model(client):
    assert_error(client.get("/model"), 409, "no_model")
    assert client.get("/v1/models").json()["data"] == []
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert "hypclip_worker_heartbeat_seconds 0.0" in client.get("/metrics").text
    assert_error(client.post("/admin/reload"), 422, "invalid_request", "started without one")
    embedding = client.get("/openapi.json").json()["components"]["schemas"]["EmbeddingItem"]["properties"]["embedding"]
    assert "maxItems" not in embedding
    unknown = client.post("/hierarchy/ancestors", json={"of": {"id": "x"}, "k": 1, "collection": "nowhere"})
    assert_error(unknown, 404, "unknown_collection")


def test_points_of_a_tree_say_what_they_are(client):
    found = client.get(f"/collections/{EMOJI}/points/a%20dog").json()
    metadata = found["metadata"]
    assert metadata["caption"] == metadata["text"] == "a dog"
    assert (metadata["kind"], metadata["kind_of"], metadata["level"]) == ("leaf", "a mammal", 2)
    assert found["modality"] == "text"


def test_the_revision_is_of_the_points():
    x = torch.eye(3)
    space = tree_space("tree", x, 1.0, Plane())
    assert space.same_as(tree_space("tree", x.double(), 1.0, Plane()))
    assert not space.same_as(tree_space("tree", 2 * x, 1.0, Plane()))
