"""What comes before a request has headers: bounded, timed, and refused in the shape of every other error."""

import asyncio
import json
import re
import socket
import time

import pytest
import uvloop

from serve.http import protocol
from serve.http.server import Server
from serve.settings import Settings
from tests.support.hostile.request import listening, posted, send
from tests.support.serving import app_at

GOOD = posted({"inputs": ["a"]}, Connection="close")


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with listening(app_at(tmp_path_factory.mktemp("serve"), max_body_bytes=1_000_000)) as port:
        yield port


def assert_refused(answer, status, type, part):
    got, headers, body, _ = answer
    assert got == status
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["connection"] == "close"
    error = json.loads(body)["error"]
    assert error.keys() == {"type", "message", "request_id"}
    assert error["type"] == type
    assert part in error["message"]
    assert re.fullmatch("[0-9a-f]{32}", error["request_id"])
    assert headers["x-request-id"] == error["request_id"]


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"\x16\x03\x01\0\0\0", b"GET /a\0b HTTP/1.1\r\n\r\n"])
def test_what_is_no_http(port, raw):
    assert_refused(send(port, raw), 400, "invalid_http", "HTTP/1.1")
    assert send(port, GOOD)[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 2**20,
        b"GET / HTTP/1.1\r\n" + b"X" * 2**20,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
    ],
    ids=["target", "value", "name", "many"],
)
def test_a_head_that_goes_on_is_refused_early(port, head):
    assert_refused(send(port, head), 431, "headers_too_large", "65,536 bytes")


def test_a_head_within_the_limit_is_read(port):
    status, *_ = send(port, posted({"inputs": ["a"]}, Connection="close", X="a" * 60_000))
    assert status == 200


def test_bodies_do_not_count(port):
    assert send(port, posted(b'{"inputs": ["a"]}' + b" " * 900_000, Connection="close"))[0] == 200


def test_what_follows_the_chunks_of_a_body_is_bounded_too(port):
    head = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\nX: ")

        def flood():
            for _ in range(1_000):
                connection.sendall(b"a" * 2**16)
                time.sleep(0.001)

        with pytest.raises(ConnectionError):
            flood()
    assert send(port, GOOD)[0] == 200


def test_a_request_that_does_not_come_is_408(monkeypatch, tmp_path):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with listening(app_at(tmp_path)) as port:
        for raw in (b"", b"G", b"GET / HTTP/1.1\r\nX: "):
            assert_refused(send(port, raw), 408, "request_timeout", "0.2 s")
        # Once its headers are there, a request has the deadline of requests.
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(GOOD[:-3])
            time.sleep(0.4)
            connection.sendall(GOOD[-3:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_a_connection_that_is_kept_may_rest(monkeypatch, tmp_path):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with listening(app_at(tmp_path)) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(2_000).startswith(b"HTTP/1.1 200")
            time.sleep(0.4)


def test_connections_do_not_wait_for_each_other(tmp_path):
    settings = Settings(index=tmp_path / "index", port=0)

    async def taken_at_once():
        server = Server(app_at(tmp_path / "app"), settings)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        address = server.servers[0].sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(60)]  # which the system takes, in the loop's stead
        for _ in range(10):
            await asyncio.sleep(0)
        found = len(server.server_state.connections)
        for client in clients:
            client.close()
        await server.shutdown()
        return found

    assert uvloop.run(taken_at_once()) == 60
