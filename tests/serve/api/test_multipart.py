"""/embed with a form: texts, then files, as curl -F and browsers send them."""

import base64
import tempfile

import pytest
import torch
from fastapi.testclient import TestClient

from tests.support.hostile.request import form
from tests.support.serving import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    app_at,
    assert_error,
    colours,
    encoded,
    png_header,
    quadrants,
    text_point,
)

PNG = base64.b64decode(encoded(quadrants()))
OTHER = base64.b64decode(encoded(quadrants(corners=(WHITE, BLUE, GREEN, RED)), "GIF"))
CORNERS, OTHER_CORNERS = colours(RED, GREEN, BLUE, WHITE), colours(WHITE, BLUE, GREEN, RED)
REQUEST, LIMIT, IMAGE = "invalid_request", "limit_exceeded", "invalid_image"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        yield client


def post(client, *parts, **options):
    body, content_type = form(list(parts))
    return client.post("/embed", content=body, headers={"content-type": options.get("content_type", content_type)})


def text(value, name="text"):
    return name, None, value.encode() if isinstance(value, str) else value


def file(data=PNG, name="image", filename="a.png"):
    return name, filename, data


def test_texts_come_first_then_files_each_in_their_order(client):
    response = post(client, file(), text("a dog"), file(OTHER, filename="b.gif"), text("a cat"))
    body = response.json()
    assert (body["model"], body["geometry"]) == ("fake-1", "space")
    assert [datum["index"] for datum in body["data"]] == [0, 1, 2, 3]
    assert [datum["modality"] for datum in body["data"]] == ["text", "text", "image", "image"]
    got = torch.tensor([datum["embedding"] for datum in body["data"]])
    assert torch.equal(got, torch.stack([text_point("a dog"), text_point("a cat"), CORNERS, OTHER_CORNERS]))


def test_it_is_the_answer_to_the_same_as_json(client):
    inputs = ["a dog", {"image": base64.b64encode(PNG).decode()}]
    for geometry in ("space", "lorentz", "tangent", "poincare"):
        as_json = client.post("/embed", json={"inputs": inputs, "geometry": geometry}).json()
        assert post(client, text("a dog"), file(), text(geometry, "geometry")).json() == as_json


@pytest.mark.parametrize("parts", [[text("a")], [file()]], ids=["texts", "files"])
def test_one_kind_is_enough(client, parts):
    assert len(post(client, *parts).json()["data"]) == 1


@pytest.mark.parametrize("value", ["é", "🐟 " * 10, "a\r\nb", "--frontier", 'quoted "text"; name=b', "{}", "null"])
def test_texts_arrive_as_they_were(client, value):
    (datum,) = post(client, text(value)).json()["data"]
    assert torch.equal(torch.tensor(datum["embedding"]), text_point(value))


@pytest.mark.parametrize("filename", ["../../etc/passwd", "a.exe", "\\x", "", "a" * 2_000, "é.png", "a.svg"])
def test_what_a_file_is_called_does_not_matter_and_no_such_file_is_made(client, tmp_path, monkeypatch, filename):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (datum,) = post(client, file(filename=filename)).json()["data"]
    assert torch.equal(torch.tensor(datum["embedding"]), CORNERS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_megabytes(client):
    large = base64.b64decode(encoded(quadrants((1200, 900)), "BMP"))
    assert len(large) > 3 * 2**20
    (datum,) = post(client, file(large)).json()["data"]
    assert torch.equal(torch.tensor(datum["embedding"]), CORNERS)


def test_the_content_type_may_be_written_in_any_case(client):
    body, _ = form([text("a")])
    response = client.post("/embed", content=body, headers={"content-type": "Multipart/FORM-data; Boundary=frontier"})
    assert response.status_code == 200


REFUSED = {
    "an empty form": ([], 422, REQUEST, "neither a field text nor a file image"),
    "only a geometry": ([text("space", "geometry")], 422, REQUEST, "neither a field text nor a file image"),
    "another geometry": ([text("a"), text("klein", "geometry")], 422, REQUEST, "geometry: ", "'poincare'"),
    "two geometries": ([text("a"), text("space", "geometry"), text("space", "geometry")], 422, REQUEST, "geometry: "),
    "a geometry as a file": ([text("a"), file(b"space", "geometry")], 422, REQUEST, "geometry: "),
    "a field of another name": ([text("a"), text("b", "texts")], 422, REQUEST, "texts: Extra inputs"),
    "a file of another name": ([file(name="images")], 422, REQUEST, "images: Extra inputs"),
    "the collection": ([text("a"), text("b", "collection")], 422, REQUEST, "collection: Extra inputs"),
    "a text as a file": ([file(b"a dog", "text")], 422, REQUEST, "text.0: Input should be a valid string"),
    "a file as a text": ([text(PNG, "image")], 422, REQUEST, "image: expected files"),
    "base64 as a text": ([text(base64.b64encode(PNG), "image")], 422, REQUEST, "image: expected files", "JSON"),
    "a blank text": ([text("a"), text(" ")], 422, REQUEST, "text.1: the string is empty"),
    "an empty file": ([file(b"")], 422, IMAGE, "an image is empty"),
    "no picture": ([file(b"hello")], 422, IMAGE, "PNG, JPEG, WEBP, GIF, BMP are read"),
    "half a picture": ([file(PNG[: len(PNG) // 2])], 422, IMAGE, "damaged or cut short"),
    "a large picture": (
        [file(base64.b64decode(png_header(30_000, 30_000)))],
        *(422, LIMIT, "50,000,000", "HYPCLIP_MAX_IMAGE_PIXELS"),
    ),
    "a large file": ([file(bytes(10 * 2**20 + 1))], 422, LIMIT, "10,485,760", "HYPCLIP_MAX_IMAGE_BYTES"),
    "a long text": ([text("x" * 8_193)], 422, LIMIT, "8,193", "HYPCLIP_MAX_TEXT_CHARS"),
    "a very long text": ([text("x" * 100_000)], 422, REQUEST, "8,192", "HYPCLIP_MAX_TEXT_CHARS"),
    "257 texts": ([text("a")] * 257, 422, LIMIT, "257", "256", "HYPCLIP_MAX_INPUTS"),
    "300 texts": ([text("a")] * 300, 422, REQUEST, "256", "HYPCLIP_MAX_INPUTS"),
    "257 files": ([file()] * 257, 422, REQUEST, "256", "HYPCLIP_MAX_INPUTS"),
    "200 of each": ([text("a")] * 200 + [file()] * 200, 422, LIMIT, "400", "256", "HYPCLIP_MAX_INPUTS"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, case):
    parts, status, type, *message = REFUSED[case]
    assert_error(post(client, *parts), status, type, *message)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda body: body[:-8], "the form is cut short"),
        (lambda body: body[:-40], "the form is cut short"),
        (lambda body: body[:40], "the form is cut short"),
        (lambda body: b"", "the form is cut short"),
        (lambda body: b"hello", "the form cannot be read"),
        (lambda body: body.replace(b'; name="text"', b""), '"name" must be provided'),
        (lambda body: body.replace(b"Content-Disposition: ", b"X: "), '"name" must be provided'),
    ],
)
def test_a_form_that_is_none(client, change, part):
    body, content_type = form([text("a dog"), text("a cat"), file()])
    response = client.post("/embed", content=change(body), headers={"content-type": content_type})
    assert_error(response, 422, REQUEST, part)


@pytest.mark.parametrize("size", [1, 7, 33])
@pytest.mark.parametrize("missing", [0, 5])
def test_its_end_is_found_however_it_is_cut_into_chunks(client, size, missing):
    body, content_type = form([text("a dog"), text("a cat")])
    body = body.rstrip()
    body = body[: len(body) - missing]
    chunks = [body[start : start + size] for start in range(0, len(body), size)]

    async def in_chunks(scope, receive, send):
        rest = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        rest.append({"type": "http.request", "body": b"", "more_body": False})

        async def next_chunk():
            return rest.pop(0) if rest else await receive()

        await client.app(scope, next_chunk, send)

    response = TestClient(in_chunks, headers={"content-type": content_type}).post("/embed")
    if missing:
        assert_error(response, 422, REQUEST, "the form is cut short")
    else:
        assert len(response.json()["data"]) == 2


def test_a_form_without_a_boundary(client):
    assert_error(post(client, text("a"), content_type="multipart/form-data"), 422, REQUEST, "boundary")


def test_a_form_to_a_route_for_json(client):
    body, content_type = form([text("a")])
    response = client.post("/retrieve", content=body, headers={"content-type": content_type})
    assert_error(response, 415, "unsupported_media_type", "Content-Type: application/json", "multipart/form-data")


def test_a_body_over_the_limit_is_413_in_the_middle_of_a_form(tmp_path):
    with TestClient(app_at(tmp_path, max_body_bytes=2_000)) as client:
        body, content_type = form([file(bytes(5_000))])
        headers = {"content-type": content_type}
        announced = client.post("/embed", content=body, headers=headers)
        assert_error(announced, 413, "body_too_large", "2,000 bytes", "HYPCLIP_MAX_BODY_BYTES")
        pieces = (body[i : i + 500] for i in range(0, len(body), 500))
        streamed = client.post("/embed", content=pieces, headers=headers)
        assert_error(streamed, 413, "body_too_large", "2,000 bytes", "HYPCLIP_MAX_BODY_BYTES")


def test_other_methods_with_a_form_are_405(client):
    body, content_type = form([text("a")])
    response = client.put("/embed", content=body, headers={"content-type": content_type})
    assert_error(response, 405, "method_not_allowed", "only POST")
