import math

import pytest
import torch
from fastapi.testclient import TestClient

from hypclip.geometry import lorentz, poincare
from serve.schemas.search import ConeResponse, RetrieveResponse, TraverseResponse
from tests.support.serving import BLUE, GREEN, RED, WHITE, FakeEngine, app_at, colours, encoded, quadrants, text_point

CURV = FakeEngine.curv
POINTS = {
    "points": [
        {"id": "dog", "text": "a dog", "metadata": {"kind": "animal", "caption": "é"}},
        {"id": "car", "text": "a car", "metadata": {"kind": "thing"}},
        {"id": "picture", "image": encoded(quadrants()), "metadata": {"kind": "thing"}},
        {"id": "numbers", "embedding": [0.1] * 12},
        {"id": "photo", "embedding": [0.2] * 12, "modality": "image"},
    ]
}
STORED = {
    "dog": text_point("a dog"),
    "car": text_point("a car"),
    "picture": colours(RED, GREEN, BLUE, WHITE),
    "numbers": torch.full((12,), 0.1),
    "photo": torch.full((12,), 0.2),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        response = client.put("/collections/default/points", json=POINTS)
        assert response.json() == {"upserted": 5, "count": 5}
        yield client


def post(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_embed_keeps_the_order_of_mixed_inputs(client):
    inputs = [{"id": "picture"}, "a dog", {"image": encoded(quadrants())}, {"embedding": [0.3] * 12}, {"text": "a cat"}]
    body = post(client, "/embed", inputs=inputs)
    expected = [STORED["picture"], text_point("a dog"), STORED["picture"], torch.full((12,), 0.3), text_point("a cat")]
    assert (body["model"], body["curv"], body["geometry"]) == ("fake-1", CURV, "space")
    assert [d["index"] for d in body["data"]] == [0, 1, 2, 3, 4]
    assert [d["modality"] for d in body["data"]] == ["image", "text", "image", "embedding", "text"]
    assert torch.equal(torch.tensor([d["embedding"] for d in body["data"]]), torch.stack(expected))
    for datum, x in zip(body["data"], expected, strict=True):
        assert datum["radius"] == pytest.approx(math.asinh(CURV**0.5 * float(x.norm())) / CURV**0.5)


def test_embed_in_every_geometry(client):
    x = text_point("a dog").double()

    def embedding(geometry):
        body = post(client, "/embed", inputs=["a dog"], geometry=geometry)
        assert body["geometry"] == geometry
        assert body["data"][0]["radius"] == pytest.approx(float(lorentz.radius(x, CURV)))
        return torch.tensor(body["data"][0]["embedding"], dtype=torch.float64)

    assert torch.equal(embedding("space").float(), x.float())
    with_time = embedding("lorentz")
    assert torch.equal(with_time[1:], x)
    assert with_time[0] == pytest.approx(math.sqrt(1 / CURV + float(x.square().sum())))
    tangent = embedding("tangent")
    assert tangent.norm() == pytest.approx(float(lorentz.radius(x, CURV)))
    torch.testing.assert_close(lorentz.exp_map0(tangent, CURV), x)
    ball = embedding("poincare")
    assert ball.norm() < 1 / CURV**0.5
    torch.testing.assert_close(poincare.to_lorentz(ball, CURV), x)


def test_the_same_stored_point_may_be_asked_for_twice(client):
    data = post(client, "/embed", inputs=[{"id": "dog"}, {"id": "car"}, {"id": "dog"}])["data"]
    got = torch.tensor([d["embedding"] for d in data])
    assert torch.equal(got, torch.stack([STORED["dog"], STORED["car"], STORED["dog"]]))


def test_retrieve_returns_the_nearest_first(client):
    query = text_point("a cat")
    body = post(client, "/retrieve", query="a cat", k=3)
    distances = {name: float(lorentz.dist(x.double(), query.double(), CURV)) for name, x in STORED.items()}
    order = sorted(distances, key=distances.__getitem__)[:3]
    assert body["exact"] is True
    assert [h["id"] for h in body["hits"]] == order
    assert [h["distance"] for h in body["hits"]] == pytest.approx([distances[name] for name in order])
    for hit in body["hits"]:
        assert hit["radius"] == pytest.approx(float(lorentz.radius(STORED[hit["id"]].double(), CURV)))


def test_a_hit_carries_its_metadata_and_modality(client):
    (hit,) = post(client, "/retrieve", query={"id": "dog"}, k=1)["hits"]
    radius = pytest.approx(float(lorentz.radius(STORED["dog"].double(), CURV)))
    metadata = {"kind": "animal", "caption": "é"}
    assert hit == {"id": "dog", "distance": 0.0, "radius": radius, "modality": "text", "metadata": metadata}


@pytest.mark.parametrize(
    "query", ["a dog", {"text": "a dog"}, {"embedding": STORED["dog"].tolist()}, {"id": "dog"}], ids=str
)
def test_every_form_of_the_same_query_finds_itself_at_distance_0(client, query):
    hits = post(client, "/retrieve", query=query)["hits"]
    assert (hits[0]["id"], hits[0]["distance"]) == ("dog", 0.0)
    assert len(hits) == 5


def test_an_image_finds_itself(client):
    hits = post(client, "/retrieve", query={"image": "data:image/png;base64," + encoded(quadrants())}, k=1)["hits"]
    assert [(h["id"], h["distance"]) for h in hits] == [("picture", 0.0)]


@pytest.mark.parametrize(
    "selection, ids",
    [
        ({"modality": "image"}, {"picture", "photo"}),
        ({"modality": "text"}, {"dog", "car"}),
        ({"modality": "embedding"}, {"numbers"}),
        ({"filter": {"kind": "thing"}}, {"car", "picture"}),
        ({"filter": {"kind": "thing"}, "modality": "text"}, {"car"}),
        ({"filter": {"kind": "ghost"}}, set()),
        ({"filter": None, "modality": None}, set(STORED)),
    ],
)
def test_retrieve_selects(client, selection, ids):
    assert {h["id"] for h in post(client, "/retrieve", query="a cat", **selection)["hits"]} == ids


def test_classify_by_labels_is_the_softmax_of_the_distances(client):
    body = post(client, "/classify", inputs=["a dog", {"image": encoded(quadrants())}], labels=["dog", "cat", "car"])
    for datum, x in zip(body["data"], [text_point("a dog"), STORED["picture"]], strict=True):
        classes = torch.stack([text_point(f"a photo of a {label}") for label in ("dog", "cat", "car")]).double()
        logits = -FakeEngine.logit_scale * lorentz.dist(x.double().expand_as(classes), classes, CURV)
        expected = dict(zip(("dog", "cat", "car"), torch.softmax(logits, 0).tolist(), strict=True))
        assert datum["scores"] == pytest.approx(expected)
        assert datum["label"] == max(expected, key=expected.__getitem__)
        assert "path" not in datum
    assert [(d["index"], d["modality"]) for d in body["data"]] == [(0, "text"), (1, "image")]


def test_classify_averages_templates_in_the_tangent_space(client):
    templates = ["a photo of a {}", "{}, drawn", "100% {x} {}"]
    body = post(client, "/classify", inputs=["a dog"], labels=["dog", "cat"], templates=templates)
    means = [
        torch.stack([lorentz.log_map0(text_point(t.replace("{}", label)).double(), CURV) for t in templates]).mean(0)
        for label in ("dog", "cat")
    ]
    classes = lorentz.exp_map0(torch.stack(means), CURV)
    x = text_point("a dog").double().expand_as(classes)
    expected = torch.softmax(-FakeEngine.logit_scale * lorentz.dist(x, classes, CURV), 0)
    assert list(body["data"][0]["scores"].values()) == pytest.approx(expected.tolist())


def test_classify_by_a_taxonomy_scores_its_leaves_and_gives_the_path(client):
    taxonomy = [["dog", "animal"], ["cat", "animal"], ["animal", "thing"], ["car", "vehicle"], ["vehicle", "thing"]]
    by_labels = post(client, "/classify", inputs=["a dog", "a car"], labels=["dog", "cat", "car"])["data"]
    by_leaves = post(client, "/classify", inputs=["a dog", "a car"], taxonomy=taxonomy)["data"]
    paths = {"dog": ["thing", "animal", "dog"], "cat": ["thing", "animal", "cat"], "car": ["thing", "vehicle", "car"]}
    for label, leaf in zip(by_labels, by_leaves, strict=True):
        assert leaf["scores"] == pytest.approx(label["scores"])
        assert leaf["path"] == paths[leaf["label"]]


def test_points_are_replaced_listed_and_deleted(client):
    path = "/collections/scratch/points"
    assert client.put(path, json={"points": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}).json()["count"] == 2
    assert client.put(path, json={"points": [{"id": "a", "text": "z"}]}).json() == {"upserted": 1, "count": 2}
    assert post(client, "/retrieve", query="z", k=1, collection="scratch")["hits"][0]["distance"] == 0.0
    cones = {"form": "cone", "eta": 1.0, "min_radius": 0.1}
    info = {"name": "scratch", "count": 2, "model": "fake-1", "revision": "", "curv": CURV, "dim": 12, "index": None}
    info |= {"entailment": cones, "counts": {"text": 2, "image": 0, "embedding": 0}}
    assert client.get("/collections/scratch").json() == info
    assert client.get("/collections").json()["collections"][-1] == info
    assert client.request("DELETE", path, json={"ids": ["a", "nothing"]}).json() == {"deleted": 1, "count": 1}
    assert [h["id"] for h in post(client, "/retrieve", query="z", collection="scratch")["hits"]] == ["b"]


def test_a_thousand_points_and_a_thousand_hits(client):
    points = [{"id": str(i), "embedding": [i / 1000] * 12} for i in range(1200)]
    assert client.put("/collections/many/points", json={"points": points}).json()["count"] == 1200
    hits = post(client, "/retrieve", query={"embedding": [0.0] * 12}, k=1000, collection="many")["hits"]
    assert [h["id"] for h in hits] == [str(i) for i in range(1000)]


def test_a_restart_loses_nothing(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        client.put("/collections/default/points", json=POINTS)
        before = post(client, "/retrieve", query="a cat")
        listed = client.get("/collections").json()
    with TestClient(app_at(tmp_path)) as client:
        assert post(client, "/retrieve", query="a cat") == before
        assert client.get("/collections").json() == listed


def test_model_health_and_readiness(client):
    model = {
        "model": "fake-1",
        "revision": "",
        "geometry": "lorentz",
        "curv": CURV,
        "dim": 12,
        "logit_scale": FakeEngine.logit_scale,
        "entailment": {"form": "cone", "eta": 1.0, "min_radius": 0.1},
    }
    assert client.get("/model").json() == model
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_the_docs_describe_every_route_and_the_error_shape(client):
    assert "swagger" in client.get("/docs").text
    openapi = client.get("/openapi.json").json()
    assert openapi["paths"].keys() == {
        *("/embed", "/retrieve", "/classify", "/collections", "/collections/{name}", "/collections/{name}/points"),
        *("/model", "/healthz", "/readyz", "/metrics", "/admin/reload", "/v1/embeddings"),
        *("/v1/models", "/v1/models/{model}"),
        *("/collections/{name}/map", "/collections/{name}/focus"),
        *(f"/collections/{{name}}/{path}" for path in ("fields", "thumbnails", "points/lookup", "points/{id}")),
        *(f"/collections/{{name}}/points/{{id}}/{path}" for path in ("thumbnail", "image")),
        *(f"/hierarchy/{name}" for name in ("ancestors", "descendants", "common_ancestors")),
        *(f"/hierarchy/{name}" for name in ("traverse", "mean", "order")),
    }
    for operation in (operation for path in openapi["paths"].values() for operation in path.values()):
        assert operation["summary"]
        assert operation["description"]
        assert operation["responses"].keys() - {"304"} == {"200", "4XX", "5XX"}
        for code in ("4XX", "5XX"):
            schema = operation["responses"][code]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
    schemas = openapi["components"]["schemas"]
    assert [name for name, schema in schemas.items() if not schema.get("description")] == ["JsonValue"]
    assert "time component first" in schemas["EmbedRequest"]["properties"]["geometry"]["description"]


def test_the_examples_of_the_docs_work(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    def example(request, field):
        return schemas[request]["properties"][field]["examples"][0]

    inputs = example("EmbedRequest", "inputs")
    assert len(post(client, "/embed", inputs=inputs)["data"]) == len(inputs) > 0
    query, filter = example("RetrieveRequest", "query"), example("RetrieveRequest", "filter")
    point = {"id": example("TextPoint", "id"), "text": query, "metadata": example("TextPoint", "metadata")}
    client.put("/collections/examples/points", json={"points": [point]})
    found = post(client, "/retrieve", query=query, filter=filter, collection="examples")
    assert [hit["id"] for hit in found["hits"]] == [point["id"]]
    assert (found["exact"], found["total"]) == (True, None)
    for name, field in (("ConeRequest", "of"), ("TraverseRequest", "source"), ("CommonRequest", "of")):
        route = {"ConeRequest": "ancestors", "TraverseRequest": "traverse", "CommonRequest": "common_ancestors"}[name]
        assert post(client, f"/hierarchy/{route}", **{field: example(name, field)})["exact"]
    assert post(client, "/hierarchy/mean", inputs=example("MeanRequest", "inputs"))["radius"] > 0
    both = {field: example("OrderRequest", field) for field in ("first", "second")}
    assert post(client, "/hierarchy/order", **both)["relation"] in ("general", "specific", "neither")
    rules = schemas["OrderRequest"]["properties"]["rule"]["examples"]
    assert [rule["form"] for rule in rules] == ["plane", "cone"]
    for rule in rules:
        assert post(client, "/hierarchy/order", **both, rule=rule)["relation"] in ("general", "specific", "neither")
    for name in ("ModelInfo", "CollectionInfo"):  # what is answered can be sent
        for rule in schemas[name]["properties"]["entailment"]["examples"]:
            assert post(client, "/hierarchy/order", **both, rule=rule)


def test_hits_are_written_as_their_schemas_say_whatever_integers_metadata_holds(client):
    metadata = {"n": 10**30, "text": "größer", "list": [1, None, 0.5]}
    point = {"id": "large", "text": "a large number", "metadata": metadata}
    assert client.put("/collections/default/points", json={"points": [point]}).status_code == 200
    for path, body, schema in (
        ("/retrieve", {"query": {"id": "large"}}, RetrieveResponse),
        ("/hierarchy/ancestors", {"of": {"id": "large"}, "reflexive": True}, ConeResponse),
        ("/hierarchy/traverse", {"source": {"id": "large"}, "entailment": False}, TraverseResponse),
    ):
        answer = client.post(path, json=body).json()
        assert schema.model_validate(answer, strict=True).model_dump() == answer
        found = {each["id"]: each["metadata"] for each in answer.get("hits", []) + answer.get("path", [])}
        assert found["large"] == metadata
