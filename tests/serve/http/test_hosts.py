"""Names of the web that lead to this machine: an open server answers to its own names only."""

import pytest
from fastapi.testclient import TestClient

from serve.http.keys import new_key
from tests.support.serving import app_at, assert_error

OURS = [
    "localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:8000", "127.8.9.1", "[::1]:8000", "[::1]",
    "192.168.1.7:8000", "hypclip:8000", "testserver",
]  # fmt: skip
HOSTILE = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io:8000",
    "evil.example.", "127.0.0.1@evil.example", "localhost@evil.example", "evil.example#localhost",
    "evil.example/localhost",
    "", ":8000", ".", "[::1].evil.example", "[evil.example]", "localhost:8000:80", "localhost evil.example",
    "127.0.0.1,evil.example", "0x7f.1", "127.1", "\u00e9vil.example", "x" * 5000 + ".example",
]  # fmt: skip


def asked(client, host, path="/model"):
    return client.get(path, headers=[("host", host.encode("latin-1"))])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("serve"))) as client:
        yield client


@pytest.mark.parametrize("host", OURS)
def test_addresses_and_local_names_are_answered(client, host):
    assert asked(client, host).status_code == 200


@pytest.mark.parametrize("host", HOSTILE)
def test_names_of_the_web_are_refused(client, host):
    assert_error(asked(client, host), 421, "unknown_host", "HYPCLIP_ALLOWED_HOSTS")


@pytest.mark.parametrize("path", ["/collections", "/docs", "/openapi.json", "/metrics", "/nowhere", "/"])
def test_nothing_is_told_by_a_name_of_the_web(client, path):
    assert_error(asked(client, "evil.example", path), 421, "unknown_host")


def test_nothing_is_written_by_a_name_of_the_web(client):
    body = {"points": [{"id": "a", "text": "a"}]}
    response = client.put("/collections/default/points", json=body, headers={"Host": "evil.example"})
    assert_error(response, 421, "unknown_host")
    assert client.get("/collections").json()["collections"] == []


def test_one_good_name_beside_a_hostile_one_is_no_help(client):
    response = client.get("/model", headers=[("host", "evil.example"), ("host", "localhost")])
    assert_error(response, 421, "unknown_host", "evil.example")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_by_any_name(client, path):
    assert asked(client, "pod.cluster.example", path).status_code == 200


@pytest.mark.parametrize(
    "settings, host, status",
    [
        ({"host": "me.example"}, "me.example:8000", 200),
        ({"host": "me.example"}, "you.example", 421),
        ({"allowed_hosts": ("a.example", "*.b.example")}, "A.example.:80", 200),
        ({"allowed_hosts": ("a.example", "*.b.example")}, "x.b.example", 200),
        ({"allowed_hosts": ("a.example", "*.b.example")}, "b.example", 421),
        ({"allowed_hosts": ("a.example", "*.b.example")}, "evilb.example", 421),
        ({"allowed_hosts": ("a.example",)}, "x.a.example", 421),
        ({"allowed_hosts": ("*",)}, "evil.example", 200),
        ({"host": "0.0.0.0"}, "evil.example", 421),
    ],
)
def test_more_names_are_a_setting(tmp_path, settings, host, status):
    with TestClient(app_at(tmp_path, **settings)) as client:
        assert asked(client, host).status_code == status


def test_keys_protect_by_themselves(tmp_path):
    key, sha256 = new_key()
    (tmp_path / "keys").write_text(f"k:read:{sha256}\n")
    with TestClient(app_at(tmp_path, api_keys_file=tmp_path / "keys")) as client:
        assert asked(client, "hypclip.example").status_code == 401
        headers = {"Host": "hypclip.example", "X-Api-Key": key}
        assert client.get("/model", headers=headers).status_code == 200


def test_what_is_refused_is_counted(tmp_path):
    with TestClient(app_at(tmp_path)) as client:
        asked(client, "evil.example")
        metrics = client.get("/metrics").text
    assert 'hypclip_rejected_total{reason="host"} 1.0' in metrics
