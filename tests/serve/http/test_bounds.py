"""Bounds around every request: how many bytes, how many at a time, how long; and clients that go away."""

import asyncio
import contextlib
import logging
import re

import pytest
from fastapi.testclient import TestClient

from serve.app import create_app
from serve.errors import Overloaded
from serve.settings import Settings
from tests.support.middleware import EMBED, Failing, Gate, ask, run
from tests.support.serving import FakeEngine, app_at, assert_error


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve")
    with TestClient(app_at(path, cors_origins=("https://shop.example",))) as client:
        yield client


def count(answer_or_text, line):
    text = getattr(answer_or_text, "text", answer_or_text)
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


# Bodies


@pytest.mark.parametrize("length", ["101", "9" * 25, "9" * 5_000])
def test_what_is_announced_to_be_too_large_is_not_read(tmp_path, length):
    async def scenario(state):
        announced = [(b"content-length", length.encode())]
        unread = [{"type": "never"}]
        assert_error(await ask(app, state, headers=announced, messages=unread), 413, "body_too_large", "100 bytes")
        metrics = await ask(app, state, path="/metrics", method="GET")
        assert count(metrics, 'hypclip_rejected_total{reason="body"}') == 1
        assert count(metrics, 'hypclip_requests_total{code="413",endpoint="/embed"}') == 1

    app = app_at(tmp_path, max_body_bytes=100)
    run(app, scenario)


@pytest.mark.parametrize("length", ["", "-5", "abc", "²", "+4"])
def test_a_length_that_is_none_counts_for_nothing(tmp_path, length):
    async def scenario(state):
        announced = [(b"content-length", length.encode("latin-1"))]
        assert (await ask(app, state, headers=announced)).status_code == 200

    app = app_at(tmp_path, max_body_bytes=100)
    run(app, scenario)


def test_a_body_that_grows_too_large_is_refused_in_the_middle(tmp_path):
    async def scenario(state):
        parts = [{"type": "http.request", "body": b"x" * 60, "more_body": True}] * 5
        assert_error(
            await ask(app, state, messages=parts), 413, "body_too_large", "100 bytes", "HYPCLIP_MAX_BODY_BYTES"
        )
        assert (await ask(app, state)).status_code == 200  # and its bytes do not count any more

    app = app_at(tmp_path, max_body_bytes=100, max_request_bytes=100)
    run(app, scenario)


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip", "x"])
def test_compressed_bodies_are_refused_unread(client, encoding):
    response = client.post("/embed", content=EMBED, headers={"content-encoding": encoding})
    assert_error(response, 415, "unsupported_media_type", "Content-Encoding")
    assert client.post("/embed", json={"inputs": ["a"]}, headers={"content-encoding": "identity"}).status_code == 200


# How many at a time


def test_too_many_requests_at_a_time_are_429_and_health_is_not_counted(tmp_path):
    async def scenario(state):
        first = asyncio.create_task(ask(app, state))
        await engine.asked.wait()
        refused = await ask(app, state, path="/model", method="GET")
        assert_error(refused, 429, "overloaded", "1 requests", "HYPCLIP_MAX_REQUESTS")
        assert refused.headers["retry-after"] == "1"
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await ask(app, state, path=path, method="GET")
            assert answer.status_code == 200
        assert count(answer, 'hypclip_rejected_total{reason="requests"}') == 1
        assert count(answer, 'hypclip_requests_total{code="429",endpoint="/model"}') == 1
        engine.open.set()
        assert (await first).status_code == 200
        assert (await ask(app, state, path="/model", method="GET")).status_code == 200

    engine = Gate()
    app = app_at(tmp_path, engine, max_requests=1)
    run(app, scenario)


def test_too_many_bytes_at_a_time_are_429(tmp_path):
    async def scenario(state):
        first = asyncio.create_task(ask(app, state))
        await engine.asked.wait()
        refused = await ask(app, state, body=EMBED + b" " * 80)
        assert_error(refused, 429, "overloaded", "100 bytes", "HYPCLIP_MAX_REQUEST_BYTES")
        assert refused.headers["retry-after"] == "1"
        engine.open.set()
        assert (await first).status_code == 200
        # Alone it is taken: it fits, or it would have been refused for its own size.
        assert (await ask(app, state, body=EMBED + b" " * 200)).status_code == 200
        metrics = await ask(app, state, path="/metrics", method="GET")
        assert count(metrics, 'hypclip_rejected_total{reason="bytes"}') == 1

    engine = Gate()
    app = app_at(tmp_path, engine, max_request_bytes=100)
    run(app, scenario)


def test_what_asks_for_embeddings_is_refused_unread_while_the_queue_is_full(tmp_path):
    class Full(FakeEngine):
        def check_room(self):
            raise Overloaded("the queue of the model is full", "max_queue_items", 2.0)

    app = create_app(Settings(index=tmp_path / "index", create_index=True), Full())
    with TestClient(app) as client:
        for path in ("/embed", "/v1/embeddings"):
            answer = client.post(path, content=b"no JSON at all")
            assert_error(answer, 429, "overloaded", "HYPCLIP_MAX_QUEUE_ITEMS")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.post("/retrieve", json={"query": {"embedding": [0.1] * 12}}).status_code != 429
        assert client.get("/readyz").status_code == 200


# How long


def test_what_takes_too_long_is_504_and_given_up(tmp_path):
    async def scenario(state):
        answer = await ask(app, state)
        assert_error(answer, 504, "deadline_exceeded", "0.5 s", "HYPCLIP_REQUEST_TIMEOUT_S")
        assert engine.given_up.is_set()
        metrics = await ask(app, state, path="/metrics", method="GET")
        assert count(metrics, 'hypclip_rejected_total{reason="deadline"}') == 1
        assert count(metrics, 'hypclip_requests_total{code="504",endpoint="/embed"}') == 1

    engine = Gate()
    app = app_at(tmp_path, engine, request_timeout_s=0.5)
    run(app, scenario)


def test_a_body_that_does_not_come_is_504(tmp_path):
    async def scenario(state):
        first = [{"type": "http.request", "body": b"{", "more_body": True}]
        assert_error(await ask(app, state, messages=first), 504, "deadline_exceeded")

    app = app_at(tmp_path, request_timeout_s=0.05)
    run(app, scenario)


def test_a_timeout_of_something_else_is_not_taken_for_the_deadline(tmp_path, caplog):
    with TestClient(app_at(tmp_path, Failing(TimeoutError("of a socket")))) as client:
        assert_error(client.post("/embed", json={"inputs": ["a"]}), 500, "internal_error")
        assert count(client.get("/metrics"), 'hypclip_rejected_total{reason="deadline"}') == 0
    assert "of a socket" in caplog.text


def test_loading_a_model_takes_as_long_as_it_takes(tmp_path):
    async def load():
        await asyncio.sleep(0.2)
        return FakeEngine("fake-2")

    settings = Settings(index=tmp_path / "index", create_index=True, request_timeout_s=0.05)
    with TestClient(create_app(settings, FakeEngine(), load=load)) as client:
        assert client.post("/admin/reload").json()["model"] == "fake-2"


# Clients that go away


@pytest.mark.parametrize("last", [EMBED, EMBED[:5]], ids=["after the body", "in the middle of it"])
def test_a_client_that_goes_away_is_given_up_and_logged_as_499(tmp_path, caplog, last):
    caplog.set_level(logging.INFO, "serve.access")
    whole = last == EMBED

    async def scenario(state):
        coming = asyncio.Queue()
        coming.put_nowait({"type": "http.request", "body": last, "more_body": not whole})

        async def receive():
            return await coming.get()

        async def send(message):
            raise AssertionError("there is nobody to answer")

        scope = {"type": "http", "method": "POST", "path": "/embed", "raw_path": b"/embed", "query_string": b""}
        json_type = [(b"content-type", b"application/json")]
        request = asyncio.create_task(app({**scope, "headers": json_type, "state": dict(state)}, receive, send))
        if whole:
            await engine.asked.wait()
        coming.put_nowait({"type": "http.disconnect"})
        await request  # without an error, which would go to the log of the HTTP server
        assert engine.given_up.is_set() == whole
        metrics = await ask(app, state, path="/metrics", method="GET")
        assert count(metrics, 'hypclip_requests_total{code="499",endpoint="/embed"}') == 1

    engine = Gate()
    app = app_at(tmp_path, engine)
    run(app, scenario)
    (line,) = [record for record in caplog.records if record.name == "serve.access" and record.path == "/embed"]
    assert line.status == 499
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_server_that_ends_cancels_for_good(tmp_path):
    async def scenario(state):
        request = asyncio.create_task(ask(app, state))
        await engine.asked.wait()
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        assert request.cancelled()

    engine = Gate()
    app = app_at(tmp_path, engine)
    run(app, scenario)


def test_while_the_server_goes_down_connections_end_with_their_answers(tmp_path):
    app = app_at(tmp_path)
    with TestClient(app) as client:
        assert "connection" not in client.get("/model").headers
        app.state.runtime.draining = True
        assert client.get("/model").headers["connection"] == "close"
        assert client.post("/embed", content=b"{").headers["connection"] == "close"
        assert_error(client.get("/readyz"), 503, "not_ready", "going down")
        assert client.get("/healthz").status_code == 200
