"""What is served at the moment, with fake engines that a test can hold back."""

import asyncio
import threading

import httpx2
import pytest

from hypclip.errors import CheckpointError, ConfigError
from serve.app import create_app
from serve.errors import InvalidRequest, NotReady, StartFailed, WorkerFailed
from serve.runtime import Runtime
from serve.settings import Settings
from tests.support.serving import FakeEngine, app_at, assert_error


class HeldEngine(FakeEngine):
    """Answers texts when it is told to."""

    def __init__(self, model_id="fake-1"):
        super().__init__(model_id)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.closings = 0

    async def embed_text(self, texts):
        self.asked.set()
        await self.go_on.wait()
        assert not self.closed, "it was closed under a request"
        return await super().embed_text(texts)

    async def aclose(self):
        self.closings += 1
        await super().aclose()


class Sphere(FakeEngine):
    geometry = "sphere"


class Loader:
    """Loads what it is given: engines and errors, one after the other, each when `gate` is open."""

    def __init__(self, *found):
        self.found = list(found)
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Event()

    async def __call__(self):
        self.called.set()
        await self.gate.wait()
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class Running:
    """An app in its lifespan, and a client of it."""

    def __init__(self, path, engine, load):
        settings = Settings(index=path / "index", create_index=True, worker_timeout_s=5.0)
        self.app = create_app(settings, engine, load=load)
        self.runtime: Runtime = self.app.state.runtime

    async def __aenter__(self):
        self.lifespan = self.app.router.lifespan_context(self.app)
        state = await self.lifespan.__aenter__()

        async def with_state(scope, receive, send):
            await self.app({**scope, "state": dict(state)}, receive, send)

        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(with_state), base_url="http://server")
        return self

    async def __aexit__(self, *error):
        await self.client.aclose()
        await self.lifespan.__aexit__(*error)

    async def model(self):
        return (await self.client.get("/model")).json()["model"]

    def embed(self):
        return asyncio.create_task(self.client.post("/embed", json={"inputs": ["a dog"]}))


def run(call):
    """Run an async test; nothing in it may take long."""
    return asyncio.run(asyncio.wait_for(call, 60))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_reload_swaps_the_model(tmp_path):
    async def call():
        old, new = FakeEngine("old"), FakeEngine("new")
        async with Running(tmp_path, old, Loader(new)) as server:
            assert await server.model() == "old"
            answer = await server.client.post("/admin/reload")
            assert (answer.status_code, answer.json()["model"]) == (200, "new")
            assert await server.model() == "new"
            assert 'hypclip_model_loaded{model="new"} 1.0' in (await server.client.get("/metrics")).text
            assert 'model="old"' not in (await server.client.get("/metrics")).text
            assert old.closed
            assert not new.closed
        assert new.closed

    run(call())


def test_requests_under_way_keep_their_model_which_is_closed_after_the_last(tmp_path):
    async def call():
        old, new = HeldEngine("old"), FakeEngine("new")
        async with Running(tmp_path, old, Loader(new)) as server:
            first, second = server.embed(), server.embed()
            await old.asked.wait()
            await settle()
            await server.runtime.reload()
            assert await server.model() == "new"
            assert (await server.embed()).json()["model"] == "new", "requests that come now get the new one"
            assert not old.closed
            first.cancel()
            await settle()
            assert not old.closed
            old.go_on.set()
            answer = await second
            assert (answer.status_code, answer.json()["model"]) == (200, "old")
            await settle()
            assert old.closings == 1

    run(call())


@pytest.mark.parametrize(
    "error", [StartFailed("damaged"), CheckpointError("damaged"), OSError("damaged"), MemoryError("damaged")], ids=repr
)
def test_a_load_that_fails_changes_nothing(tmp_path, error):
    async def call():
        old, new = FakeEngine("old"), FakeEngine("new")
        async with Running(tmp_path, old, Loader(error, new)) as server:
            with pytest.raises(type(error), match="damaged"):
                await server.runtime.reload()
            assert await server.model() == "old"
            assert not old.closed
            await server.runtime.reload()  # and the next one may do better
            assert await server.model() == "new"

    run(call())


def test_a_model_of_another_geometry_is_refused_and_closed(tmp_path):
    async def call():
        old, new = FakeEngine("old"), Sphere("new")
        async with Running(tmp_path, old, Loader(new)) as server:
            with pytest.raises(ConfigError, match=r"geometry 'sphere'.*needs 'lorentz'"):
                await server.runtime.reload()
            assert new.closed
            assert not old.closed
            assert await server.model() == "old"

    run(call())


def test_the_first_model_must_be_hyperbolic_too(tmp_path):
    with pytest.raises(ConfigError, match=r"geometry 'sphere'.*needs 'lorentz'"):
        app_at(tmp_path, Sphere())


def test_two_reloads_at_a_time_are_refused(tmp_path):
    async def call():
        new = FakeEngine("new")
        load = Loader(new)
        load.gate.clear()
        async with Running(tmp_path, FakeEngine("old"), load) as server:
            first = asyncio.create_task(server.client.post("/admin/reload"))
            await load.called.wait()
            second = await server.client.post("/admin/reload")
            assert_error(second, 422, "invalid_request", "already")
            assert await server.model() == "old", "the old one answers while the new one loads"
            load.gate.set()
            assert (await first).status_code == 200
            assert await server.model() == "new"

    run(call())


def test_a_server_made_without_a_loader_refuses_to_reload(tmp_path):
    async def call():
        async with Running(tmp_path, FakeEngine(), None) as server:
            assert_error(await server.client.post("/admin/reload"), 422, "invalid_request", "cannot load another model")

    run(call())


@pytest.mark.parametrize("error", [StartFailed("secret"), ConfigError("secret")], ids=repr)
def test_the_error_of_a_reload_has_the_shape_of_all_errors(tmp_path, caplog, error):
    async def call():
        async with Running(tmp_path, FakeEngine("old"), Loader(error)) as server:
            answer = await server.client.post("/admin/reload")
            assert answer.status_code >= 400
            assert_error(answer, answer.status_code, answer.json()["error"]["type"])
            assert "secret" in caplog.text + answer.text, "whoever runs the server must learn the reason"
            assert await server.model() == "old"

    run(call())


def test_a_reload_that_is_given_up_frees_the_way_for_the_next(tmp_path):
    async def call():
        load = Loader(FakeEngine("new"))
        load.gate.clear()
        async with Running(tmp_path, FakeEngine("old"), load) as server:
            given_up = asyncio.create_task(server.runtime.reload())
            await load.called.wait()
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            load.gate.set()
            await server.runtime.reload()
            assert await server.model() == "new"

    run(call())


def test_a_reload_that_the_end_of_the_server_overtakes_leaves_no_engine(tmp_path):
    async def call():
        old, new = FakeEngine("old"), FakeEngine("new")
        load = Loader(new)
        load.gate.clear()
        async with Running(tmp_path, old, load) as server:
            reloading = asyncio.create_task(server.runtime.reload())
            await load.called.wait()
        load.gate.set()
        with pytest.raises(NotReady):
            await reloading
        assert old.closed
        assert new.closed

    run(call())


def test_the_end_waits_for_engines_that_are_being_closed(tmp_path):
    async def call():
        closing, closed = asyncio.Event(), asyncio.Event()

        class Slow(FakeEngine):
            async def aclose(self):
                closing.set()
                await asyncio.sleep(0.05)
                closed.set()

        async with Running(tmp_path, Slow("old"), Loader(FakeEngine("new"))) as server:
            await server.runtime.reload()
            await closing.wait()
            assert not closed.is_set()
        assert closed.is_set()

    run(call())


# Health ---------------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_silent_for_too_long_is_unhealthy_and_not_ready(tmp_path):
    async def call():
        engine = FakeEngine()
        async with Running(tmp_path, engine, None) as server:
            engine.seconds_since_heartbeat = 4.9
            assert (await server.client.get("/healthz")).status_code == 200
            assert (await server.client.get("/readyz")).status_code == 200
            engine.seconds_since_heartbeat = 5.1
            for path in ("/healthz", "/readyz"):
                assert_error(await server.client.get(path), 503, "worker_failed", "5 s ago")
            engine.seconds_since_heartbeat = float("inf")
            assert_error(await server.client.get("/healthz"), 503, "worker_failed")

    run(call())


def test_a_server_that_drains_is_healthy_but_not_ready_and_still_answers(tmp_path):
    async def call():
        async with Running(tmp_path, FakeEngine(), None) as server:
            server.runtime.draining = True
            answer = await server.client.get("/readyz")
            assert_error(answer, 503, "not_ready", "going down")
            assert answer.headers["retry-after"] == "1"
            assert (await server.client.get("/healthz")).status_code == 200
            embedded = await server.embed()
            assert embedded.status_code == 200
            assert embedded.headers["connection"] == "close", "clients shall go to another server"

    run(call())


def test_readiness_asks_the_store(tmp_path):
    async def call():
        async with Running(tmp_path, FakeEngine(), None) as server:
            with server.runtime.lease() as service:
                threads = []

                def down():
                    threads.append(threading.get_ident())
                    raise OSError("the disk is gone")

                service.store.names = down
                assert (await server.client.get("/readyz")).status_code >= 500
                assert (await server.client.get("/healthz")).status_code == 200
                assert threads != [threading.get_ident()]

    run(call())


def test_there_is_no_service_before_the_start_and_after_the_end(tmp_path):
    async def call():
        server = Running(tmp_path, FakeEngine(), None)
        with pytest.raises(NotReady), server.runtime.lease():
            pass
        async with server:
            with server.runtime.lease() as service:
                service.settings.model_dump()
        with pytest.raises(NotReady), server.runtime.lease():
            pass

    run(call())


def test_a_worker_that_failed_fails_its_requests_only_with_503(tmp_path):
    class Dead(FakeEngine):
        async def embed_text(self, texts):
            raise WorkerFailed("the process of the model has died")

    async def call():
        async with Running(tmp_path, Dead(), None) as server:
            answer = await server.embed()
            assert_error(answer, 503, "worker_failed", "died")
            assert answer.headers["retry-after"] == "1"
            stored = {"points": [{"id": "a", "embedding": [0.1] * 12}]}
            assert (await server.client.put("/collections/default/points", json=stored)).status_code == 200

    run(call())


def test_reload_without_lifespan_is_refused():
    async def call():
        with pytest.raises(InvalidRequest):
            await Runtime(Loader()).reload()

    run(call())
