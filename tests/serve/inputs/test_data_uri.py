"""Pictures sent as plain strings, and base64 and data URIs as people's programs write them."""

import base64
from urllib.parse import quote

import pytest
import torch
from fastapi.testclient import TestClient

from serve.errors import InvalidImage
from serve.inputs.data_uri import base64_of, from_base64, is_image, kind_of
from serve.settings import Settings
from tests.support.serving import BLUE, GREEN, RED, WHITE, app_at, assert_error, colours, encoded, quadrants, text_point

LARGE = encoded(quadrants((90, 70)), "BMP")
PNG = encoded(quadrants())
FILE = base64.b64decode(PNG)
URI = f"data:image/png;base64,{PNG}"
CORNERS = colours(RED, GREEN, BLUE, WHITE)
assert len(LARGE) > 2 * Settings().max_text_chars


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        yield client


def embedded(client, *inputs):
    response = client.post("/embed", json={"inputs": inputs})
    assert response.status_code == 200, response.text
    return response.json()["data"]


def assert_is_the_picture(datum):
    assert torch.equal(torch.tensor(datum["embedding"]), CORNERS)


# Plain strings --------------------------------------------------------------------------------------------------------

PICTURES = {
    "data URI": URI,
    "upper case": f"DATA:IMAGE/PNG;BASE64,{PNG}",
    "white space before it": f" \n{URI}",
    "longer than a text may be": f"data:image/bmp;base64,{LARGE}",
    "a wrong type": f"data:image/jpg;base64,{PNG}",
    "a name": f"data:image/png;name=my photo.png;base64,{PNG}",
    "a character set": f"data:image/png;charset=utf-8;base64,{PNG}",
    "a quoted name": f'data:image/png;name="a.png";base64,{PNG}',
    "a comma in a quoted name": f'data:image/png;name="a,b;c.png";base64,{PNG}',
    "without base64": f"data:image/png,{quote(FILE)}",
    "base64, percent-encoded": f"data:image/png;base64,{quote(PNG, safe='')}",
    "url-safe": f"data:image/png;base64,{base64.urlsafe_b64encode(FILE).decode()}",
    "no padding": f"data:image/bmp;base64,{encoded(quadrants((2, 3)), 'BMP').rstrip('=')}",
    "line breaks": f"data:image/png;base64,\n{base64.encodebytes(FILE).decode()}",
    "no sub-type": f"data:image;base64,{PNG}",
    "a space before the type": f"data: image/png; base64, {PNG}",
    "base64 that is not said to be": f"data:image/png,{PNG}",
    "a byte-order mark": f"\ufeff{URI}",
    "base64 after a byte-order mark": f"\ufeff{PNG}\n",
    "a space without width": f"\u200b{URI}",
    "base64 of PNG": PNG,
    "base64 of BMP": LARGE,
    "base64 of GIF": encoded(quadrants(), "GIF"),
    "base64 of WebP": encoded(quadrants(), "WEBP", lossless=True),
    "base64, url-safe, broken, without padding": base64.encodebytes(FILE)
    .decode()
    .translate(str.maketrans("+/", "-_", "=")),
}


@pytest.mark.parametrize("string", PICTURES.values(), ids=PICTURES)
def test_a_plain_string_that_is_a_picture(client, string):
    (datum,) = embedded(client, string)
    assert datum["modality"] == "image"
    assert_is_the_picture(datum)
    assert_is_the_picture(embedded(client, {"image": string})[0])


def test_a_jpeg_in_base64_is_a_picture(client):
    jpeg = encoded(quadrants(), "JPEG")
    plain, said = embedded(client, jpeg, {"image": jpeg})
    assert plain["embedding"] == said["embedding"]
    assert plain["modality"] == said["modality"] == "image"


def test_in_every_route(client):
    """The picture is stored, found, walked from, averaged, compared and classified as the picture that it is."""
    put = client.put("/collections/routes/points", json={"points": [{"id": "photo", "image": URI}]})
    assert put.status_code == 200, put.text
    where = {"collection": "routes"}

    def post(path, **body):
        response = client.post(path, json={**body, **where})
        assert response.status_code == 200, response.text
        return response.json()

    for string in (URI, PNG):
        (hit,) = post("/retrieve", query=string)["hits"]
        assert (hit["id"], hit["modality"], hit["distance"]) == ("photo", "image", 0.0)
        assert post("/hierarchy/ancestors", of=string, reflexive=True)["hits"][0]["distance"] == 0.0
        assert post("/hierarchy/descendants", of=string, reflexive=True)["hits"][0]["distance"] == 0.0
        assert post("/hierarchy/common_ancestors", of=[string])["total"] == 0
        assert post("/hierarchy/traverse", source=string, entailment=False)["path"][0]["id"] == "photo"
        assert post("/hierarchy/traverse", source="a dog", target=string, entailment=False)["path"][-1]["id"] == "photo"
        mean = post("/hierarchy/mean", inputs=[string])["embedding"]
        torch.testing.assert_close(torch.tensor(mean), CORNERS)
        assert post("/hierarchy/order", first=string, second={"id": "photo"})["relation"] == "same"
        (result,) = post("/classify", inputs=[string], labels=["a", "b"])["data"]
        assert result["modality"] == "image"


def test_in_a_form(client):
    response = client.post("/embed", files=[("text", (None, URI)), ("text", (None, "a dog"))])
    assert response.status_code == 200, response.text
    assert [datum["modality"] for datum in response.json()["data"]] == ["image", "text"]
    assert_is_the_picture(response.json()["data"][0])


def test_in_the_schema_of_openai(client):
    for input in (URI, [URI], PNG, f" {URI}"):
        body = client.post("/v1/embeddings", json={"input": input}).json()
        assert_is_the_picture(body["data"][0])
        assert body["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    mixed = client.post("/v1/embeddings", json={"input": ["a dog", f"data:image/bmp;base64,{LARGE}"]}).json()
    assert_is_the_picture(mixed["data"][1])
    assert mixed["usage"]["prompt_tokens"] == 2


TEXTS = [
    "data: the new oil",
    "data:image is a scheme",
    "data/image, a folder",
    "DATA",
    "metadata:image/png;base64,AAAA",
    "data: image/png is a type",
    "'data:image/png' is how such a URI begins",
    "'a photo' of a dog",
    "base64, or how to write bytes as text without any loss",
    "PHN2ZyBhbmQgYSBsb3Q",
    "JVBERi0xLjQ",
    "see data:image/png;base64,AAAA",
    "/9j/ is how the base64 of a JPEG begins, as everybody knows who has seen one",
    "iVBORw0KGgo",
    "QkVBVVRJRlVMTEVUVEVSU0FORE5PVEhJTkdCVVRMRVRURVJTSEVSRQ",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "https://example.com/a.png",
    "key:value;other,more",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_texts(client, text):
    (datum,) = embedded(client, text)
    assert datum["modality"] == "text"
    assert torch.equal(torch.tensor(datum["embedding"]), text_point(text))


# Refused --------------------------------------------------------------------------------------------------------------

OTHERS = {
    "data:text/plain,a%20dog": "'text/plain'",
    "data:text/plain;base64,YSBkb2c=": "'text/plain'",
    "data:application/pdf;base64,JVBERi0=": "'application/pdf'",
    " DATA:audio/wav;base64,UklGRg==": "'audio/wav'",
    "data:video/mp4;base64,AAAA": "'video/mp4'",
    "data:,a dog": "no type",
    "data:;base64,YSBkb2c=": "no type",
    "data:application/json;charset=utf-8,{}": "'application/json'",
    "data:application/octet-stream;base64,AAAA": "'application/octet-stream'",
}


@pytest.mark.parametrize("string", OTHERS)
def test_other_data_uris_are_refused_by_name(client, string):
    parts = (f"a data URI of {OTHERS[string].strip(chr(39))} is neither a text nor an image", "data:image/png;base64,")
    for path, body in (
        ("/embed", {"inputs": ["a", string]}),
        ("/retrieve", {"query": {"text": string}}),
        ("/v1/embeddings", {"input": string}),
        ("/v1/embeddings", {"input": [{"type": "text", "text": string}]}),
    ):
        client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
        assert_error(client.post(path, json=body), 422, "invalid_image", *parts)


@pytest.mark.parametrize("string", [URI, PNG])
def test_what_is_said_to_be_a_text_is_not_embedded_as_one(client, string):
    answers = [
        client.post("/embed", json={"inputs": [{"text": string}]}),
        client.post("/v1/embeddings", json={"input": {"text": string}}),
        client.put("/collections/texts/points", json={"points": [{"id": "a", "text": string}]}),
    ]
    for response in answers:
        assert_error(response, 422, "invalid_image", 'what is sent as "text" is an image: send it as {"image": ...}')


@pytest.mark.parametrize("labels", [{"labels": ["a", URI]}, {"taxonomy": [[URI, "a"]]}], ids=["labels", "taxonomy"])
def test_a_label_that_is_a_picture_is_refused(client, labels):
    response = client.post("/classify", json={"inputs": ["a"], **labels})
    assert_error(response, 422, "invalid_image", "a label is an image; labels are texts")


SVG, XML = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="8"/>',
    '<?xml version="1.0" encoding="UTF-8" standalone="no"?>',
)
REFUSED = {
    "SVG": ("data:image/svg+xml;base64,PHN2Zy8+", "a data URI of image/svg+xml is no image that can be read"),
    "SVG as text": ("data:image/svg+xml;utf8,<svg/>", "a data URI of image/svg+xml is no image"),
    "PDF": ("data:application/pdf;base64,JVBERi0=", "a data URI of application/pdf is no image"),
    "no comma": (f"data:image/png;base64{PNG}", "a data URI of an image reads data:image/png;base64,..."),
    "nothing in it": ("data:image/png;base64,", "a data URI has nothing after its comma"),
    "nothing": ("", "an image is empty: it has 0 bytes"),
    "white space": (" \n", "an image is empty: it has 0 bytes"),
    "in quotes": (f'"{PNG}"', "not valid base64", "it stands in quotes: send what is between them"),
    "a URI in quotes": (f"'{URI}'", "not valid base64", "it stands in quotes: send what is between them"),
    "a URI of printed bytes": (f"data:image/png;base64,{PNG.encode()}", "decode() them first"),
    "a printed URI": (str(URI.encode()), "it is bytes as Python prints them: decode() them first"),
    "a URI in a URI": (f"data:image/png;base64,{URI}", "there is no ':' in it", "a data URI within another"),
    "base64 with its name": (f"base64,{PNG}", "there is no ',' in it", "send what comes after base64"),
    "a path": ("/tmp/photos/a.png", "no path or URL is read", "there is no '.' in it"),
    "one character short": (PNG.rstrip("=")[:-1], "not valid base64", "the last one stands alone, so it is cut short"),
    "= in the middle": ("data:image/png;base64,iVBO=Rw0KGgo", "not valid base64"),
    "bytes as Python prints them": (str(PNG.encode()), "it is bytes as Python prints them: decode() them first"),
    "TIFF": (encoded(quadrants(), "TIFF"), "unknown format", "it begins as TIFF does", "PNG, JPEG, WEBP, GIF, BMP"),
    "AVIF": (base64.b64encode(b"\0\0\0\x20ftypavif" + bytes(40)).decode(), "it begins as AVIF does"),
    "SVG, said to be PNG": (
        "data:image/png;base64," + base64.b64encode(b"<?xml version='1.0'?><svg></svg>").decode(),
        "it begins as SVG does",
    ),
    "ICO": (base64.b64encode(b"\0\0\1\0" + bytes(40)).decode(), "it begins as ICO does"),
    "SVG in base64": (base64.b64encode(SVG.encode()).decode(), "it begins as SVG does"),
    "SVG after its declaration": (base64.b64encode(f"{XML}\n{SVG}".encode()).decode(), "it begins as SVG does"),
    "PDF in base64": (base64.b64encode(b"%PDF-1.7" + bytes(40)).decode(), "it begins as PDF does"),
    "a web page": (base64.b64encode(b"<!DOCTYPE html><html>404</html>").decode(), "it begins as a web page does"),
}
assert len(PNG.rstrip("=")[:-1]) % 4 == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(client, name):
    string, *parts = REFUSED[name]
    assert_error(client.post("/embed", json={"inputs": [{"image": string}]}), 422, "invalid_image", *parts)


AS_OTHERS = {"PDF", "nothing", "white space", "one character short", "a path", "a web page"}
"""What a plain string of is a text, or refused with another message."""


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in AS_OTHERS])
def test_pictures_that_cannot_be_read_are_no_texts(client, name):
    string, *parts = REFUSED[name]
    assert_error(client.post("/embed", json={"inputs": [string]}), 422, "invalid_image", *parts)


def test_of_an_item_that_is_a_picture_the_type_may_be_missing(client):
    for kind in ("", "application/octet-stream", "image/x-png"):
        assert_is_the_picture(embedded(client, {"image": f"data:{kind};base64,{PNG}"})[0])


def test_a_picture_in_a_string_has_the_limits_of_pictures(tmp_path):
    with TestClient(app_at(tmp_path, max_image_bytes=1000, max_text_chars=50)) as client:
        for string in (LARGE, f"data:image/bmp;base64,{LARGE}", f"data:image/png,{quote(base64.b64decode(LARGE))}"):
            answer = client.post("/embed", json={"inputs": [string]})
            assert_error(answer, 422, "limit_exceeded", "the size of an image in bytes", "MAX_IMAGE_BYTES")
        assert_is_the_picture(embedded(client, URI)[0])


# Messages of other APIs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
        {"type": "image_url", "image_url": URI},
        {"type": "input_image", "image_url": URI},
        {"type": "input_image", "image_url": URI, "detail": "auto"},
        {"type": "image", "image": PNG},
    ],
    ids=str,
)
def test_parts_of_messages_that_are_pictures(client, part):
    for input in (part, [part]):
        assert_is_the_picture(client.post("/v1/embeddings", json={"input": input}).json()["data"][0])


@pytest.mark.parametrize("type", ["text", "input_text"])
def test_parts_of_messages_that_are_texts(client, type):
    body = client.post("/v1/embeddings", json={"input": [{"type": type, "text": "a dog"}]}).json()
    assert torch.equal(torch.tensor(body["data"][0]["embedding"]), text_point("a dog"))
    assert body["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("input", "message"),
    [
        ({"type": "audio", "text": "a"}, "input.0.type: Extra inputs are not permitted"),
        ({"content": [{"type": "text", "text": "a"}]}, "exactly one of text, image"),
        ({"type": "image_url", "image_url": {"href": URI}}, "exactly one of text, image"),
        ({"type": "image_url", "image_url": 7}, "exactly one of text, image"),
        ({"type": "text", "text": "a", "image_url": {"url": URI}}, "input.0"),
    ],
    ids=str,
)
def test_other_parts_are_refused_with_what_is_read(client, input, message):
    assert_error(client.post("/v1/embeddings", json={"input": [input]}), 422, "invalid_request", message)


def test_a_url_in_a_message_is_fetched_only_where_that_is_allowed(client):
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    answer = client.post("/v1/embeddings", json={"input": [part]})
    assert_error(answer, 422, "invalid_image", "HYPCLIP_IMAGE_URL_HOSTS")


# The functions --------------------------------------------------------------------------------------------------------


def test_base64_in_every_spelling():
    data = bytes(range(256)) + b"\xfb\xff"
    plain = base64.b64encode(data).decode()
    for written in (
        plain,
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        f" {plain[:50]}\r\n{plain[50:]}\n",
    ):
        assert from_base64(written) == data
    for wrong in ("a", "ab=c", "a b c!", "é"):
        with pytest.raises(InvalidImage, match="not valid base64"):
            from_base64(wrong)


def test_a_data_uri_is_split_once():
    assert base64_of("data:image/png;base64,QUJD") == "QUJD"
    assert base64_of("data:image/png,%41B,C") == b"AB,C"
    assert base64_of("QUJD") == "QUJD"


def test_a_head_of_a_megabyte_takes_no_time():
    for text in (
        "data:" + "a" * 2**20,
        "data:image/" + ";" * 2**20,
        " " * 2**20 + "data:image/png;base64,AA",
        "/9j/" * 2**18,
    ):
        is_image(text)
        assert kind_of(text.encode()) is None
