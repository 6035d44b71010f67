"""One test for every path that can fail; `assert_error` is the contract."""

import asyncio
import base64
import json

import pytest
from fastapi.testclient import TestClient

from serve.inference.engine import TextPoints
from tests.support.serving import FakeEngine, app_at, assert_error, encoded, png_header, quadrants

JSON = {"content-type": "application/json"}
PICTURE = encoded(quadrants())
HALF_A_JPEG = base64.b64encode(base64.b64decode(encoded(quadrants(), "JPEG"))[:400]).decode()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        points = [{"id": "dog", "text": "a dog"}]
        assert client.put("/collections/default/points", json={"points": points}).status_code == 200
        yield client


def nested(depth):
    return {"deeper": nested(depth - 1)} if depth else {}


def embed(*inputs, **fields):
    return "POST", "/embed", {"inputs": list(inputs), **fields}


def image(value):
    return embed({"image": value})


def retrieve(query="a dog", **fields):
    return "POST", "/retrieve", {"query": query, **fields}


def classify(*inputs, **fields):
    return "POST", "/classify", {"inputs": list(inputs) or ["a dog"], **fields}


def put(*points, collection="default"):
    return "PUT", f"/collections/{collection}/points", {"points": list(points)}


def delete(*ids, collection="default"):
    return "DELETE", f"/collections/{collection}/points", {"ids": list(ids)}


ONE_OF = "exactly one of text, image, embedding"
REQUEST, IMAGE, LIMIT, INPUT = "invalid_request", "invalid_image", "limit_exceeded", "invalid_input"
REFUSED = {
    "no inputs": (embed(), 422, REQUEST, "inputs: List should have at least 1 item"),
    "inputs missing": (("POST", "/embed", {}), 422, REQUEST, "inputs: Field required"),
    "inputs no list": (("POST", "/embed", {"inputs": "a dog"}), 422, REQUEST, "inputs: Input should be a valid list"),
    "body no object": (("POST", "/embed", ["a dog"]), 422, REQUEST, "body: "),
    "null": (("POST", "/embed", None), 422, REQUEST, "body: "),
    "unknown geometry": (embed("a", geometry="klein"), 422, REQUEST, "geometry: ", "'poincare'"),
    "unknown field": (embed("a", nonsense=1), 422, REQUEST, "nonsense: Extra inputs are not permitted"),
    "unknown field in item": (embed({"text": "a", "nonsense": 1}), 422, REQUEST, "inputs.0.nonsense: Extra"),
    "too many inputs": (embed(*["a"] * 257), 422, LIMIT, "inputs is 257, over the limit of 256", "HYPCLIP_MAX_INPUTS"),
    "empty text": (embed("a", ""), 422, REQUEST, "inputs.1: the string is empty"),
    "blank text": (embed({"text": " \n"}), 422, REQUEST, "inputs.0.text: the string is empty"),
    "text of 100 KB": (embed("x" * 100_000), 422, LIMIT, "100,000", "8,192", "HYPCLIP_MAX_TEXT_CHARS"),
    "text no string": (embed({"text": 3}), 422, REQUEST, "inputs.0.text: Input should be a valid string"),
    "item a number": (embed(3), 422, REQUEST, "inputs.0: ", ONE_OF),
    "item empty": (embed({}), 422, REQUEST, ONE_OF),
    "item with a url": (embed({"url": "http://localhost/a.png"}), 422, REQUEST, ONE_OF),
    "text and image": (embed({"text": "a", "image": PICTURE}), 422, REQUEST, "inputs.0: ", ONE_OF),
    "image a URL": (image("https://example.com/a.png"), 422, IMAGE, "HYPCLIP_IMAGE_URL_HOSTS"),
    "image a file URL": (image("file:///etc/passwd"), 422, IMAGE, "HYPCLIP_IMAGE_URL_HOSTS"),
    "image a path": (image("/etc/passwd.png"), 422, IMAGE, "not valid base64 (no path or URL is read)"),
    "image not base64": (image("%%%"), 422, IMAGE, "not valid base64"),
    "image not ASCII": (image("é\ud800"), 422, IMAGE, "not valid base64"),
    "image a character short": (image(PICTURE.rstrip("=")[:-1]), 422, IMAGE, "not valid base64"),
    "image empty": (image(""), 422, IMAGE, "an image is empty"),
    "data URI not base64": (image("data:image/svg+xml,<svg/>"), 422, IMAGE, "data:image/png;base64,"),
    "image of noise": (
        image("AAAA" * 100),
        422,
        IMAGE,
        "unknown format",
        "PNG, JPEG, WEBP, GIF, BMP are read",
    ),
    "image TIFF": (image(encoded(quadrants(), "TIFF")), 422, IMAGE, "unknown format"),
    "image EPS": (image(encoded(quadrants(), "EPS")), 422, IMAGE, "unknown format"),
    "image cut short": (image(HALF_A_JPEG), 422, IMAGE, "damaged or cut short"),
    "image without pixels": (image(png_header(8, 8)), 422, IMAGE, "damaged or cut short"),
    "image 30,000 square": (image(png_header(30_000, 30_000)), 422, LIMIT, "50,000,000", "HYPCLIP_MAX_IMAGE_PIXELS"),
    "image 9,000 square": (image(png_header(9000, 9000)), 422, LIMIT, "81,000,000", "HYPCLIP_MAX_IMAGE_PIXELS"),
    "image 10,000 square": (image(png_header(10_000, 10_000)), 422, LIMIT, "HYPCLIP_MAX_IMAGE_PIXELS"),
    "image a line": (image(encoded(quadrants((2, 1000)))), 422, LIMIT, "500", "100", "HYPCLIP_MAX_IMAGE_ASPECT"),
    "image of 11 MB": (image("A" * 15_000_000), 422, LIMIT, "10,485,760", "HYPCLIP_MAX_IMAGE_BYTES"),
    "images of 250 million pixels": (
        embed(*[{"image": png_header(7000, 7000)}] * 5),
        *(422, LIMIT, "245,000,000", "200,000,000", "HYPCLIP_MAX_REQUEST_PIXELS"),
    ),
    "embedding too short": (embed("a", {"embedding": [0.0]}), 422, INPUT, "index 1 has 1 numbers", "12 space"),
    "embedding empty": (embed({"embedding": []}), 422, REQUEST, "inputs.0.embedding: List should have at least 1"),
    "embedding too far out": (embed({"embedding": [1e30] * 12}), 422, INPUT, "lies at radius"),
    "embedding of strings": (embed({"embedding": ["0"] * 12}), 422, REQUEST, "inputs.0.embedding.0: "),
    "embedding of a huge integer": (embed({"embedding": [10**400] * 12}), 422, REQUEST, "inputs.0.embedding.0: "),
    "id unknown": (embed({"id": "cat"}), 404, "unknown_point", "'default' has no point 'cat'"),
    "id in unknown collection": (embed({"id": "dog"}, collection="x"), 404, "unknown_collection", "'x'"),
    "id empty": (embed({"id": ""}), 422, REQUEST, "inputs.0.id: "),
    "query with text and image": (retrieve({"text": "a", "image": PICTURE}), 422, REQUEST, "query: ", ONE_OF),
    "query missing": (("POST", "/retrieve", {"k": 3}), 422, REQUEST, "query: Field required"),
    "k = 0": (retrieve(k=0), 422, REQUEST, "k: Input should be greater than or equal to 1"),
    "k < 0": (retrieve(k=-1), 422, REQUEST, "k: "),
    "k too large": (retrieve(k=1001), 422, LIMIT, "k is 1,001, over the limit of 1,000 (setting HYPCLIP_MAX_K)"),
    "k true": (retrieve(k=True), 422, REQUEST, "k: Input should be a valid integer"),
    "k a fraction": (retrieve(k=1.5), 422, REQUEST, "k: Input should be a valid integer"),
    "k a string": (retrieve(k="10"), 422, REQUEST, "k: Input should be a valid integer"),
    "unknown collection": (retrieve(collection="x"), 404, "unknown_collection", "'x'"),
    "collection name bad": (retrieve(collection="../x"), 422, REQUEST, "collection: "),
    "unknown modality": (retrieve(modality="smell"), 422, REQUEST, "modality: "),
    "filter of lists": (
        retrieve(filter={"a": [[1]]}),
        422,
        "invalid_input",
        "filter on 'a': expected a string, a number, true, false or null",
    ),
    "neither labels nor taxonomy": (classify(), 422, REQUEST, "either labels or taxonomy"),
    "labels and taxonomy": (classify(labels=["a"], taxonomy=[["a", "b"]]), 422, REQUEST, "either labels or taxonomy"),
    "no labels": (classify(labels=[]), 422, REQUEST, "labels: List should have at least 1"),
    "label blank": (classify(labels=["a", ""]), 422, REQUEST, "labels.1: the string is empty"),
    "label twice": (classify(labels=["a", "b", "a"]), 422, REQUEST, "labels: 'a' comes twice"),
    "labels too many": (classify(labels=[str(i) for i in range(4097)]), 422, LIMIT, "HYPCLIP_MAX_LABELS"),
    "label too long": (classify(labels=["x" * 8190]), 422, LIMIT, "HYPCLIP_MAX_TEXT_CHARS"),
    "no taxonomy": (classify(taxonomy=[]), 422, REQUEST, "taxonomy: List should have at least 1"),
    "taxonomy no pairs": (classify(taxonomy=[["a", "b", "c"]]), 422, REQUEST, "taxonomy.0: "),
    "taxonomy a cycle": (classify(taxonomy=[["a", "b"], ["b", "a"]]), 422, REQUEST, "must not form a cycle"),
    "taxonomy a loop": (classify(taxonomy=[["a", "a"]]), 422, REQUEST, "must not form a cycle"),
    "taxonomy too large": (classify(taxonomy=[["a", "b"]] * 20_001), 422, LIMIT, "HYPCLIP_MAX_TAXONOMY_EDGES"),
    "template without place": (
        classify(labels=["a"], templates=["a photo"]),
        422,
        REQUEST,
        "'a photo' must have {} once",
    ),
    "template with two places": (classify(labels=["a"], templates=["{} {}"]), 422, REQUEST, "must have {} once"),
    "no templates": (classify(labels=["a"], templates=[]), 422, REQUEST, "templates: List should have at least 1"),
    "no points": (put(), 422, REQUEST, "points: List should have at least 1 item"),
    "point without id": (put({"text": "a"}), 422, REQUEST, "points.0.id: Field required"),
    "point with an integer id": (
        put({"id": 1, "text": "a"}),
        422,
        REQUEST,
        "points.0.id: Input should be a valid string",
    ),
    "point id too long": (put({"id": "x" * 513, "text": "a"}), 422, REQUEST, "points.0.id: "),
    "point of nothing": (put({"id": "a"}), 422, REQUEST, "points.0: ", ONE_OF),
    "point of two things": (put({"id": "a", "text": "a", "embedding": [0]}), 422, REQUEST, "points.0: ", ONE_OF),
    "point with unknown field": (put({"id": "a", "text": "a", "payload": {}}), 422, REQUEST, "points.0.payload: Extra"),
    "point id twice": (put({"id": "a", "text": "a"}, {"id": "a", "text": "b"}), 422, INPUT, "'a' comes twice"),
    "points too many": (put(*[{"id": "a", "text": "a"}] * 10_001), 422, LIMIT, "HYPCLIP_MAX_POINTS"),
    "metadata too large": (
        put({"id": "a", "text": "a", "metadata": {"x": "x" * 20_000}}),
        *(422, LIMIT, "metadata of point 'a'", "HYPCLIP_MAX_METADATA_BYTES"),
    ),
    "metadata nested": (put({"id": "a", "text": "a", "metadata": nested(9)}), 422, REQUEST, "nested more than 8 deep"),
    "metadata no object": (put({"id": "a", "text": "a", "metadata": [1]}), 422, REQUEST, "points.0.metadata: "),
    "put to a bad name": (put({"id": "a", "text": "a"}, collection=".a"), 422, REQUEST, "name: "),
    "no ids": (delete(), 422, REQUEST, "ids: List should have at least 1"),
    "ids too many": (delete(*["a"] * 10_001), 422, LIMIT, "HYPCLIP_MAX_POINTS"),
    "delete from unknown collection": (delete("a", collection="x"), 404, "unknown_collection", "'x'"),
    "describe unknown collection": (("GET", "/collections/x", None), 404, "unknown_collection", "'x'"),
    "unknown path": (("GET", "/nowhere", None), 404, "not_found", "nothing at /nowhere"),
    "wrong method": (("GET", "/embed", None), 405, "method_not_allowed", "/embed does not take GET"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(client, case):
    (method, path, body), status, type, *parts = REFUSED[case]
    content = None if method == "GET" else json.dumps(body).encode()
    assert_error(client.request(method, path, content=content, headers=JSON), status, type, *parts)
    assert client.get("/collections").json()["collections"][0]["count"] == 1


@pytest.mark.parametrize(
    "content, status, type, part",
    [
        (b"", 422, REQUEST, "body: Field required"),
        (b'{"inputs": ["a"', 400, "invalid_json", "Expecting ',' delimiter at 15"),
        (b"\xff\xfe", 400, "invalid_json", "not valid JSON"),
        (b'{"inputs": ' + b"[" * 100_000, 400, "invalid_json", "nested too deeply"),
        (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", 422, REQUEST, "inputs.0: "),
        (b'{"inputs": [' + b"9" * 5000 + b"]}", 400, "invalid_json", "not valid JSON"),
        (b'{"inputs": [{"embedding": [NaN]}]}', 422, REQUEST, "inputs.0.embedding.0: Input should be a finite number"),
        (b'{"inputs": [{"embedding": [-Infinity]}]}', 422, REQUEST, "inputs.0.embedding.0: "),
        (b'{"inputs": [{"embedding": [1e999]}]}', 422, REQUEST, "inputs.0.embedding.0: "),
        (b'{"inputs": ["\\ud800"]}', 422, REQUEST, "inputs.0: the string is not valid Unicode"),
        (b'{"inputs": [{"id": "\\ud800"}]}', 422, REQUEST, "inputs.0.id: "),
        (b'{"inputs": ["a"], "x\\ud800": 1}', 422, REQUEST, "body: "),
    ],
)
def test_malformed_bodies(client, content, status, type, part):
    assert_error(client.post("/embed", content=content, headers=JSON), status, type, part)


def test_a_message_that_quotes_what_utf_8_cannot_hold(client):
    content = b'{"query": "a", "filter": {"\\ud800": 1}}'
    response = client.post("/retrieve", content=content, headers=JSON)
    assert_error(response, 422, "invalid_input", "a filter names metadata fields", "ud800")


@pytest.mark.parametrize("metadata", [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"\\ud800": 1}', b'{"a": [1e999]}'])
def test_metadata_that_could_not_be_sent_back_is_refused(client, metadata):
    content = b'{"points": [{"id": "a", "text": "a", "metadata": ' + metadata + b"}]}"
    response = client.put("/collections/default/points", content=content, headers=JSON)
    assert_error(response, 422, REQUEST, "points.0.metadata")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_named(client, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = client.post("/embed", content=b'{"inputs": ["a"]}', headers=headers)
    assert_error(response, 415, "unsupported_media_type", "Content-Type: application/json")


def test_a_405_says_what_is_allowed(client):
    assert client.get("/embed").headers["allow"] == "POST"


def test_only_a_few_of_many_problems_are_listed(client):
    response = client.post("/embed", json={"inputs": ["a"], **{f"x{i}": 0 for i in range(10)}})
    assert_error(response, 422, REQUEST, "x0: ", "x2: ", "and 7 more")


def test_points_of_another_model_are_refused_everywhere(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        client.put("/collections/old/points", json={"points": [{"id": "dog", "text": "a dog"}]})
    with TestClient(app_at(tmp_path, FakeEngine("fake-2"))) as client:
        for method, path, body in (
            retrieve(collection="old"),
            retrieve({"id": "dog"}, collection="old"),
            embed({"id": "dog"}, collection="old"),
            classify({"id": "dog"}, labels=["a"], collection="old"),
            put({"id": "cat", "text": "a cat"}, collection="old"),
        ):
            assert_error(client.request(method, path, json=body), 409, "model_mismatch", "'fake-1'", "'fake-2'")
        assert client.get("/collections/old").json()["count"] == 1


def test_a_refused_put_creates_no_collection(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        assert_error(client.put("/collections/new/points", json={"points": [{"id": "a", "image": "x"}]}), 422, IMAGE)
        assert client.get("/collections").json() == {"collections": []}


class BrokenEngine(FakeEngine):
    async def embed_text(self, texts):
        if texts == ["nan"]:
            points, tokens = await super().embed_text(texts)
            return TextPoints(points * float("nan"), tokens)
        raise RuntimeError("secret detail")


@pytest.mark.parametrize("text", ["boom", "nan"])
def test_our_own_failures_are_logged_and_tell_the_client_nothing(tmp_path, caplog, text):
    with TestClient(app_at(tmp_path, BrokenEngine())) as client:
        response = client.post("/embed", json={"inputs": [text]}, headers={"X-Request-Id": "abc-1"})
        assert_error(response, 500, "internal_error", "request id")
        assert "secret" not in response.text
        assert response.headers["x-request-id"] == "abc-1"
        (record,) = [r for r in caplog.records if r.name == "serve.http.middleware.errors"]
        assert "abc-1" in record.getMessage()
        assert record.exc_info
        assert client.get("/healthz").status_code == 200


def test_a_request_id_is_echoed_only_if_it_is_sane(client):
    assert client.get("/healthz", headers={"X-Request-Id": "job/7:a"}).headers["x-request-id"] == "job/7:a"
    for bad in ("x" * 200, "two words", ""):
        made = client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert made != bad
        assert len(made) == 32


def test_without_its_lifespan_the_server_is_not_ready(tmp_path):
    client = TestClient(app_at(tmp_path))
    for path in ("/healthz", "/readyz", "/collections"):
        assert_error(client.get(path), 503, "not_ready")


def test_an_announced_body_over_the_limit_is_refused(tmp_path):
    with TestClient(app_at(tmp_path, max_body_bytes=100)) as client:
        assert client.post("/embed", json={"inputs": ["a"]}).status_code == 200
        response = client.post("/embed", json={"inputs": ["a" * 100]})
        assert_error(response, 413, "body_too_large", "100 bytes", "HYPCLIP_MAX_BODY_BYTES")


def test_a_streamed_body_is_refused_as_soon_as_it_is_over_the_limit(tmp_path):
    sent, replies = [], []

    async def receive():
        sent.append(b"x" * 40)
        return {"type": "http.request", "body": sent[-1], "more_body": len(sent) < 10}

    async def send(message):
        replies.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/embed",
        "raw_path": b"/embed",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def call():
        app = app_at(tmp_path, max_body_bytes=100)
        async with app.router.lifespan_context(app) as state:
            await app({**scope, "state": dict(state)}, receive, send)

    asyncio.run(call())
    assert len(sent) == 3
    assert replies[0]["status"] == 413
    assert json.loads(replies[1]["body"])["error"]["type"] == "body_too_large"
