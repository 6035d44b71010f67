"""The files of the explorer: what is served of them, with which headers, and how large they are together."""

import gzip
import hashlib
import re

import pytest
from fastapi.testclient import TestClient

from serve.api.page import FOLDER, TYPES, files
from serve.http.keys import new_key
from tests.support.serving import app_at, assert_error

LIT = "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2"
"""SHA-256 of lit-html.js in lit-html-3.3.3.tgz of npm."""
GZIPPED_BYTES = 120_000


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("files"))) as client:
        yield client


def policy_of(response):
    parts = response.headers["content-security-policy"].split("; ")
    return {name: values.split() for name, _, values in (part.partition(" ") for part in parts)}


def test_the_page_names_only_files_that_are_served(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="(?!docs)([^"]+)"', page.text)
    assert len(named) >= 3
    for path in named:
        assert client.get(f"/{path}").status_code == 200, path


def test_modules_import_only_files_that_are_served():
    for path, file in files().items():
        if not path.endswith(".js") or path.startswith("vendor/"):
            continue
        text = file.content.decode()
        for named in re.findall(r'^(?:import|export) .*?from "([^"]+)"', text, re.MULTILINE | re.DOTALL):
            assert named.startswith("."), (path, named)
            assert (FOLDER / path).parent.joinpath(named).resolve().is_relative_to(FOLDER.resolve())
            assert (FOLDER / path).parent.joinpath(named).resolve().is_file(), (path, named)


@pytest.mark.parametrize("path", files())
def test_files_come_with_their_type_and_a_policy_without_exceptions(client, path):
    response = client.get(f"/explorer/{path}")
    assert response.content == (FOLDER / path).read_bytes()
    assert response.headers["content-type"] == TYPES[(FOLDER / path).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-cache"
    policy = policy_of(response)
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert not any("unsafe" in value for values in policy.values() for value in values)


def test_what_has_not_changed_is_not_sent_again(client):
    etag = client.get("/").headers["etag"]
    again = client.get("/", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/", headers={"if-none-match": '"other"'}).status_code == 200


def test_head_is_answered(client):
    response = client.head("/explorer/js/main.js")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["", "js", "js/", "nothing.js", "../app.py", "%2e%2e/app.py", "js/../../app.py", "js/..%2f..%2fapp.py",
     "/etc/passwd", "%2fetc%2fpasswd", "vendor/lit-html.LICENSE", "js\\main.js", "js/main.js%00", "JS/MAIN.JS"],
)  # fmt: skip
def test_nothing_else_is_served(client, path):
    assert_error(client.get(f"/explorer/{path}"), 404, "not_found")


def test_the_page_is_open_and_what_it_asks_is_not(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"reader:read:{new_key()[1]}\n")
    with TestClient(app_at(tmp_path, api_keys_file=keys)) as client:
        for path in ("/", "/explorer/js/main.js", "/explorer/explorer.css"):
            assert client.get(path).status_code == 200
        for path in ("/explorer", "/explorer/../collections", "/collections", "/explorerx"):
            assert client.get(path).status_code in (401, 404), path


def test_metrics_know_the_files_by_one_name(client):
    for path in ("/", "/explorer/js/main.js", "/explorer/js/api.js", "/explorer/made-up"):
        client.get(path)
    metrics = client.get("/metrics").text
    endpoints = set(re.findall(r'endpoint="([^"]*)"', metrics))
    assert {"/", "/explorer/{path}"} <= endpoints
    assert not any("main.js" in endpoint or "made-up" in endpoint for endpoint in endpoints)


def test_everything_together_is_small():
    assert sum(len(gzip.compress(file.content)) for file in files().values()) <= GZIPPED_BYTES


def test_lit_is_the_published_file():
    assert hashlib.sha256((FOLDER / "vendor" / "lit-html.js").read_bytes()).hexdigest() == LIT
    assert "BSD 3-Clause" in (FOLDER / "vendor" / "lit-html.LICENSE").read_text()


@pytest.mark.parametrize("path", [path for path in files() if not path.startswith("vendor/")])
def test_nothing_of_others_can_become_markup(path):
    text = files()[path].content.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "unsafeHTML", "srcdoc"):
        assert word not in text, word
    assert not re.search(r"""\sstyle=["$]""", text), "styles are set as properties, which the policy lets through"
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
