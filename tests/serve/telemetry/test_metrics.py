"""What Prometheus is told: the metrics that were promised, and never more series than there are routes and kinds."""

import re

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from hypclip.search import LocalStore
from hypclip.search.errors import Unavailable
from serve.app import create_app
from serve.http.keys import new_key
from serve.settings import Settings
from serve.telemetry.metrics import Metrics
from tests.support.serving import FakeEngine, app_at, encoded, quadrants

PROMISED = {
    "hypclip_requests": ("counter", {"endpoint", "code"}),
    "hypclip_request_seconds": ("histogram", {"endpoint"}),
    "hypclip_queue_depth": ("gauge", {"modality"}),
    "hypclip_queue_wait_seconds": ("histogram", {"modality"}),
    "hypclip_batch_size": ("histogram", {"modality"}),
    "hypclip_preprocess_seconds": ("histogram", {"modality"}),
    "hypclip_inference_seconds": ("histogram", {"modality"}),
    "hypclip_index_seconds": ("histogram", {"op"}),
    "hypclip_index_points": ("gauge", {"collection"}),
    "hypclip_rejected": ("counter", {"reason"}),
    "hypclip_model_loaded": ("gauge", {"model"}),
    "hypclip_worker_heartbeat_seconds": ("gauge", set()),
}


def families(client):
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def series(client, family):
    """Labels and values, without the buckets of histograms and the times of creation."""
    return {
        tuple(sample.labels[name] for name in sorted(sample.labels)): sample.value
        for sample in families(client)[family].samples
        if not sample.name.endswith(("_bucket", "_created", "_sum"))
    }


@pytest.fixture
def client(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        yield client


def test_every_promised_metric_is_there(client):
    found = families(client)
    for name, (kind, _) in PROMISED.items():
        assert found[name].type == kind, name
        assert found[name].documentation


def test_labels_are_the_promised_ones(client):
    metrics = client.app.state.runtime._current.service.metrics
    metrics.queued("text", 1, 8)
    metrics.batch_sent("text", 1, [0.1])
    metrics.batch_done("text", 0.1)
    metrics.rejected.labels("queue").inc()
    client.put("/collections/default/points", json={"points": [{"id": "a", "image": encoded(quadrants())}]})
    found = families(client)
    for name, (_, labels) in PROMISED.items():
        given = {label for sample in found[name].samples for label in sample.labels} - {"le"}
        assert given == labels, name


def test_every_metric_of_ours_begins_with_our_name_and_says_its_unit(client):
    for name, family in families(client).items():
        assert name.startswith("hypclip_"), name
        if family.type == "histogram" and name != "hypclip_batch_size":
            assert name.endswith("_seconds"), name


def test_requests_are_counted_by_route_and_code(client):
    client.post("/embed", json={"inputs": ["a"]})
    client.post("/embed", json={"inputs": []})
    client.get("/embed")
    client.get("/collections/nothing")
    client.get("/nowhere")
    assert series(client, "hypclip_requests") == {
        ("200", "/embed"): 1,
        ("422", "/embed"): 1,
        ("405", "/embed"): 1,
        ("404", "/collections/{name}"): 1,
        ("404", "other"): 1,
    }
    assert series(client, "hypclip_request_seconds")["/embed",] == 3
    assert ("200", "/metrics") in series(client, "hypclip_requests")


def test_what_is_refused_before_it_has_a_route_is_counted_by_its_route(tmp_path):
    key, sha256 = new_key()
    (tmp_path / "keys").write_text(f"a:read:{sha256}\n")
    with TestClient(app_at(tmp_path, api_keys_file=tmp_path / "keys", max_body_bytes=10)) as client:
        client.post("/embed")
        client.put("/collections/a/points", headers={"x-api-key": key})
        client.post("/retrieve", content=b"x" * 11, headers={"x-api-key": key})
        client.get("/nowhere")
        assert series(client, "hypclip_requests") == {
            ("401", "/embed"): 1,
            ("403", "/collections/{name}/points"): 1,
            ("413", "/retrieve"): 1,
            ("401", "other"): 1,
        }


def total(client):
    return sum(len(family.samples) for family in families(client).values())


def test_a_thousand_paths_methods_ids_and_texts_add_no_series(client):
    def visit(i):
        client.get(f"/nowhere/{i}")
        client.get(f"/collections/c{i}")
        client.get(f"/docs/static/{i}")
        client.request(f"M{i}", "/embed")
        client.put(f"/collections/c{i}/points", json={"points": []})
        client.post(
            "/retrieve", json={"query": f"text {i}", "collection": f"c{i}"}, headers={"x-request-id": f"job-{i}"}
        )
        client.post("/v1/embeddings", json={"input": "a", "model": f"model-{i}"}, headers={"user-agent": f"a/{i}"})

    visit(0)
    total(client)  # which is itself a request
    before = total(client)
    for i in range(1, 150):
        visit(i)
    assert total(client) == before


def test_of_many_collections_some_are_shown(tmp_path):
    with LocalStore(tmp_path / "index", create=True) as store:
        engine = FakeEngine()
        from hypclip.search import Space

        space = Space(engine.model_id, engine.curv, engine.dim, engine.revision)
        for i in range(1_000):
            store.create_collection(f"c{i:03}", space)
    with TestClient(create_app(Settings(index=tmp_path / "index"), FakeEngine())) as client:
        assert len(series(client, "hypclip_index_points")) == 100
        assert total(client) < 1_000


def test_the_points_of_collections_are_those_of_the_moment(client):
    def put(name, *ids):
        points = [{"id": point_id, "text": "a"} for point_id in ids]
        client.put(f"/collections/{name}/points", json={"points": points})

    put("a", "1", "2")
    put("b", "1")
    assert series(client, "hypclip_index_points") == {("a",): 2, ("b",): 1}
    client.request("DELETE", "/collections/a/points", json={"ids": ["1"]})
    assert series(client, "hypclip_index_points") == {("a",): 1, ("b",): 1}


def test_of_models_only_the_one_that_answers_is_loaded(tmp_path):
    count = 0

    async def load():
        nonlocal count
        count += 1
        return FakeEngine(f"fake-{count + 1}")

    settings = Settings(index=tmp_path / "index", create_index=True)
    with TestClient(create_app(settings, FakeEngine(), load=load)) as client:
        assert series(client, "hypclip_model_loaded") == {("fake-1",): 1}
        for _ in range(5):
            client.post("/admin/reload")
        assert series(client, "hypclip_model_loaded") == {("fake-6",): 1}


def test_calls_of_the_store_are_timed_by_what_they_do(client):
    client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
    client.post("/retrieve", json={"query": "a"})
    client.post("/hierarchy/ancestors", json={"of": "a"})
    counts = series(client, "hypclip_index_seconds")
    assert {("create",), ("upsert",), ("space",), ("knn",), ("cone",)} <= counts.keys()
    assert counts["knn",] == 1


def test_pictures_are_timed_while_they_are_prepared(client):
    client.post("/embed", json={"inputs": [{"image": encoded(quadrants())}]})
    assert series(client, "hypclip_preprocess_seconds") == {("image",): 1}


def test_a_store_that_is_down_leaves_the_rest_visible(tmp_path):
    class Down(LocalStore):
        def names(self):
            raise Unavailable("the store is down")

    store = Down(tmp_path / "index", create=True)
    with TestClient(create_app(Settings(index=tmp_path / "index"), FakeEngine(), store)) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/collections").status_code == 503
        assert series(client, "hypclip_requests")["503", "/readyz"] == 1
        assert series(client, "hypclip_index_points") == {}


def test_the_age_of_the_heartbeat_is_that_of_the_engine(tmp_path):
    engine = FakeEngine()
    engine.seconds_since_heartbeat = 2.5
    with TestClient(app_at(tmp_path, engine)) as client:
        assert series(client, "hypclip_worker_heartbeat_seconds") == {(): 2.5}
        engine.seconds_since_heartbeat = float("inf")
        assert series(client, "hypclip_worker_heartbeat_seconds") == {(): float("inf")}


def test_two_servers_in_a_process_count_apart(tmp_path):
    with TestClient(app_at(tmp_path / "a")) as a, TestClient(app_at(tmp_path / "b")) as b:
        a.get("/model")
        assert ("200", "/model") in series(a, "hypclip_requests")
        assert ("200", "/model") not in series(b, "hypclip_requests")


def test_buckets_reach_from_a_millisecond_to_the_longest_request():
    metrics = Metrics()
    metrics.request_seconds.labels("/embed").observe(0.0005)
    metrics.request_seconds.labels("/embed").observe(29)
    text = metrics.render(0, {}).decode()
    buckets = [float(b) for b in re.findall(r'hypclip_request_seconds_bucket\{endpoint="/embed",le="([0-9.]+)"', text)]
    assert (buckets[0], buckets[-1]) == (0.001, 30.0)
    assert Settings.model_fields["request_timeout_s"].default <= buckets[-1]
