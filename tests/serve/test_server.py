"""The server as a process: signals, crashes, reloads. See support/processes.py for how many are started, and how."""

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import psutil
import pytest
import torch

from hypclip.search import LocalStore
from hypclip.search.errors import UnknownPoint
from tests.support.ports import free_port
from tests.support.processes import (
    PATIENCE_S,
    Nursery,
    eventually,
    is_running,
    start_module,
    tiny_checkpoint,
    worker_processes,
)
from tests.support.server_calls import embed, metric, points_of, suspended, until_refused, until_waiting, workers_of
from tests.support.serving import assert_error, encoded, quadrants

pytestmark = pytest.mark.slow

REAL = {"HYPCLIP_WORKERS": "1", "HYPCLIP_THREADS": "1", "HYPCLIP_DEVICE": "cpu"}
TEXTS = ["a dog", "a cat", "a photo of something", "x"]


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("models") / "checkpoint"


@pytest.fixture(scope="module")
def model(checkpoint):
    return tiny_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def fleet(nursery, model, checkpoint, tmp_path_factory):
    """Servers with a real model, all started at the same time, since it takes seconds; most tests use up one."""
    folder = tmp_path_factory.mktemp("fleet")

    def arguments(name):
        return ["--checkpoint", str(checkpoint), "--index", str(folder / name), "--create-index"]

    def start(name, port=None, **settings):
        return nursery.start(arguments(name), folder / f"{name}.log", port, **REAL, **settings)

    with socket.create_server(("127.0.0.1", 0)) as taken, contextlib.ExitStack() as stack:
        servers = SimpleNamespace(folder=folder)
        servers.shared = start_module(
            arguments("shared"), folder / "shared.log", free_port(), **REAL, HYPCLIP_LOG_FORMAT="json"
        )
        servers.ended = start("ended", HYPCLIP_DRAIN_S="0")
        servers.without_worker = start("without_worker")
        servers.killed = start("killed")
        servers.without_port = start("without_port", taken.getsockname()[1])
        for server in vars(servers).values():
            if server is not folder:
                stack.callback(server.end)
        yield servers


@pytest.fixture(scope="module")
def shared(fleet):
    """A server that is there for several tests, also with other models after reloads; at last it must end well."""
    server = fleet.shared.wait_until_ready()
    yield server
    workers = workers_of(server)
    server.send_signal(signal.SIGINT)
    assert server.exit_code() == 0
    assert not any(map(is_running, workers))


@pytest.fixture
def fake(nursery, tmp_path):
    """Start servers with a fake model, which takes no time."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            arguments = ["--index", str(tmp_path / "index"), "--create-index"]
            server = nursery.start(arguments, tmp_path / "log", fake=True, **settings)
            stack.callback(server.end)
            return server.wait_until_ready()

        yield start


@pytest.fixture(scope="module")
def interrupted(checkpoint, model, tmp_path_factory):
    """Servers that get a Ctrl-C while they import, and while the model is loaded: exit codes and what they wrote."""
    folder = tmp_path_factory.mktemp("interrupted")

    def run(name, due):
        arguments = ["--checkpoint", str(checkpoint), "--index", str(folder / name), "--create-index"]
        server = start_module(arguments, folder / f"{name}.log", free_port(), **REAL)
        try:
            eventually(lambda: due(psutil.Process(server.pid)), name)
            os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to all of its processes
            return server.exit_code(), server.written()
        finally:
            server.end()

    return {
        "importing": run("importing", lambda process: process.cpu_times().user > 0.5),
        "loading": run("loading", worker_processes),
    }


# A server and its model -----------------------------------------------------------------------------------------------


def test_a_model_end_to_end(shared, model):
    info = shared.client.get("/model").json()
    assert info["model"] == f"tiny-{info['revision'][:12]}"
    assert (info["dim"], info["geometry"]) == (16, "lorentz")
    assert info["curv"] == pytest.approx(model.curv.item())
    picture = quadrants()
    inputs = ["a dog", {"image": encoded(picture)}]
    expected = torch.cat([model.embed_text(["a dog"]), model.embed_image([picture])])
    torch.testing.assert_close(points_of(embed(shared, *inputs)), expected, rtol=0, atol=1e-5)
    points = [{"id": "picture", "image": encoded(picture)}, {"id": "text", "text": "a dog"}]
    assert shared.client.put("/collections/first/points", json={"points": points}).json()["count"] == 2
    query = {"query": {"image": encoded(picture)}, "modality": "image", "collection": "first"}
    (hit,) = shared.client.post("/retrieve", json=query).json()["hits"]
    assert hit["id"] == "picture"
    assert hit["distance"] == pytest.approx(0, abs=1e-3)
    scores = shared.client.post("/classify", json={"inputs": inputs, "labels": ["dog", "cat"]}).json()["data"]
    assert [sum(score["scores"].values()) for score in scores] == pytest.approx([1, 1])


def test_a_start_is_quiet_but_for_one_banner(shared):
    records = [json.loads(line) for line in shared.written().splitlines()]
    assert {record["logger"].partition(".")[0] for record in records} == {"serve"}
    banners = [record["message"] for record in records if "docs at /docs" in record["message"]]
    assert banners == [f"{shared.url} – docs at /docs"]
    assert {record["logger"] for record in records} <= {
        "serve.telemetry.logs",
        "serve.access",
        "serve.inference.backends",
    }


@pytest.mark.parametrize(("moment", "code"), [("importing", -signal.SIGINT), ("loading", 130)])
def test_a_ctrl_c_before_it_serves_ends_it_without_a_traceback(interrupted, moment, code):
    ended, written = interrupted[moment]
    assert ended == code
    assert "Traceback" not in written
    assert "KeyboardInterrupt" not in written


def test_requests_at_the_same_time_get_their_own_answers(shared, model):
    texts = [f"text number {i} " * (1 + i % 4) for i in range(60)]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda text: embed(shared, text), texts))
    got = torch.cat([points_of(answer) for answer in answers])
    torch.testing.assert_close(got, model.embed_text(texts), rtol=0, atol=1e-5)
    assert metric(shared, "hypclip_queue_depth") == 0


def test_clients_that_hang_up_leave_the_queue(shared):
    before = metric(shared, "hypclip_queue_depth")
    with suspended(shared.worker()):
        connections = []
        for i in range(5):
            body = json.dumps({"inputs": [f"given up {i}", f"given up too {i}"]})
            connection = socket.create_connection(("127.0.0.1", shared.port))
            head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
            connections.append(connection)
        assert before == 0
        until_waiting(shared, 10)
        for connection in connections:
            connection.close()
        until_waiting(shared, 0)
        assert metric(shared, "hypclip_queue_bytes") == 0
    assert embed(shared, "after them").status_code == 200


def test_the_log_is_json_with_the_ids_of_requests(shared):
    embed(shared, "logged", headers={"X-Request-Id": "job/7"})
    assert embed(shared, headers={"X-Request-Id": "job/8"}).status_code == 422

    def lines():
        return [json.loads(line) for line in shared.written().splitlines()]

    def logged(request_id):
        return [line for line in lines() if line.get("request_id") == request_id]

    eventually(lambda: logged("job/7") and logged("job/8"), "the lines")
    (answered,), (refused,) = logged("job/7"), logged("job/8")
    assert answered.keys() >= {"time", "level", "logger", "message", "queue_ms", "infer_ms", "pre_ms"}
    assert (answered["method"], answered["path"], answered["status"]) == ("POST", "/embed", 200)
    assert answered["ms"] > 0
    assert refused["status"] == 422
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines())


# Reload ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def load_on(server, models):
    """Ask all the time from several threads; each answer must be 200, and that of the model which it names."""
    stop, counts = threading.Event(), {}
    expected = {name: model.embed_text(TEXTS) for name, model in models.items()}

    def ask():
        with server.new_client() as client:
            for i in range(10**9):
                if stop.is_set():
                    return
                texts = [*TEXTS, f"{threading.get_ident()} {i}"]  # the last one is in no cache
                answer = client.post("/embed", json={"inputs": texts})
                assert answer.status_code == 200, answer.text
                name = answer.json()["model"]
                torch.testing.assert_close(points_of(answer)[:-1], expected[name], rtol=0, atol=1e-5)
                counts[name] = counts.get(name, 0) + 1
                time.sleep(0.02)  # some of the machine is for the model that loads

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            yield counts
        finally:
            stop.set()
        for each in asking:
            each.result()


def reload_by_post(server):
    assert server.client.post("/admin/reload").status_code == 200


def reload_by_signal(server):
    server.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("reload", [reload_by_post, reload_by_signal])
def test_a_reload_under_load_fails_no_request(shared, checkpoint, reload):
    def served():
        return shared.client.get("/model").json()

    before = served()
    (old_worker,) = workers_of(shared)
    seed = {reload_by_post: 1, reload_by_signal: 2}[reload]
    old = tiny_checkpoint(checkpoint, seed - 1)
    new = tiny_checkpoint(checkpoint, seed)  # put in place of the old one, whole
    name = f"tiny-{revision_at(checkpoint)[:12]}"
    assert name != before["model"]
    with load_on(shared, {before["model"]: old, name: new}) as counts:
        eventually(lambda: counts.get(before["model"], 0) > 4, "answers of the old model")
        reload(shared)
        eventually(lambda: counts.get(name, 0) > 4, "answers of the new model")
    assert served()["model"] == name
    assert served()["revision"] == revision_at(checkpoint) != before["revision"]
    assert metric(shared, "hypclip_model_loaded") == 1
    eventually(lambda: not is_running(old_worker), "the end of the old worker")
    assert len(workers_of(shared)) == 1
    picture = {"image": encoded(quadrants())}
    torch.testing.assert_close(points_of(embed(shared, picture)), new.embed_image([quadrants()]), rtol=0, atol=1e-5)
    assert shared.status("/readyz") == 200


def revision_at(checkpoint):
    import hypclip

    return hypclip.load(checkpoint).revision


def test_a_reload_of_what_is_broken_changes_nothing(shared, checkpoint):
    before = shared.client.get("/model").json()
    kept = points_of(embed(shared, "a dog"))
    (worker,) = workers_of(shared)
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    answer = shared.client.post("/admin/reload")
    weights.write_bytes(whole)
    assert_error(answer, 500, "model_not_loaded", f"cannot read {weights}")
    assert shared.client.get("/model").json() == before
    torch.testing.assert_close(points_of(embed(shared, "a dog")), kept, rtol=0, atol=0)
    assert embed(shared, "something that is in no cache").status_code == 200
    assert shared.status("/readyz") == 200
    eventually(lambda: workers_of(shared) == [worker], "the end of the other worker")


def test_a_signal_to_reload_that_fails_is_logged_and_ends_nothing(fake):
    server = fake()
    server.send_signal(signal.SIGHUP)  # it was started with a model of its own
    eventually(lambda: "the model was not loaded again: this server cannot load" in server.written(), "the line")
    assert server.status("/readyz") == 200


# The end --------------------------------------------------------------------------------------------------------------


def test_on_sigterm_it_is_not_ready_at_once_but_answers_for_a_while(fake):
    drain_s = 3.0
    server = fake(HYPCLIP_DRAIN_S=str(drain_s))
    start = time.monotonic()
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.status("/readyz") == 503, "503", drain_s / 2)
    assert server.status("/healthz") == 200
    answer = embed(server, "a dog")
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"
    until_refused(server)
    assert time.monotonic() - start > drain_s
    assert server.exit_code() == 0


def test_a_second_sigterm_skips_the_wait(fake):
    server = fake(HYPCLIP_DRAIN_S="3600")
    server.send_signal(signal.SIGTERM)
    eventually(lambda: server.status("/readyz") == 503, "503")
    server.send_signal(signal.SIGTERM)
    assert server.exit_code() == 0


class HalfSent:
    """A request whose body has not come in yet."""

    def __init__(self, server):
        body = json.dumps({"inputs": ["a dog"]}).encode()
        head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self.rest = body[5:]
        self.connection = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
        self.connection.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b"100 Continue" in self.connection.recv(1000)  # so the server has it
        self.connection.sendall(body[:5])

    def finish(self):
        self.connection.sendall(self.rest)
        received = b""
        with self.connection:
            while part := self.connection.recv(10_000):
                received += part
        return received


def test_ctrl_c_does_not_drain_but_waits_for_requests_under_way(fake):
    server = fake(HYPCLIP_DRAIN_S="3600")
    request = HalfSent(server)
    os.killpg(server.pid, signal.SIGINT)
    until_refused(server)
    answer = request.finish()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"model":"fake-1"' in answer
    assert server.exit_code() == 0


def test_one_more_signal_ends_it_without_them(fake):
    server = fake(HYPCLIP_REQUEST_TIMEOUT_S="3600")
    request = HalfSent(server)
    server.send_signal(signal.SIGINT)
    until_refused(server)
    server.send_signal(signal.SIGINT)
    assert server.exit_code() == 0
    request.connection.close()


def test_a_request_in_the_model_is_answered_before_the_end(fleet):
    """The signal goes to the whole group, as a supervisor sends it."""
    server = fleet.ended.wait_until_ready()
    worker = server.worker()
    with ThreadPoolExecutor() as threads, suspended(worker):
        requests = [threads.submit(embed, server, text) for text in TEXTS]
        until_waiting(server, len(TEXTS))
        os.killpg(server.pid, signal.SIGTERM)
        until_refused(server)
        assert not any(request.done() for request in requests)
        worker.resume()
        assert [request.result().status_code for request in requests] == [200] * len(TEXTS)
    assert server.exit_code() == 0
    assert not is_running(worker.pid)


def test_when_the_worker_is_killed_its_requests_fail_at_once_and_the_server_ends(fleet):
    server = fleet.without_worker.wait_until_ready()
    worker = server.worker()
    with ThreadPoolExecutor() as threads, suspended(worker):
        requests = [threads.submit(embed, server, text) for text in TEXTS]
        until_waiting(server, len(TEXTS))
        worker.kill()
        for request in requests:
            assert_error(request.result(), 503, "worker_failed", "died")

    def gone():
        status = server.status("/healthz")
        assert status in (503, 0), "it must not claim to be well"
        return status == 0

    eventually(gone, "the end of listening")
    assert server.exit_code() == 1
    assert "the process of the model has died" in server.written()


def test_killed_it_leaves_no_worker_and_loses_nothing(fleet):
    server = fleet.killed.wait_until_ready()
    points = [{"id": text, "text": text} for text in TEXTS]
    assert server.client.put("/collections/default/points", json={"points": points}).status_code == 200
    expected = points_of(embed(server, *TEXTS))
    worker = server.worker()
    server.send_signal(signal.SIGKILL)
    assert server.exit_code() == -signal.SIGKILL
    eventually(lambda: not is_running(worker.pid), "the end of the worker")
    with LocalStore(fleet.folder / "killed") as store:
        torch.testing.assert_close(store.get("default", TEXTS).vectors, expected)


def test_a_port_in_use_is_said_and_no_worker_is_left(fleet):
    server = fleet.without_port
    assert server.exit_code() not in (0, None)
    assert f"('127.0.0.1', {server.port}): address already in use" in server.written()
    eventually(
        lambda: not [p for p in psutil.process_iter() if process_group(p) == server.pid and is_running(p.pid)],
        "the end of its processes",
    )


def process_group(process):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(process.pid)
    return None


def test_killed_while_it_writes_it_keeps_every_write_that_it_acknowledged(fake, tmp_path):
    """A write is all there or not at all, and it is there when it was acknowledged, however often the server dies."""
    sent, acknowledged = {}, set()

    def write(server, name):
        random_numbers = random.Random(name)
        with server.new_client() as client, contextlib.suppress(httpx2.TransportError):
            for i in range(10**9):
                ids = [f"{name} {i} {j}" for j in range(3)]
                points = [{"id": each, "embedding": [random_numbers.random() for _ in range(12)]} for each in ids]
                sent[ids[0]] = points
                answer = client.put("/collections/default/points", json={"points": points})
                assert answer.status_code == 200, answer.text
                acknowledged.add(ids[0])

    def write_until_killed(turn):
        server = fake()
        goal = len(acknowledged) + 15 + turn
        with ThreadPoolExecutor(3) as threads:
            writing = [threads.submit(write, server, f"{turn} {i}") for i in range(3)]
            eventually(lambda: len(acknowledged) >= goal or any(each.done() for each in writing), "writes")
            server.send_signal(signal.SIGKILL)
            for each in writing:
                each.result()
        assert server.exit_code() == -signal.SIGKILL

    for turn in range(4):
        write_until_killed(turn)
        with LocalStore(tmp_path / "index") as store:
            for first, points in sent.items():
                ids = [point["id"] for point in points]
                if present(store, ids[:1]):
                    vectors = store.get("default", ids).vectors
                    torch.testing.assert_close(vectors, torch.tensor([point["embedding"] for point in points]))
                else:
                    assert first not in acknowledged
                    assert not any(present(store, [each]) for each in ids)
    assert len(acknowledged) >= 60
    server = fake()
    count = server.client.get("/collections/default").json()["count"]
    assert 3 * len(acknowledged) <= count <= 3 * len(sent)


def present(store, ids):
    with contextlib.suppress(UnknownPoint):
        store.get("default", ids)
        return True
    return False
