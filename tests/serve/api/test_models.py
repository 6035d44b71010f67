"""/v1/models, and what else clients of the OpenAI API send that must not end in a misleading answer."""

import time

import httpx
import openai
import pytest
from fastapi.testclient import TestClient

from serve.api.models import NAMES
from serve.http.keys import new_key
from tests.support.hostile.request import listening
from tests.support.serving import FakeEngine, app_at, assert_error

ID = "tiny/model:v1-0123456789ab"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"), FakeEngine(ID))) as client:
        yield client


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    app = app_at(tmp_path_factory.mktemp("serve"), FakeEngine(ID))
    with listening(app) as port, httpx.Client() as http:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, http_client=http)


def test_the_official_client_lists_the_model_by_all_its_names(official):
    listed = official.models.list()
    assert listed.object == "list"
    assert [model.id for model in listed] == [ID, *NAMES]
    for model in listed:
        assert (model.object, model.owned_by, model.root) == ("model", "hypclip", ID)
        assert abs(model.created - time.time()) < 3600


@pytest.mark.parametrize("name", [ID, *NAMES])
def test_the_official_client_gets_a_model_and_embeds_by_any_of_its_names(official, name):
    model = official.models.retrieve(name)
    assert (model.id, model.object, model.root) == (name, "model", ID)
    assert official.embeddings.create(model=model.id, input="a dog").model == ID


def test_the_schema_is_the_one_of_openai_and_no_more(client):
    body = client.get("/v1/models").json()
    assert body.keys() == {"object", "data"}
    assert [entry.keys() for entry in body["data"]] == [{"id", "object", "created", "owned_by", "root"}] * 3
    assert all(type(entry["created"]) is int for entry in body["data"])
    assert client.get(f"/v1/models/{ID}").json() == body["data"][0]
    assert client.get(f"/v1/models/{ID.replace('/', '%2F')}").json() == body["data"][0]


@pytest.mark.parametrize("name", ["gpt-4", "openai/hypclip", "hypclip/", "tiny", "HYPCLIP", "a\u00e9/b"])
def test_another_model_is_unknown_and_the_message_has_every_name_that_is_known(client, official, name):
    parts = (repr(ID), "'hypclip'", "'default'")
    assert_error(client.get(f"/v1/models/{name}"), 404, "unknown_model", repr(name), *parts)
    assert_error(client.post("/v1/embeddings", json={"model": name, "input": "a"}), 404, "unknown_model", *parts)
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        official.models.retrieve(name)


def test_after_a_reload_the_new_model_is_listed(tmp_path):
    async def load():
        return FakeEngine("second")

    from serve.app import create_app
    from serve.settings import Settings

    app = create_app(Settings(index=tmp_path / "index", create_index=True), FakeEngine("first"), load=load)
    with TestClient(app) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "first"
        assert client.post("/admin/reload").status_code == 200
        assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["second", *NAMES]
        assert_error(client.get("/v1/models/first"), 404, "unknown_model", "'second'")


def test_a_key_of_scope_read_is_asked_for(tmp_path):
    key, sha256 = new_key()
    (tmp_path / "keys").write_text(f"reader:read:{sha256}\n")
    with TestClient(app_at(tmp_path, api_keys_file=tmp_path / "keys")) as client:
        for path in ("/v1/models", "/v1/models/hypclip"):
            assert_error(client.get(path), 401, "unauthorized", "Authorization")
            assert client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert client.head("/v1/models").status_code == 401


def test_the_document_has_both_and_metrics_know_them_by_one_name(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/models", "/v1/models/{model}"} <= paths.keys()
    assert client.app.state.paths.template_of("/v1/models/a/b") == "/v1/models/{model}"
    client.get("/v1/models/a/b")
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("hypclip_requests_total{")]
    assert any("/v1/models/{model}" in line and "404" in line for line in counted)
    assert not any("a/b" in line or "path" in line for line in counted)


# What leads nowhere


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/embeddings/", "/v1/embeddings"),
        ("/v1/models/", "/v1/models"),
        ("/embeddings", "/v1/embeddings"),
        ("/models", "/v1/models"),
        ("/models/hypclip", "/v1/models/hypclip"),
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("//v1/embeddings", "/v1/embeddings"),
        ("/v1/embed", "/embed"),
        ("/v1/healthz", "/healthz"),
        ("/collections/a/", "/collections/a"),
        ("/v1/embeddings/embeddings", "/v1/embeddings"),
        ("/v1/embeddings/models/hypclip", "/v1/models/hypclip"),
        ("/api/v1/embeddings", "/v1/embeddings"),
        ("/openai/deployments/hypclip/embeddings", "/v1/embeddings"),
        ("/api/collections/a/points", "/collections/a/points"),
        ("/a" * 1000 + "/embed", "/embed"),
        ("/nowhere", None),
        ("/collections/a/b/points", None),
        ("/v1/", None),
    ],
)
def test_a_path_nearby_is_named(client, path, meant):
    assert client.app.state.paths.nearby(path) == meant
    if not path.startswith("//"):  # a client would take what follows for a host
        part = "see /docs" if meant is None else f"did you mean {meant}?"
        assert_error(client.post(path, json={}) if path != "/v1/models/" else client.get(path), 404, "not_found", part)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions", "/v1/completions", "/v1/files"])
def test_what_of_openai_is_not_here_says_what_is(client, path):
    assert_error(client.get(path), 404, "not_found", "/v1/embeddings and /v1/models")


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/readyz", "/metrics", "/model", "/openapi.json"])
def test_head_is_get_without_its_body(client, path):
    answer, whole = client.head(path), client.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert client.head("/v1/models/gpt").status_code == 404
    assert client.head("/embed").status_code == 405


@pytest.mark.parametrize("field", ["encoding_format", "dimensions", "user"])
def test_a_field_of_null_is_one_that_is_not_there(client, field):
    body = {"model": "hypclip", "input": ["a dog"]}
    whole, null = (client.post("/v1/embeddings", json=each) for each in (body, {**body, field: None}))
    assert null.status_code == 200
    assert null.json() == whole.json()
