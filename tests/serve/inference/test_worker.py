"""The worker process, with a tiny model in it."""

import asyncio
import contextlib
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import uvloop

from hypclip.geometry.entailment import Plane
from hypclip.towers.image import resize_and_crop
from serve.errors import InputFailed, StartFailed, WorkerFailed
from serve.inference import backends
from serve.inference.batching import Batcher, Input, Limits
from serve.inference.worker import WorkerConfig, WorkerProcess, _load, _Model
from serve.telemetry.metrics import Metrics
from tests.support.processes import PATIENCE_S, eventually, is_running, tiny_checkpoint, worker_processes
from tests.support.serving import quadrants

pytestmark = pytest.mark.slow

SHORT_S = 2.5
TEXTS = ["a dog", "a photo of a small dog that sleeps", "cat", "x " * 40]
PICTURES = [quadrants(size) for size in ((64, 48), (20, 90), (32, 32))]


class Worker:
    """A worker, and what became of it."""

    def __init__(self, timeout_s):
        self.deaths = []
        self.timeout_s = timeout_s
        self.process = None

    async def start(self, checkpoint):
        config = WorkerConfig(checkpoint, "cpu", "torch", "float32", 1, "text")
        self.process = await WorkerProcess.start(config, self.deaths.append, self.timeout_s)

    async def compute(self, modality, inputs):
        done = asyncio.get_running_loop().create_future()
        self.process.send(modality, inputs, done.set_result)
        return await done


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worker") / "checkpoint"
    model = tiny_checkpoint(folder, entailment={"form": "plane", "threshold": 0.25})
    model.folder = folder
    return model


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "checkpoint"
    tiny_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    return folder


@pytest.fixture(scope="module")
def started(runner, model, damaged):
    """Workers, all started at the same time, since it takes seconds; and those that cannot be."""
    workers = SimpleNamespace(
        shared=Worker(PATIENCE_S),
        killed=Worker(PATIENCE_S),
        hung=Worker(SHORT_S),
        closed=Worker(PATIENCE_S),
        damaged=Worker(PATIENCE_S),
    )

    async def start():
        folders = {"damaged": damaged}
        starts = [worker.start(folders.get(name, model.folder)) for name, worker in vars(workers).items()]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        workers.errors = dict(zip(list(vars(workers)), outcomes, strict=True))

    async def close():
        await asyncio.gather(*(w.process.aclose() for w in vars(workers).values() if getattr(w, "process", None)))

    runner.run(start())
    yield workers
    runner.run(close())


@pytest.fixture
def shared(started):
    return started.shared


def tokens(model, texts):
    return [model.tokenizer([text])[0].numpy() for text in texts]


def pixels(model, pictures):
    resize = resize_and_crop(model.image_size)
    return [np.ascontiguousarray(np.asarray(resize(picture)).transpose(2, 0, 1)) for picture in pictures]


def batcher(worker):
    limits = Limits({"text": 2, "image": 2}, 0.0, 100, 10**9, PATIENCE_S)
    return Batcher([worker.process], limits, Metrics())


async def until(met, what):
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


# What it computes -----------------------------------------------------------------------------------------------------


def test_the_card_says_what_the_model_is(shared, model):
    card = shared.process.card
    assert card.model_id == f"tiny-{card.revision[:12]}"
    assert (card.geometry, card.dim, card.image_size) == ("lorentz", 16, 32)
    assert card.curv == pytest.approx(model.curv.item())
    assert card.logit_scale == pytest.approx(model.logit_scale.item())
    assert card.entailment == Plane(threshold=0.25)
    assert card.text_cfg["context_length"] == 16


@pytest.mark.parametrize(("wide", "packs"), [(0, True), (65, False)])
def test_texts_are_packed_or_padded_as_the_backend_says(monkeypatch, model, wide, packs):
    monkeypatch.setattr(backends, "_WIDE", wide)
    _, runs = _load(WorkerConfig(model.folder, "cpu", "torch", "float32", torch.get_num_threads(), "text"))
    assert runs.backend.packs_texts is packs
    ids, lengths = model.tokenizer.encode(TEXTS)
    rows = runs.embed((ids.numpy(), lengths))
    np.testing.assert_allclose(np.stack(rows), model.embed_text(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_batch_of_texts_is_what_the_model_makes_of_them(runner, shared, model, count):
    done = runner.run(shared.compute("text", tokens(model, TEXTS[:count])))
    torch.testing.assert_close(torch.tensor(np.stack(done.rows)), model.embed_text(TEXTS[:count]), rtol=0, atol=1e-5)
    assert done.seconds > 0


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_does_not_depend_on_those_beside_it(runner, shared, model, text):
    alone = runner.run(shared.compute("text", tokens(model, [text]))).rows[0]
    beside = runner.run(shared.compute("text", tokens(model, [*TEXTS, text]))).rows[-1]
    np.testing.assert_allclose(alone, beside, rtol=0, atol=1e-5)
    np.testing.assert_allclose(alone, model.embed_text([text])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_of_pictures_is_what_the_model_makes_of_them(runner, shared, model, count):
    done = runner.run(shared.compute("image", pixels(model, PICTURES[:count])))
    torch.testing.assert_close(
        torch.tensor(np.stack(done.rows)), model.embed_image(PICTURES[:count]), rtol=0, atol=1e-5
    )


def test_batches_are_answered_in_the_order_they_were_sent(runner, shared, model):
    async def call():
        return await asyncio.gather(*(shared.compute("text", tokens(model, [text])) for text in TEXTS))

    rows = np.stack([done.rows[0] for done in runner.run(call())])
    np.testing.assert_allclose(rows, model.embed_text(TEXTS), rtol=0, atol=1e-5)


def test_an_input_the_model_fails_on_fails_alone(runner, shared, model):
    good = tokens(model, TEXTS[:2])
    bad = np.array([10**6, 49407])  # no such token
    first, failed, second = runner.run(shared.compute("text", [good[0], bad, good[1]])).rows
    assert isinstance(failed, InputFailed)
    np.testing.assert_allclose(np.stack([first, second]), model.embed_text(TEXTS[:2]), rtol=0, atol=1e-5)
    assert isinstance(runner.run(shared.compute("text", [bad])).rows[0], InputFailed)
    assert len(runner.run(shared.compute("text", good)).rows) == 2


class FakeBackend:
    def __init__(self, error):
        self.error = error

    def text(self, rows):
        if (rows.ids == 9).any():
            raise self.error
        return rows.padded(0).float()


def test_memory_that_runs_out_on_a_gpu_fails_one_input_and_not_the_process():
    model = _Model(FakeBackend(torch.OutOfMemoryError("too much")))
    first, failed, last = model.embed((np.array([1, 2, 9, 3]), [2, 1, 1]))
    assert failed is None
    np.testing.assert_array_equal(first, [1, 2])
    np.testing.assert_array_equal(last, [3])


@pytest.mark.parametrize("error", [MemoryError(), torch.AcceleratorError("device-side assert triggered")], ids=repr)
def test_what_only_a_new_process_gets_over_ends_this_one(error):
    with pytest.raises(type(error)):
        _Model(FakeBackend(error)).embed((np.array([1, 2, 9]), [2, 1]))


# Starting -------------------------------------------------------------------------------------------------------------


def test_damaged_weights_are_named(started, damaged):
    error = started.errors["damaged"]
    assert isinstance(error, StartFailed)
    assert f"cannot read {damaged / 'model.safetensors'}" in str(error)
    assert started.damaged.deaths == []


@contextlib.asynccontextmanager
async def starting(worker, checkpoint):
    """Start a worker, and go on when its process is there and has hardly begun to load."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def born():
        return [child for child in worker_processes(psutil.Process()) if child.pid not in before]

    start = asyncio.create_task(worker.start(checkpoint))
    await until(born, "the process is there")
    (child,) = born()
    yield start, child
    assert not is_running(child.pid)


def test_a_process_that_ends_while_it_loads_fails_the_start(runner, model):
    worker = Worker(PATIENCE_S)

    async def call():
        async with starting(worker, model.folder) as (start, child):
            child.kill()
            with pytest.raises(StartFailed, match="ended while it loaded"):
                await start

    runner.run(call())
    assert worker.deaths == []


def test_a_start_that_nobody_waits_for_leaves_no_process(runner, model, caplog):
    worker = Worker(PATIENCE_S)

    async def call():
        async with starting(worker, model.folder) as (start, _):
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start

    runner.run(call())
    assert worker.deaths == []
    assert caplog.records == []


# Ending ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_meant_for_the_server_do_not_end_it(runner, shared, model, number):
    os.kill(shared.process.pid, number)
    assert len(runner.run(shared.compute("text", tokens(model, TEXTS))).rows) == len(TEXTS)
    assert shared.deaths == []


def test_killed_it_fails_what_waits_at_once_and_says_so_once(runner, started, model):
    worker = started.killed
    queue = batcher(worker)
    worker.deaths = Deaths(queue)
    worker.process._on_death = worker.deaths.append

    async def call():
        os.kill(worker.process.pid, signal.SIGSTOP)  # so that nothing is answered before it dies
        texts = [Input(row, row.tobytes()) for row in tokens(model, TEXTS)]
        requests = [asyncio.create_task(queue.run("text", [text])) for text in texts]
        await asyncio.sleep(0)
        os.kill(worker.process.pid, signal.SIGKILL)
        outcomes = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), PATIENCE_S / 2)
        with pytest.raises(WorkerFailed):
            await queue.run("text", texts[:1])
        return outcomes

    outcomes = runner.run(call())
    assert [type(outcome) for outcome in outcomes] == [WorkerFailed] * len(TEXTS)
    runner.run(worker.process.aclose())
    assert len(worker.deaths) == 1


class Deaths(list):
    def __init__(self, queue):
        self.queue = queue

    def append(self, failure):
        super().append(failure)
        self.queue.fail(failure)


def test_it_is_not_blamed_for_the_time_that_the_server_itself_stood_still(runner, started, model):
    worker = started.hung
    time.sleep(1.5 * SHORT_S)  # the event loop does not run here either; a container that is paused does the same
    runner.run(until(lambda: worker.process.seconds_since_heartbeat < 0.5, "a beat"))
    assert worker.deaths == []
    assert len(runner.run(worker.compute("text", tokens(model, TEXTS))).rows) == len(TEXTS)


def test_hung_it_is_killed_after_its_time(runner, started, model):
    worker = started.hung
    process = psutil.Process(worker.process.pid)

    async def call():
        process.suspend()
        worker.process.send("text", tokens(model, TEXTS), lambda done: pytest.fail("it was stopped"))
        start = time.monotonic()
        await until(lambda: worker.deaths, "its death")
        assert worker.process.seconds_since_heartbeat > SHORT_S
        return time.monotonic() - start

    assert runner.run(call()) > SHORT_S
    assert len(worker.deaths) == 1
    assert isinstance(worker.deaths[0], WorkerFailed)
    runner.run(worker.process.aclose())
    assert not is_running(process.pid)
    assert len(worker.deaths) == 1


def test_closing_it_answers_what_was_sent_and_ends_it(runner, started, model):
    worker = started.closed
    pid = worker.process.pid

    async def call():
        answers = [asyncio.create_task(worker.compute("text", tokens(model, TEXTS))) for _ in range(3)]
        await asyncio.sleep(0)
        await worker.process.aclose()
        await worker.process.aclose()  # twice does no harm
        return await asyncio.wait_for(asyncio.gather(*answers), 1)

    assert [len(done.rows) for done in runner.run(call())] == [len(TEXTS)] * 3
    assert worker.deaths == []
    eventually(lambda: not is_running(pid), "its end")
    assert worker.process._process.exitcode == 0
