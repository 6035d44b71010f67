"""/v1/embeddings: what the official client and Jina's requests get, and what no model of ours can do."""

import base64
import math

import httpx
import numpy as np
import openai
import pytest
import torch
from fastapi.testclient import TestClient

from tests.support.hostile.request import listening
from tests.support.serving import FakeEngine, app_at, assert_error, colours, encoded, quadrants, text_point

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PICTURE = encoded(quadrants())
CORNERS = colours(RED, GREEN, BLUE, WHITE)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        yield client


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    with listening(app_at(tmp_path_factory.mktemp("serve"))) as port, httpx.Client() as http:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, http_client=http)


def post(client, input, **fields):
    response = client.post("/v1/embeddings", json={"model": "hypclip", "input": input, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def embeddings(body):
    return torch.tensor([datum["embedding"] for datum in body["data"]])


# The official client


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
def test_the_official_client_gets_the_points(official, options):
    answer = official.embeddings.create(model="hypclip", input=["a dog", "a cat"], **options)
    got = [datum.embedding for datum in answer.data]
    if options.get("encoding_format") == "base64":
        got = [np.frombuffer(base64.b64decode(text), "<f4").tolist() for text in got]
    assert torch.equal(torch.tensor(got), torch.stack([text_point("a dog"), text_point("a cat")]))
    assert [datum.index for datum in answer.data] == [0, 1]
    assert [datum.object for datum in answer.data] == ["embedding"] * 2
    assert (answer.object, answer.model) == ("list", "fake-1")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)


def test_the_official_client_takes_one_text(official):
    answer = official.embeddings.create(model="fake-1", input="a dog", user="someone", dimensions=FakeEngine.dim)
    assert torch.equal(torch.tensor(answer.data[0].embedding), text_point("a dog"))


@pytest.mark.parametrize(
    ("error", "request_", "part"),
    [
        (openai.NotFoundError, {"model": "text-embedding-3-small", "input": "a"}, "'fake-1'"),
        (openai.UnprocessableEntityError, {"model": "hypclip", "input": [1, 2, 3]}, "token"),
        (openai.UnprocessableEntityError, {"model": "hypclip", "input": [[1], [2]]}, "token"),
        (openai.UnprocessableEntityError, {"model": "hypclip", "input": "a", "dimensions": 5}, "dimensions"),
        (openai.UnprocessableEntityError, {"model": "hypclip", "input": ""}, "empty"),
        (openai.UnprocessableEntityError, {"model": "hypclip", "input": ["a"] * 257}, "HYPCLIP_MAX_INPUTS"),
    ],
)
def test_the_official_client_raises_its_own_errors_with_our_message(official, error, request_, part):
    with pytest.raises(error, match=part) as raised:
        official.embeddings.create(**request_)
    assert raised.value.body["request_id"] == raised.value.response.headers["x-request-id"]


# Forms of the input


@pytest.mark.parametrize(
    ("input", "expected"),
    [
        ("a dog", [text_point("a dog")]),
        (["a dog"], [text_point("a dog")]),
        ({"text": "a dog"}, [text_point("a dog")]),
        ({"image": PICTURE}, [CORNERS]),
        ([{"text": "a"}, {"image": PICTURE}, "b"], [text_point("a"), CORNERS, text_point("b")]),
        (["a", "a"], [text_point("a"), text_point("a")]),
    ],
    ids=["text", "list", "item", "image", "mixed", "twice"],
)
def test_texts_and_pictures_in_every_form(client, input, expected):
    assert torch.equal(embeddings(post(client, input)), torch.stack(expected))


@pytest.mark.parametrize("input", [PICTURE, f"data:image/png;base64,{PICTURE}", [PICTURE, PICTURE]], ids=len)
def test_with_modality_image_strings_are_pictures(client, input):
    body = post(client, input, modality="image")
    assert all(torch.equal(row, CORNERS) for row in embeddings(body))
    assert body["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_with_modality_image_texts_can_still_be_told(client):
    body = post(client, [PICTURE, {"text": "a dog"}], modality="image")
    assert torch.equal(embeddings(body), torch.stack([CORNERS, text_point("a dog")]))


def test_a_picture_longer_than_a_text_may_be(client):
    large = encoded(quadrants((400, 300)), "BMP")
    assert len(large) > 100_000
    assert torch.equal(embeddings(post(client, large, modality="image"))[0], CORNERS)


def test_tokens_are_those_of_all_texts(client):
    body = post(client, ["a dog", {"text": "one two three"}, {"image": PICTURE}])
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


# The form of the answer


def test_the_answer_is_the_one_of_embed(client):
    inputs = ["a dog", {"image": PICTURE}]
    for geometry in ("space", "lorentz", "tangent", "poincare"):
        plain = client.post("/embed", json={"inputs": inputs, "geometry": geometry}).json()
        ours = post(client, inputs, geometry=geometry)
        assert [datum["embedding"] for datum in ours["data"]] == [datum["embedding"] for datum in plain["data"]]
        assert [datum["radius"] for datum in ours["data"]] == [datum["radius"] for datum in plain["data"]]
        assert (ours["curv"], ours["geometry"]) == (plain["curv"], geometry)
    assert ours["curv"] == FakeEngine.curv


@pytest.mark.parametrize("field", ["encoding_format", "embedding_type"])
@pytest.mark.parametrize("geometry", ["space", "lorentz"])
def test_base64_is_little_endian_float32(client, field, geometry):
    numbers = post(client, ["a dog"], geometry=geometry)["data"][0]["embedding"]
    packed = post(client, ["a dog"], geometry=geometry, **{field: "base64"})["data"][0]["embedding"]
    raw = base64.b64decode(packed, validate=True)
    assert len(raw) == 4 * len(numbers)
    assert np.frombuffer(raw, "<f4").tolist() == np.float32(numbers).tolist()


@pytest.mark.parametrize("name", ["hypclip", "default", "fake-1"])
def test_the_model_has_three_names(client, name):
    assert post(client, "a", model=name)["model"] == "fake-1"


def test_fields_that_others_know_are_passed_over(client):
    fields = {"dimensions": 12, "normalized": False, "truncate": True, "task": "retrieval", "user": "x"}
    assert torch.equal(embeddings(post(client, ["a"], **fields))[0], text_point("a"))


def test_radius_is_the_distance_from_the_origin(client):
    (datum,) = post(client, ["a dog"])["data"]
    norm = float(text_point("a dog").norm())
    assert datum["radius"] == pytest.approx(math.asinh(FakeEngine.curv**0.5 * norm) / FakeEngine.curv**0.5)


# Refusals

REQUEST, LIMIT, IMAGE = "invalid_request", "limit_exceeded", "invalid_image"
REFUSED = {
    "token ids": ({"input": [1, 2]}, 422, REQUEST, "input: token ids are not taken"),
    "token ids twice": ({"input": [[1], [2]]}, 422, REQUEST, "input: token ids are not taken"),
    "ids and texts": ({"input": [1, "a"]}, 422, REQUEST, "input.0: expected a string"),
    "texts in lists": ({"input": [["a"], ["b"]]}, 422, REQUEST, "input.0: expected a string"),
    "an empty list": ({"input": [[]]}, 422, REQUEST, "input.0: expected a string"),
    "nothing": ({"input": []}, 422, REQUEST, "input: List should have at least 1"),
    "null": ({"input": None}, 422, REQUEST, "input"),
    "no input": ({}, 422, REQUEST, "input: Field required"),
    "blank": ({"input": ["a", " "]}, 422, REQUEST, "input.1: the string is empty"),
    "text and image": ({"input": [{"text": "a", "image": PICTURE}]}, 422, REQUEST, "exactly one of text, image"),
    "an embedding": ({"input": [{"embedding": [0.0] * 12}]}, 422, REQUEST, "exactly one of text, image"),
    "a stored point": ({"input": [{"id": "a"}]}, 422, REQUEST, "exactly one of text, image"),
    "a text as a picture": ({"input": "a dog!", "modality": "image"}, 422, IMAGE, "base64"),
    "a URL": ({"input": [{"image": "https://a.example/b.png"}]}, 422, IMAGE, "HYPCLIP_IMAGE_URL_HOSTS"),
    "a long text": ({"input": "x" * 9_000}, 422, LIMIT, "9,000", "HYPCLIP_MAX_TEXT_CHARS"),
    "many": ({"input": ["a"] * 257}, 422, LIMIT, "257", "256", "HYPCLIP_MAX_INPUTS"),
    "unknown model": ({"input": "a", "model": "gpt"}, 404, "unknown_model", "'gpt'", "'fake-1'"),
    "fewer dimensions": ({"input": "a", "dimensions": 5}, 422, REQUEST, "dimensions: this model has 12", "to 5"),
    "dimensions as text": ({"input": "a", "dimensions": "12"}, 422, REQUEST, "dimensions: "),
    "normalized": ({"input": "a", "normalized": True}, 422, REQUEST, "normalized: the length of a point"),
    "another encoding": ({"input": "a", "encoding_format": "int8"}, 422, REQUEST, "encoding_format: "),
    "binary": ({"input": "a", "embedding_type": "binary"}, 422, REQUEST, "embedding_type: "),
    "audio": ({"input": "a", "modality": "audio"}, 422, REQUEST, "modality: "),
    "cosine": ({"input": "a", "geometry": "cosine"}, 422, REQUEST, "geometry: "),
    "model no string": ({"input": "a", "model": 3}, 422, REQUEST, "model: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, case):
    body, status, type, *parts = REFUSED[case]
    assert_error(client.post("/v1/embeddings", json=body), status, type, *parts)
