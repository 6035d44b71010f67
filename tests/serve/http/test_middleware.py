"""What happens around every request: ids, headers, CORS, errors, and the lines of the log."""

import logging
import re

import pytest
from fastapi.testclient import TestClient

from hypclip.errors import ConfigError
from hypclip.search import LocalStore
from hypclip.search.errors import Unavailable
from serve.app import create_app
from serve.errors import StartFailed
from serve.inputs.fetch import Fetcher, FetchFailed
from serve.settings import Settings
from tests.support.middleware import EMBED, Failing, run
from tests.support.serving import FakeEngine, app_at, assert_error

SHOP = {"origin": "https://shop.example"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    with TestClient(app_at(path, cors_origins=("https://shop.example",))) as client:
        yield client


# Ids and headers


@pytest.mark.parametrize("given", ["job-7", "a" * 128, "A.b_c:d/e+f=g-h", "6f1ed002ab5595859014ebf0951522d9"])
def test_a_sane_id_is_taken_over(client, given):
    response = client.get("/nowhere", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == response.json()["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a" * 129, "a\tb", "é", "<script>", 'a"', "a;b", "\xff\xfe", "a,b"])
def test_another_id_is_made_where_the_given_one_is_odd(client, given):
    raw = [(b"x-request-id", given.encode("latin-1"))]
    ids = {client.get("/healthz", headers=raw).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_of_two_ids_the_first_counts(client):
    raw = [(b"x-request-id", b"first"), (b"x-request-id", b"second")]
    assert client.get("/healthz", headers=raw).headers.get_list("x-request-id") == ["first"]


RESPONSES = {
    "200": ("GET", "/model", {}),
    "docs": ("GET", "/docs", {}),
    "a file of the docs": ("GET", "/docs/static/swagger-ui.css", {}),
    "preflight": ("OPTIONS", "/embed", {**SHOP, "access-control-request-method": "POST"}),
    "a preflight from elsewhere": ("OPTIONS", "/embed", {"origin": "x", "access-control-request-method": "POST"}),
    "400": ("POST", "/embed", {"content-type": "application/json"}),
    "404": ("GET", "/nowhere", {}),
    "405": ("GET", "/embed", {}),
    "413": ("POST", "/embed", {"content-length": "1000000000"}),
    "415": ("POST", "/embed", {"content-type": "text/plain"}),
    "422": ("PUT", "/collections/.x/points", {"content-type": "application/json"}),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_every_response_has_the_headers_that_keep_browsers_careful(client, case):
    method, path, headers = RESPONSES[case]
    content = b"{" if case == "400" else b'{"points": []}' if method in ("POST", "PUT") else None
    response = client.request(method, path, headers=headers, content=content)
    assert case in ("200", str(response.status_code)) or not case.isdecimal()
    expected = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
    assert {name: response.headers[name] for name in expected} == expected
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert ("script-src" in response.headers["content-security-policy"]) == path.startswith("/docs")
    assert response.headers["x-request-id"]
    assert re.fullmatch(r"([a-z]+;dur=[0-9.]+, )*total;dur=[0-9.]+", response.headers["server-timing"])
    assert "server" not in response.headers


def test_the_policy_of_the_docs_lets_them_run_and_nothing_from_elsewhere(client):
    response = client.get("/docs")
    policy = {
        name: values.split()
        for name, _, values in (p.partition(" ") for p in response.headers["content-security-policy"].split("; "))
    }
    sources = re.findall(r'<(script|link)[^>]* (?:src|href)="([^"]*)"', response.text)
    assert {tag for tag, _ in sources} == {"script", "link"}
    for tag, source in sources:
        assert source.startswith("/docs/static/"), source
        assert client.get(source).status_code == 200
        assert "'self'" in policy["script-src" if tag == "script" else "style-src"]
    assert "<script>" in response.text  # the page starts the viewer by a script of its own
    assert "'unsafe-inline'" in policy["script-src"]
    assert policy["connect-src"] == ["'self'"]  # for /openapi.json and for trying things out
    assert not re.search(r"https?://", response.text.replace("http://www.w3.org", ""))


def test_server_timing_has_the_parts(client):
    client.put("/collections/default/points", json={"points": [{"id": "a", "text": "a"}]})
    header = client.post("/retrieve", json={"query": "a"}).headers["server-timing"]
    assert re.fullmatch(r"index;dur=[0-9.]+, total;dur=[0-9.]+", header)


# CORS


def test_only_listed_origins_may_call(client):
    for path in ("/model", "/nowhere"):
        assert client.get(path, headers=SHOP).headers["access-control-allow-origin"] == SHOP["origin"]
        for origin in ("https://evil.example", "null", "https://shop.example.evil.example", "http://shop.example", ""):
            response = client.get(path, headers={"origin": origin})
            assert "access-control-allow-origin" not in response.headers
        assert "origin" in client.get(path, headers=SHOP).headers["vary"].lower()
    preflight = {**SHOP, "access-control-request-method": "PUT"}
    assert client.options("/embed", headers=preflight).status_code == 200
    refused = client.options("/embed", headers={**preflight, "origin": "https://evil.example"})
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-credentials" not in client.get("/model", headers=SHOP).headers


def test_an_allowed_page_can_read_ids_and_when_to_come_again(client):
    exposed = client.get("/model", headers=SHOP).headers["access-control-expose-headers"]
    assert {"X-Request-Id", "Retry-After", "Server-Timing"} <= set(exposed.split(", "))


@pytest.mark.parametrize("error", [StartFailed("no"), RuntimeError("no"), Unavailable("down"), FetchFailed("gone")])
def test_an_allowed_page_can_read_every_error(tmp_path, error):
    app = app_at(tmp_path, Failing(error), cors_origins=("https://shop.example",))
    with TestClient(app) as client:
        response = client.post("/embed", content=EMBED, headers={**SHOP, "content-type": "application/json"})
        assert response.status_code >= 400
        assert response.headers["access-control-allow-origin"] == SHOP["origin"]


def test_any_origin_at_all_is_refused_when_the_server_starts(tmp_path):
    with pytest.raises(ConfigError, match="HYPCLIP_CORS_ORIGINS"):
        app_at(tmp_path, cors_origins=("*",))


# Errors


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (FetchFailed("'a.example' cannot be resolved"), 422, "fetch_failed"),
        (Unavailable("the store is down"), 503, "store_unavailable"),
    ],
)
def test_errors_of_what_lies_below_are_named(tmp_path, error, status, type):
    with TestClient(app_at(tmp_path, Failing(error))) as client:
        assert_error(client.post("/embed", json={"inputs": ["a"]}), status, type, str(error))


def test_an_error_of_ours_that_nobody_expects_is_500_and_says_nothing(tmp_path, caplog):
    class Broken(LocalStore):
        def collections(self):
            from hypclip.errors import StoreError

            raise StoreError("cannot use /secret/points.sqlite3")

    store = Broken(tmp_path / "index", create=True)
    with TestClient(create_app(Settings(index=tmp_path / "index"), FakeEngine(), store)) as client:
        response = client.get("/collections", headers={"x-request-id": "job-9"})
        assert_error(response, 500, "internal_error", "request id")
        assert "secret" not in response.text
    assert "job-9" in caplog.text
    assert "cannot use /secret/points.sqlite3" in caplog.text


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_and_says_why(tmp_path):
    async def load():
        raise StartFailed("the checkpoint has no weights")

    settings = Settings(index=tmp_path / "index", create_index=True)
    with TestClient(create_app(settings, FakeEngine(), load=load)) as client:
        assert_error(client.post("/admin/reload"), 500, "model_not_loaded", "the checkpoint has no weights")
        assert client.post("/embed", json={"inputs": ["a"]}).status_code == 200


def test_a_host_or_query_that_is_none_harms_nobody(client):
    raw = [(b"host", b"[::1")]
    assert_error(client.get("/nowhere", headers=raw), 421, "unknown_host", "'[::1'")


def test_a_query_of_raw_bytes_harms_nobody(tmp_path):
    async def scenario(state):
        replies = []

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            replies.append(message)

        scope = {"type": "http", "method": "GET", "path": "/nowhere", "raw_path": b"/nowhere", "query_string": b"\xff"}
        await app({**scope, "headers": [], "state": dict(state)}, receive, send)
        assert replies[0]["status"] == 404

    app = app_at(tmp_path)
    run(app, scenario)


def test_messages_quote_little_of_what_they_are_sent(client):
    long = "x" * 50_000
    for response in (
        client.get(f"/{long}"),
        client.post("/embed", json={"inputs": ["a"], long: 1}),
        client.post("/retrieve", json={"query": "a", "filter": {"kind": [[long]]}}),
        client.post("/v1/embeddings", json={"input": "a", "model": long}),
    ):
        assert response.status_code in (404, 422)
        assert len(response.json()["error"]["message"]) <= 1000
    odd = client.post("/embed", json={"inputs": ["a"], "a\nb\u202e\0": 1})
    assert_error(odd, 422, "invalid_request", "a\\nb\\u202e\\x00: Extra inputs are not permitted")


def test_an_object_of_many_fields_is_refused_as_a_whole(client):
    many = {str(i): 0 for i in range(100_000)}
    for body in (many, {"inputs": [many]}, {"inputs": [{"text": "a", **many}]}):
        response = client.post("/embed", json=body)
        assert_error(response, 422, "invalid_request")
        assert len(response.json()["error"]["message"]) < 200


def test_slashes_too_many_are_not_redirected(client):
    # A redirect would send the key along, in the clear if a proxy took care of TLS, to whatever the Host header says.
    for path in ("/embed/", "/collections/", "/docs/"):
        assert_error(client.get(path, headers={"host": "evil"}), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/collections/a/points", "DELETE, GET, PUT"),
        ("/collections/a/points/lookup", "POST"),
        ("/collections/a/points/x", "GET"),
        ("/embed", "POST"),
        ("/model", "GET"),
        ("/collections", "GET"),
    ],
)
def test_a_405_lists_every_method_of_the_path(client, path, allowed):
    for method in ("PATCH", "OPTIONS"):
        response = client.request(method, path)
        assert_error(response, 405, "method_not_allowed", f"{path} does not take {method}, only {allowed}")
        assert response.headers["allow"] == allowed


# The log


def test_a_line_of_the_log_cannot_be_forged(client, caplog):
    caplog.set_level(logging.INFO, "serve.access")
    client.get("/x%0aINFO%20serve.access:%20request_id=forged%1b%5b31m%ff")
    client.get("/" + "y" * 5_000)
    forged, long = [r for r in caplog.records if r.name == "serve.access"]
    assert forged.path == "/x%0AINFO%20serve.access:%20request_id=forged%1B%5B31m%EF%BF%BD"
    assert forged.getMessage().isprintable()
    assert " " not in forged.path
    assert len(long.path) <= 200


def test_a_line_has_what_an_operator_asks_for_and_no_query(client, caplog):
    caplog.set_level(logging.INFO, "serve.access")
    client.post("/embed?key=secret", json={"inputs": ["my text"]}, headers={"x-request-id": "job-3"})
    (record,) = [r for r in caplog.records if r.name == "serve.access"]
    assert (record.request_id, record.method, record.path, record.status) == ("job-3", "POST", "/embed", 200)
    assert 0 <= record.ms < 10_000
    assert re.fullmatch(r"request_id=job-3 method=POST path=/embed status=200 ms=[0-9.]+", record.getMessage())


def test_the_log_can_be_turned_off(tmp_path, caplog):
    caplog.set_level(logging.INFO, "serve.access")
    with TestClient(app_at(tmp_path, access_log=False)) as client:
        client.get("/model")
    assert not [r for r in caplog.records if r.name == "serve.access"]


def test_pictures_by_url_say_what_was_wrong_with_them(tmp_path, monkeypatch):
    async def fetch(self, url):
        raise FetchFailed("'a.example' answers with status 404 in place of an image")

    monkeypatch.setattr(Fetcher, "fetch", fetch)
    with TestClient(app_at(tmp_path)) as client:
        response = client.post("/embed", json={"inputs": [{"image": "https://a.example/a.png"}]})
        assert_error(response, 422, "fetch_failed", "status 404")
