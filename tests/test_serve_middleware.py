"""What happens around requests: headers, room, time, and clients that go away."""

import asyncio

import pytest
from fastapi.testclient import TestClient
from serve_helpers import FakeEngine, app_at, assert_error

ORIGIN = "https://pictures.example.com"


class SlowEngine(FakeEngine):
    """Embeds texts when it is told to, and remembers who was cancelled."""

    def __init__(self):
        super().__init__()
        self.started, self.release, self.cancelled = asyncio.Event(), asyncio.Event(), False

    async def embed_text(self, texts):
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return await super().embed_text(texts)


def scope(path="/embed", body=b'{"inputs": ["a"]}', state=None):
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": dict(state or {}),
    }


class Call:
    """One request to an app by ASGI itself, whose client may hang up."""

    def __init__(self, app, state, body=b'{"inputs": ["a"]}'):
        self.messages, self.gone, self.body, self.read = [], asyncio.Event(), body, False
        self.task = asyncio.create_task(app(scope(body=body, state=state), self.receive, self.send))

    async def receive(self):
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"] if self.messages else None


def on_app(test):
    """Run a test inside the lifespan of an app with a slow engine."""

    def run(tmp_path):
        async def body():
            engine = SlowEngine()
            app = app_at(tmp_path, engine, **getattr(test, "settings", {}))
            async with app.router.lifespan_context(app) as state:
                await asyncio.wait_for(test(app, state, engine), 20)

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


def with_settings(**settings):
    def mark(test):
        test.settings = settings
        return test

    return mark


@on_app
async def test_who_hangs_up_is_dropped(app, state, engine):
    call = Call(app, state)
    await engine.started.wait()
    call.gone.set()
    await call.task
    assert engine.cancelled
    assert call.messages == []


@on_app
@with_settings(request_timeout_s=0.05)
async def test_a_request_that_takes_too_long_is_answered_504(app, state, engine):
    call = Call(app, state)
    await call.task
    assert call.status == 504
    assert b"HYPCLIP_REQUEST_TIMEOUT_S" in call.messages[1]["body"]
    assert engine.cancelled


@on_app
@with_settings(max_requests=2)
async def test_one_request_too_many_is_answered_429_and_room_comes_back(app, state, engine):
    first = [Call(app, state), Call(app, state)]
    await engine.started.wait()
    await asyncio.sleep(0)
    third = Call(app, state)
    await third.task
    assert third.status == 429
    assert dict(third.messages[0]["headers"])[b"retry-after"] == b"1"
    assert b"HYPCLIP_MAX_REQUESTS" in third.messages[1]["body"]
    engine.release.set()
    await asyncio.gather(*(call.task for call in first))
    assert [call.status for call in first] == [200, 200]
    last = Call(app, state)
    await last.task
    assert last.status == 200


@on_app
@with_settings(max_request_bytes=100)
async def test_bodies_are_bounded_together(app, state, engine):
    first = Call(app, state, b'{"inputs": ["' + b"a" * 80 + b'"]}')
    await engine.started.wait()
    second = Call(app, state, b'{"inputs": ["' + b"a" * 80 + b'"]}')
    await second.task
    assert second.status == 429
    assert b"HYPCLIP_MAX_REQUEST_BYTES" in second.messages[1]["body"]
    engine.release.set()
    await first.task
    assert first.status == 200


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with TestClient(app_at(tmp_path_factory.mktemp("http"), cors_origins=(ORIGIN,))) as client:
        yield client


@pytest.mark.parametrize("path", ["/model", "/nowhere", "/docs", "/collections/nothing"])
def test_every_answer_has_the_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "total;dur=" in headers["server-timing"]
    assert len(headers["x-request-id"]) == 32


def test_the_docs_need_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page
    script = page.split('src="')[1].split('"')[0]
    assert client.get(script).status_code == 200


def test_parts_of_the_work_are_timed(client):
    client.put("/collections/timed/points", json={"points": [{"id": "a", "text": "a"}]})
    timing = client.post("/retrieve", json={"query": {"id": "a"}, "collection": "timed"}).headers["server-timing"]
    assert timing.startswith("index;dur=")


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://elsewhere.example.com", None)])
def test_pages_of_listed_origins_only_may_call(client, origin, allowed):
    assert client.get("/model", headers={"origin": origin}).headers.get("access-control-allow-origin") == allowed
    asked = {"origin": origin, "access-control-request-method": "POST"}
    assert client.options("/embed", headers=asked).headers.get("access-control-allow-origin") == allowed


def test_while_draining_connections_end_and_readiness_is_gone(tmp_path):
    app = app_at(tmp_path)
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
        app.state.runtime.draining = True
        assert_error(client.get("/readyz"), 503, "not_ready", "going down")
        response = client.get("/healthz")
        assert (response.status_code, response.headers["connection"]) == (200, "close")


def test_a_silent_worker_is_not_healthy(tmp_path):
    engine = FakeEngine()
    with TestClient(app_at(tmp_path, engine)) as client:
        engine.silence_s = float("inf")
        for path in ("/healthz", "/readyz"):
            assert_error(client.get(path), 503, "worker_failed")
        assert client.get("/metrics").status_code == 200


def test_metrics_count_by_route_and_never_by_path(client):
    for i in range(30):
        client.get(f"/collections/unknown{i}")
        client.get(f"/nowhere/{i}")
    text = client.get("/metrics").text
    assert 'hypclip_requests_total{code="404",endpoint="/collections/{name}"} ' in text
    assert "unknown7" not in text
    assert "/nowhere" not in text
    assert 'hypclip_model_loaded{model="fake-1"} 1.0' in text
    assert 'hypclip_index_points{collection="timed"} 1.0' in text
