"""/v1/embeddings, by the client it is for."""

import base64

import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient
from serve_helpers import FakeEngine, app_at, assert_error, encoded, quadrants, text_point

PICTURE = encoded(quadrants())


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("openai"))) as client:
        yield client


def create(http, **fields):
    """Ask as the official client does: its request, handed to the app in place of a connection."""
    import httpx

    def answer(request):
        response = http.request(
            request.method, request.url.path, content=request.read(), headers={"content-type": "application/json"}
        )
        return httpx.Response(response.status_code, content=response.content, headers=dict(response.headers))

    with openai.OpenAI(
        base_url="http://testserver/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    ) as client:
        return client.embeddings.create(**{"model": "hypclip", **fields})


@pytest.mark.parametrize("format", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_the_official_client_gets_the_embeddings(http, format):
    answer = create(http, input=["a dog", "a cat"], **format)
    assert (answer.object, answer.model, [d.index for d in answer.data]) == ("list", "fake-1", [0, 1])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)
    for data, text in zip(answer.data, ["a dog", "a cat"], strict=True):
        vector = data.embedding
        if format == {"encoding_format": "base64"}:
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        np.testing.assert_array_equal(np.asarray(vector, np.float32), text_point(text).numpy())


def post(http, **fields):
    return http.post("/v1/embeddings", json=fields)


def test_the_same_points_radii_and_curvature_as_embed(http):
    inputs = ["a dog", {"text": "a cat"}, {"image": PICTURE}]
    ours = http.post("/embed", json={"inputs": inputs, "geometry": "tangent"}).json()
    theirs = post(http, input=inputs, geometry="tangent").json()
    assert theirs["curv"] == ours["curv"] == FakeEngine.curv
    for field in ("embedding", "radius"):
        assert [d[field] for d in theirs["data"]] == [d[field] for d in ours["data"]]


def test_strings_may_be_pictures(http):
    by_modality = post(http, input=[PICTURE], modality="image").json()["data"]
    assert by_modality == post(http, input=[{"image": PICTURE}]).json()["data"]
    assert post(http, input={"text": "a dog"}).json()["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


@pytest.mark.parametrize("name", ["fake-1", "hypclip", "default"])
def test_the_model_by_its_names(http, name):
    assert post(http, model=name, input="a").json()["model"] == "fake-1"


@pytest.mark.parametrize(
    ("fields", "status", "type", "part"),
    [
        ({"input": "a", "model": "gpt"}, 404, "unknown_model", "'fake-1'"),
        ({"input": [1, 2]}, 422, "invalid_request", "token"),
        ({"input": [[1, 2]]}, 422, "invalid_request", "token"),
        ({"input": []}, 422, "invalid_request", "input"),
        ({"input": [""]}, 422, "invalid_request", "input"),
        ({"input": [{"id": "x"}]}, 422, "invalid_request", "exactly one of text, image"),
        ({"input": "a", "dimensions": 3}, 422, "invalid_request", "12"),
        ({"input": "a", "normalized": True}, 422, "invalid_request", "normalized"),
        ({"input": ["a"] * 257}, 422, "limit_exceeded", "HYPCLIP_MAX_INPUTS"),
        ({}, 422, "invalid_request", "input"),
    ],
)
def test_what_is_refused(http, fields, status, type, part):
    assert_error(post(http, **fields), status, type, part)


def test_dimensions_of_the_model_are_fine(http):
    assert post(http, input="a", dimensions=FakeEngine.dim, user="me").status_code == 200
