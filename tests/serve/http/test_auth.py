"""API keys: the file, the scopes, and that nothing of a request is read before its key is known to be good."""

import asyncio
import hashlib
import hmac
import json

import pytest
from fastapi.testclient import TestClient

from hypclip.errors import ConfigError
from serve.errors import Forbidden, Unauthorized
from serve.http import keys
from serve.http.keys import SCOPES, Keyring, needed_scope, new_key
from tests.support.serving import app_at, assert_error

KEYS = {scope: f"hyp_{scope}-" + "x" * 40 for scope in SCOPES}
NEEDED = {
    **{("GET", path): None for path in ("/healthz", "/readyz", "/metrics")},
    **{
        ("GET", path): "read"
        for path in ("/model", "/v1/models", "/v1/models/{model}", "/collections", "/collections/{name}")
    },
    **{
        ("GET", f"/collections/{{name}}/{path}"): "read"
        for path in ("points", "fields", "points/{id}", "points/{id}/thumbnail", "points/{id}/image")
    },
    **{("POST", path): "read" for path in ("/embed", "/v1/embeddings", "/retrieve", "/classify")},
    **{
        ("POST", f"/hierarchy/{name}"): "read"
        for name in ("ancestors", "descendants", "common_ancestors", "traverse", "mean", "order")
    },
    **{("POST", f"/collections/{{name}}/{path}"): "read" for path in ("points/lookup", "thumbnails")},
    **{(method, "/collections/{name}/points"): "write" for method in ("PUT", "DELETE")},
    ("GET", "/collections/{name}/map"): "read",
    ("PUT", "/collections/{name}/map"): "write",
    ("POST", "/collections/{name}/focus"): "read",
    ("POST", "/admin/reload"): "admin",
}
"""What every route of the app needs; a new one has to be added here."""


def sha256(key):
    return hashlib.sha256(key.encode()).hexdigest()


def keys_file(path, keys=KEYS):
    file = path / "keys"
    file.write_text("".join(f"{scope}-key:{scope}:{sha256(key)}\n" for scope, key in keys.items()))
    return file


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    with TestClient(app_at(path, api_keys_file=keys_file(path), cors_origins=("https://shop.example",))) as client:
        yield client


def bearer(scope):
    return {"authorization": f"Bearer {KEYS[scope]}"}


def test_the_table_above_has_every_route_and_the_document_says_the_same(client):
    described = {
        (method.upper(), path): operation
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method, operation in operations.items()
    }
    assert described.keys() == NEEDED.keys()
    for route, operation in described.items():
        needed = NEEDED[route]
        assert operation["security"] == ([] if needed is None else [{"bearer": []}, {"header": []}]), route
        assert (f"scope {needed}" in operation["description"]) == (needed is not None), route
    schemes = client.get("/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["header"]["in"], schemes["header"]["name"]) == ("header", "X-API-Key")


@pytest.mark.parametrize(("route", "needed"), NEEDED.items(), ids=str)
def test_a_route_takes_its_scope_and_no_lesser_one(client, route, needed):
    method, path = route[0], route[1].replace("{name}", "default")
    without = client.request(method, path)
    if needed is None:
        assert without.status_code == 200
        return
    assert_error(without, 401, "unauthorized", "Authorization: Bearer KEY")
    for scope in SCOPES:
        response = client.request(method, path, headers=bearer(scope))
        if SCOPES.index(scope) < SCOPES.index(needed):
            assert_error(response, 403, "forbidden", f"scope {needed}", f"'{scope}-key' has {scope}")
        else:
            assert response.status_code not in (401, 403)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/nowhere", "read"),
        ("GET", "/metrics/", "read"),
        ("GET", "/healthz/x", "read"),
        ("GET", "/explorerx", "read"),
        ("GET", "/explorer", "read"),
        ("GET", "/docsx", "read"),
        ("HEAD", "/collections", "read"),
        ("PATCH", "/embed", "write"),
        ("BREW", "/embed", "write"),
        ("GET", "/admin", "admin"),
        ("DELETE", "/admin/keys", "admin"),
        ("GET", "/admin/", "admin"),
    ],
)
def test_what_is_no_route_needs_a_key_too(client, method, path, needed):
    assert client.request(method, path).status_code == 401
    for scope in SCOPES:
        status = client.request(method, path, headers=bearer(scope)).status_code
        assert (status == 403) == (SCOPES.index(scope) < SCOPES.index(needed)), scope


def test_the_explorer_is_open(client):
    assert client.get("/").status_code == client.get("/explorer/js/main.js").status_code == 200
    assert client.get("/explorer/../collections").status_code == 401


def test_docs_are_open_and_lead_nowhere_else(client):
    for path in ("/docs", "/openapi.json", "/docs/static/swagger-ui.css"):
        assert client.get(path).status_code == 200
    for path in ("/docs/../collections", "/docs/static/../../collections", "/docs/static/%2e%2e/%2e%2e/model"):
        response = client.get(path)
        assert response.status_code in (401, 404), path
        assert "collections" not in response.json()


@pytest.mark.parametrize("protect", [False, True])
def test_metrics_can_be_protected(tmp_path, protect):
    app = app_at(tmp_path, api_keys_file=keys_file(tmp_path), protect_metrics=protect)
    with TestClient(app) as client:
        expected = (401, 403, 200) if protect else (200, 200, 200)
        given = [{}, bearer("write"), bearer("admin")]
        assert tuple(client.get("/metrics", headers=headers).status_code for headers in given) == expected
        security = client.get("/openapi.json").json()["paths"]["/metrics"]["get"]["security"]
        assert (security == []) == (not protect)


def test_without_a_file_nothing_asks_for_a_key(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        assert client.get("/model").status_code == 200
        assert "security" not in client.get("/openapi.json").text.replace("securitySchemes", "")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEYS['admin']}"},
        {"authorization": KEYS["admin"]},
        {"authorization": f"Bearer {KEYS['admin'][:-1]}"},
        {"authorization": f"Bearer {KEYS['admin']}x"},
        {"authorization": f"Bearer {sha256(KEYS['admin'])}"},
        {"authorization": f"Bearer {KEYS['admin'].upper()}"},
        {"authorization": "Bearer \xff\xfe"},
        {"authorization": "Bearer " + "k" * 100_000},
        {"x-api-key": "wrong"},
        {"cookie": f"key={KEYS['admin']}"},
    ],
)
def test_what_is_not_a_known_key_is_401(client, headers):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = client.get("/model", headers=raw)
    assert_error(response, 401, "unauthorized", "API key")
    assert response.headers["www-authenticate"] == "Bearer"
    for key in (*KEYS.values(), "wrong"):
        assert key not in response.text


def test_a_key_in_the_query_is_none(client):
    assert client.get(f"/model?api_key={KEYS['admin']}").status_code == 401


def test_both_headers_work(client):
    assert client.get("/model", headers={"authorization": f"bearer   {KEYS['read']} "}).status_code == 200
    assert client.get("/model", headers={"x-api-key": KEYS["read"]}).status_code == 200
    # A proxy's own authentication in front does not hide the key.
    assert client.get("/model", headers={"authorization": "Basic eDp5", "x-api-key": KEYS["read"]}).status_code == 200


def test_refusals_are_counted_once_each(client):
    def rejected():
        lines = client.get("/metrics").text.splitlines()
        return float(
            next(line.split()[-1] for line in lines if line.startswith('hypclip_rejected_total{reason="rights"'))
        )

    client.get("/model")
    before = rejected()
    client.get("/model")
    client.put("/collections/a/points", headers=bearer("read"))
    assert rejected() == before + 2


def test_all_keys_are_compared_and_in_constant_time(monkeypatch):
    compared = []

    def compare(a, b):
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(keys, "hmac", type("Hmac", (), {"compare_digest": staticmethod(compare)}))
    ring = Keyring([keys.ApiKey(scope, scope, sha256(key)) for scope, key in KEYS.items()])
    ring.check(KEYS["read"], "read")
    assert compared == [(sha256(key), sha256(KEYS["read"])) for key in KEYS.values()]
    compared.clear()
    with pytest.raises(Unauthorized):
        ring.check("nobody", "read")
    assert len(compared) == len(KEYS)


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Bearer nobody")]])
def test_the_body_is_not_read_before_the_key_is_known(tmp_path, headers):
    replies = []

    async def receive():
        raise AssertionError("the body was asked for")

    async def send(message):
        replies.append(message)

    async def call():
        app = app_at(tmp_path, api_keys_file=keys_file(tmp_path))
        async with app.router.lifespan_context(app) as state:
            scope = {"type": "http", "method": "POST", "path": "/embed", "raw_path": b"/embed", "query_string": b""}
            length = (b"content-length", b"1000000000")  # nor is its length looked at
            await app({**scope, "headers": [length, *headers], "state": dict(state)}, receive, send)

    asyncio.run(call())
    assert replies[0]["status"] == 401
    assert json.loads(replies[1]["body"])["error"]["type"] == "unauthorized"


def test_a_page_of_a_listed_origin_asks_ahead_without_a_key_and_then_sends_it(client):
    origin = {"origin": "https://shop.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-api-key"}
    ahead = client.options("/embed", headers={**origin, **asked})
    assert ahead.status_code == 200
    assert ahead.headers["access-control-allow-origin"] == origin["origin"]
    assert {"authorization", "x-api-key"} <= set(ahead.headers["access-control-allow-headers"].lower().split(", "))
    answer = client.post("/embed", json={"inputs": ["a"]}, headers={**origin, "x-api-key": KEYS["read"]})
    assert answer.status_code == 200
    # And its script can read why it was refused.
    refused = client.post("/embed", json={"inputs": ["a"]}, headers=origin)
    assert_error(refused, 401, "unauthorized")
    assert refused.headers["access-control-allow-origin"] == origin["origin"]


def test_options_that_ask_ahead_for_nobody_reach_no_route(client):
    assert_error(client.options("/embed"), 405, "method_not_allowed", "OPTIONS")


# The file of keys


def test_a_file_may_have_comments_blank_lines_and_spaces(tmp_path):
    key, digest = new_key()
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n  laptop : write : {digest.upper()}  # Ada's\n   \n")
    ring = Keyring.read(file)
    ring.check(key, "write")
    with pytest.raises(Forbidden, match="'laptop' has write"):
        ring.check(key, "admin")


@pytest.mark.parametrize(
    "line",
    [
        "laptop",
        "laptop:read",
        f"laptop:read:{KEYS['read']}",
        f"laptop:{sha256('x')}:read",
        f"laptop:root:{sha256('x')}",
        f"laptop:READ:{sha256('x')}",
        f"laptop:read,write:{sha256('x')}",
        f":read:{sha256('x')}",
        f"laptop:read:{sha256('x')}:more",
        f"laptop:read:{sha256('x')[:-1]}",
        f"laptop:read:{sha256('x')[:-1]}g",
        f"laptop:read:{'٣' * 64}",
        KEYS["admin"],
    ],
)
def test_a_line_that_is_none_is_named_by_its_number_and_not_echoed(tmp_path, line):
    file = tmp_path / "keys"
    file.write_text(f"good:read:{sha256('x')}\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: expected name:scope:sha256") as refused:
        Keyring.read(file)
    for secret in (*KEYS.values(), sha256("x")):
        assert secret not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n# none\n", b"\xff\xfe\x00"])
def test_a_file_without_keys_opens_nothing(tmp_path, content):
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="keys"):
        app_at(tmp_path, api_keys_file=file)


def test_a_file_that_is_not_there_opens_nothing(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        app_at(tmp_path, api_keys_file=tmp_path / "nothing")


def test_new_keys_differ_and_are_long():
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) > 40 and digest == sha256(key) for key, digest in made)


def test_scopes_hold_one_another():
    ring = Keyring([keys.ApiKey(scope, scope, sha256(key)) for scope, key in KEYS.items()])
    for have in SCOPES:
        for need in SCOPES:
            if SCOPES.index(have) >= SCOPES.index(need):
                ring.check(KEYS[have], need)
            else:
                with pytest.raises(Forbidden, match=f"scope {need}"):
                    ring.check(KEYS[have], need)


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/Metrics", "/admin", "/adminx", "/admin/x"])
def test_paths_are_told_apart_exactly(path):
    protected = {"/metrics": "admin", "/admin": "admin", "/admin/x": "admin"}
    assert needed_scope("GET", path, protect_metrics=True) == protected.get(path, "read")
