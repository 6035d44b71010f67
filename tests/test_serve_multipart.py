"""Pictures as files, in a form to /embed."""

import base64

import pytest
from fastapi.testclient import TestClient
from serve_helpers import app_at, assert_error, encoded, quadrants

FILE = base64.b64decode(encoded(quadrants()))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("form"), max_image_bytes=10_000)) as client:
        yield client


def test_texts_then_files_as_in_json(client):
    files = [("image", ("a.png", FILE)), ("image", ("b.png", FILE))]
    form = client.post("/embed", files=files, data={"text": ["a dog", "a cat"], "geometry": "poincare"}).json()
    inputs = ["a dog", "a cat", {"image": encoded(quadrants())}, {"image": encoded(quadrants())}]
    assert form == client.post("/embed", json={"inputs": inputs, "geometry": "poincare"}).json()
    assert [d["modality"] for d in form["data"]] == ["text", "text", "image", "image"]


def test_an_empty_form_is_refused(client):
    assert_error(client.post("/embed", files=[("other", ("a", b"x"))]), 422, "invalid_request")


def test_a_file_that_is_no_picture(client):
    assert_error(client.post("/embed", files={"image": ("a.png", b"no picture")}), 422, "invalid_image", "PNG")


def test_a_file_over_the_limit(client):
    response = client.post("/embed", files={"image": ("a.png", FILE + bytes(10_000))})
    assert_error(response, 422, "limit_exceeded", "HYPCLIP_MAX_IMAGE_BYTES")


def test_an_unknown_geometry(client):
    response = client.post("/embed", files={"image": ("a.png", FILE)}, data={"geometry": "klein"})
    assert_error(response, 422, "invalid_request", "geometry")


def test_a_form_without_a_boundary(client):
    response = client.post("/embed", content=b"x", headers={"content-type": "multipart/form-data"})
    assert response.status_code in (400, 422)
    assert_error(response, response.status_code, response.json()["error"]["type"])


def test_other_routes_take_no_form(client):
    assert_error(client.post("/retrieve", files={"query": ("a", b"x")}), 415, "unsupported_media_type", "JSON")
