"""The engine: with two real workers and a tiny model, and with fake workers where it is about their lives."""

import asyncio
import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
import uvloop
from PIL import Image

from hypclip.geometry.entailment import Cone
from serve.errors import InputFailed, StartFailed, WorkerFailed
from serve.inference.batching import BatchDone
from serve.inference.engine import ModelEngine
from serve.inference.worker import ModelCard
from serve.settings import Settings
from serve.telemetry import timing
from serve.telemetry.metrics import Metrics
from tests.support.processes import PATIENCE_S, TOWERS, tiny_checkpoint
from tests.support.serving import BLUE, RED, quadrants

CACHE = 8
SIZES = [(1, 1), (32, 32), (33, 31), (3, 200), (500, 7), (31, 32), (1600, 1200)]


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tmp_path_factory.mktemp("engine") / "checkpoint"


@pytest.fixture(scope="module")
def model(checkpoint):
    """A model of before, whose config does not say what entails what."""
    model = tiny_checkpoint(checkpoint)
    config = (checkpoint / "config.yaml").read_text()
    rule = "  entailment:\n    eta: 1.0\n    min_radius: 0.1\n    strict: true\n    form: cone\n"
    assert rule in config
    (checkpoint / "config.yaml").write_text(config.replace(rule, ""))
    return model


@pytest.fixture(scope="module")
def metrics():
    return Metrics()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """What the workers write while they start."""
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def engine(runner, model, checkpoint, metrics, log):
    settings = Settings(
        checkpoint=checkpoint, workers=2, threads=1, text_cache=CACHE, max_batch_tokens=16, batch_wait_ms=0
    )
    with written_to(log):
        engine = runner.run(ModelEngine.start(settings, metrics, pytest.fail))
    yield engine
    runner.run(engine.aclose())


@contextlib.contextmanager
def written_to(file):
    """Have this process and those that it starts write their stderr to a file."""
    before = os.dup(2)
    with file.open("wb") as output:
        os.dup2(output.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def total(metric, name):
    return sum(sample.value for each in metric.collect() for sample in each.samples if sample.name == name)


def computed(metrics):
    """How many inputs have gone to the workers."""
    return total(metrics.batch_size, "hypclip_batch_size_sum")


async def points_of(engine, texts):
    return (await engine.embed_text(texts)).points


def close_to(points, expected):
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-5)


async def suspended(processes, call):
    """Await something while processes stand still."""
    with contextlib.ExitStack() as stack:
        for pid in processes:
            process = psutil.Process(pid)
            process.suspend()
            stack.callback(process.resume)
        return await asyncio.wait_for(call, PATIENCE_S)


# With real workers ----------------------------------------------------------------------------------------------------


def test_it_says_what_it_serves(engine, model):
    assert engine.model_id == f"tiny-{engine.revision[:12]}"
    assert len(engine.revision) == 64
    assert (engine.geometry, engine.dim) == ("lorentz", 16)
    assert engine.curv == pytest.approx(model.curv.item())
    assert engine.logit_scale == pytest.approx(model.logit_scale.item())
    assert len(set(engine.pids)) == 2


def test_a_model_of_before_has_the_cones_of_meru_which_is_said_once(engine, log):
    assert engine.entailment == Cone()
    assert log.read_text().count("does not say what entails what: it is taken to be by the cones of MERU") == 1


def test_texts_are_what_the_model_makes_of_them(runner, engine, model):
    texts = [
        "a dog",
        "",
        "a cat that sleeps",
        "a dog",
        "<end_of_text>",
        "é 狗 🐕",
        "one two three four five six seven " * 9,
    ]
    points = runner.run(points_of(engine, texts))
    assert points.dtype == torch.float32
    close_to(points, model.embed_text(texts))


def test_more_texts_than_a_batch_and_the_cache_hold(runner, engine, model):
    texts = [f"number {i} " * (1 + i % 5) for i in range(4 * CACHE)]
    close_to(runner.run(points_of(engine, texts)), model.embed_text(texts))


def test_pictures_of_all_sizes(runner, engine, model):
    pictures = [quadrants(size) for size in SIZES]
    points = runner.run(engine.embed_image([engine.prepare(picture) for picture in pictures]))
    assert points.dtype == torch.float32
    close_to(points, model.embed_image(pictures))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_by_itself(runner, engine, model, size):
    picture = quadrants(size)
    close_to(runner.run(engine.embed_image([engine.prepare(picture)])), model.embed_image([picture]))


def test_pictures_are_prepared_by_several_threads(engine):
    pictures = [quadrants((40 + i, 30)) for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(engine.prepare, pictures))
    for prepared, picture in zip(together, pictures, strict=True):
        alone = engine.prepare(picture)
        assert prepared.key == alone.key
        np.testing.assert_array_equal(prepared.array, alone.array)


def test_pictures_are_known_by_their_pixels(engine):
    red, red_again, blue = (engine.prepare(Image.new("RGB", (50, 40), colour)) for colour in (RED, RED, BLUE))
    assert red.key == red_again.key
    assert red.key != blue.key
    assert red.array.dtype == np.uint8
    assert red.array.shape == (3, 32, 32)


def test_equal_pictures_are_computed_once(runner, engine, metrics, model):
    picture = engine.prepare(quadrants())
    points = runner.run(engine.embed_image([picture] * 3))
    close_to(points, model.embed_image([quadrants()] * 3))


def test_a_repeated_text_is_answered_without_a_worker(runner, engine, metrics, model):
    runner.run(points_of(engine, ["a dog", "a cat"]))
    before, hits = computed(metrics), total(metrics.cache_hits, "hypclip_cache_hits_total")
    points = runner.run(suspended(engine.pids, points_of(engine, ["a cat", "a dog", "a cat"])))
    close_to(points, model.embed_text(["a cat", "a dog", "a cat"]))
    assert computed(metrics) == before
    assert total(metrics.cache_hits, "hypclip_cache_hits_total") == hits + 3


def test_only_what_is_not_kept_is_computed(runner, engine, metrics, model):
    runner.run(points_of(engine, ["kept"]))
    before, misses = computed(metrics), total(metrics.cache_misses, "hypclip_cache_misses_total")
    close_to(runner.run(points_of(engine, ["kept", "new", "kept"])), model.embed_text(["kept", "new", "kept"]))
    assert computed(metrics) == before + 1
    assert total(metrics.cache_misses, "hypclip_cache_misses_total") == misses + 1


def test_the_cache_keeps_what_was_used_last(runner, engine, metrics):
    runner.run(points_of(engine, [f"t{i}" for i in range(CACHE)]))
    runner.run(points_of(engine, ["t0"]))
    runner.run(points_of(engine, ["one more"]))
    before = computed(metrics)
    runner.run(points_of(engine, ["t0", "one more", *(f"t{i}" for i in range(2, CACHE))]))
    assert computed(metrics) == before
    runner.run(points_of(engine, ["t1"]))
    assert computed(metrics) == before + 1


def test_what_a_caller_does_to_its_points_changes_no_later_answer(runner, engine, model):
    runner.run(points_of(engine, ["a dog"])).zero_()
    runner.run(points_of(engine, ["a dog"])).zero_()
    close_to(runner.run(points_of(engine, ["a dog"])), model.embed_text(["a dog"]))


class SpyingTokenizer:
    """Notes on which threads it is called."""

    def __init__(self, tokenizer):
        self.tokenizer, self.threads = tokenizer, set()

    def encode(self, texts):
        self.threads.add(threading.get_ident())
        return self.tokenizer.encode(texts)


@pytest.mark.parametrize("words, leaves", [(10, False), (1000, True)])
def test_long_texts_are_tokenized_off_the_event_loop(runner, engine, model, monkeypatch, words, leaves):
    texts = [f"text {words} " + "dog " * words, f"short {words}"]
    spy = SpyingTokenizer(engine._tokenizer)
    monkeypatch.setattr(engine, "_tokenizer", spy)
    close_to(runner.run(points_of(engine, texts)), model.embed_text(texts))
    assert (threading.get_ident() in spy.threads) != leaves


def test_tokens_are_counted_whether_or_not_a_text_is_known(runner, engine):
    for _ in range(2):
        assert runner.run(engine.embed_text(["a dog", "cat", "a dog"])).tokens == 4 + 3 + 4  # with a start and an end
    assert runner.run(engine.embed_text(["dog " * 5000])).tokens == 16


def test_two_workers_share_the_work(runner, engine, model):
    """While one stands still the other one answers, and what the first was given is answered when it goes on."""
    stopped = engine.pids[0]

    async def call():
        requests = [asyncio.create_task(points_of(engine, [f"shared {i}"])) for i in range(2)]
        done, waiting = await suspended([stopped], asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED))
        assert (len(done), len(waiting)) == (1, 1)
        return torch.cat(await asyncio.gather(*requests))

    close_to(runner.run(call()), model.embed_text(["shared 0", "shared 1"]))


def test_silence_is_that_of_the_worker_heard_of_least(runner, engine):
    async def until(met):
        while not met():
            await asyncio.sleep(0.05)

    async def call():
        await asyncio.wait_for(until(lambda: engine.seconds_since_heartbeat < 0.9), PATIENCE_S)
        await suspended([engine.pids[1]], until(lambda: engine.seconds_since_heartbeat > 1.5))
        await asyncio.wait_for(until(lambda: engine.seconds_since_heartbeat < 0.9), PATIENCE_S)

    runner.run(call())


# With fake workers ----------------------------------------------------------------------------------------------------


class FakeProcess:
    """Stands for WorkerProcess: the row of an input is its sum, unless a test takes hold of the batch."""

    card = ModelCard(
        model_id="fake",
        revision="f" * 64,
        geometry="lorentz",
        curv=1.0,
        dim=1,
        logit_scale=1.0,
        entailment=Cone(),
        image_size=32,
        text_cfg=TOWERS["text_cfg"],
    )
    seconds_since_heartbeat = 0.0
    pid = 1

    def __init__(self, config, on_death):
        self.config, self.on_death = config, on_death
        self.closed = False
        self.holding = False

    def send(self, modality, inputs, done):
        if not self.holding:
            rows = [np.array([array.sum()], np.float32) for array in inputs]
            asyncio.get_running_loop().call_soon(done, BatchDone(rows, 0.001))

    async def aclose(self):
        self.closed = True


class Processes:
    """Starts fake processes as `outcomes` has it: an error, an event to wait for, or None."""

    def __init__(self, monkeypatch, *outcomes):
        self.outcomes, self.started, self.failures = list(outcomes), [], []
        monkeypatch.setattr("serve.inference.engine.WorkerProcess", self)

    async def start(self, config, on_death, timeout_s):
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        process = FakeProcess(config, on_death)
        self.started.append(process)
        if outcome is not None:
            try:
                await outcome.wait()
            except BaseException:
                await process.aclose()
                raise
        return process

    def engine(self, **settings):
        return ModelEngine.start(Settings(**settings), Metrics(), self.failures.append)


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "cores, settings, workers, threads",
    [
        (8, {"device": "cpu"}, 2, 4),
        (1, {"device": "cpu"}, 1, 1),
        (8, {"device": "cuda:1"}, 1, 8),
        (8, {"workers": 3}, 3, 2),
        (8, {"workers": 16}, 16, 1),
        (8, {"workers": 2, "threads": 5}, 2, 5),
    ],
)
def test_the_cores_are_shared_out(monkeypatch, cores, settings, workers, threads):
    monkeypatch.setattr("serve.inference.engine.cores", lambda: cores)
    processes = Processes(monkeypatch)
    asyncio.run(processes.engine(**settings))
    assert [process.config.threads for process in processes.started] == [threads] * workers


def test_one_worker_that_cannot_start_ends_the_others(monkeypatch):
    async def call():
        loading = asyncio.Event()  # never set: what still loads is not waited for
        processes = Processes(monkeypatch, None, StartFailed("no room"), loading)
        with pytest.raises(StartFailed, match="no room"):
            await processes.engine(workers=3)
        return processes

    processes = asyncio.run(call())
    assert [process.closed for process in processes.started] == [True, True]
    assert processes.failures == []


def test_a_start_that_is_cancelled_leaves_no_worker(monkeypatch):
    async def call():
        processes = Processes(monkeypatch, None, asyncio.Event())
        start = asyncio.create_task(processes.engine(workers=2))
        await turns()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        return processes

    assert [process.closed for process in asyncio.run(call()).started] == [True, True]


def test_a_worker_that_dies_while_another_loads_fails_the_start(monkeypatch):
    async def call():
        loading = asyncio.Event()
        processes = Processes(monkeypatch, None, loading)
        start = asyncio.create_task(processes.engine(workers=2))
        await turns()
        processes.started[0].on_death(WorkerFailed("gone"))
        loading.set()
        with pytest.raises(StartFailed, match="died"):
            await start
        return processes

    processes = asyncio.run(call())
    assert [process.closed for process in processes.started] == [True, True]
    assert processes.failures == [], "what is not served yet is no reason to end the server"


def test_when_a_worker_dies_everything_fails_and_is_told_once(monkeypatch):
    async def call():
        processes = Processes(monkeypatch)
        engine = await processes.engine(workers=2)
        for process in processes.started:
            process.holding = True
        requests = [asyncio.create_task(points_of(engine, [f"text {i}"])) for i in range(3)]
        await turns()
        processes.started[1].on_death(WorkerFailed("gone"))
        outcomes = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), PATIENCE_S)
        assert [str(outcome) for outcome in outcomes] == ["gone"] * 3
        processes.started[0].on_death(WorkerFailed("gone too"))
        with pytest.raises(WorkerFailed):
            await points_of(engine, ["later"])
        assert engine.seconds_since_heartbeat == float("inf")
        await engine.aclose()
        return processes

    processes = asyncio.run(call())
    assert [str(failure) for failure in processes.failures] == ["gone"]
    assert all(process.closed for process in processes.started)


def test_without_a_cache_every_text_is_computed(monkeypatch):
    async def call():
        engine = await Processes(monkeypatch).engine(text_cache=0)
        first, again = await points_of(engine, ["a dog"]), await points_of(engine, ["a dog"])
        assert torch.equal(first, again)
        return engine._metrics

    metrics = asyncio.run(call())
    assert computed(metrics) == 2
    assert total(metrics.cache_hits, "hypclip_cache_hits_total") == 0


def test_a_text_that_failed_is_not_kept(monkeypatch):
    async def call():
        processes = Processes(monkeypatch)
        engine = await processes.engine(workers=1)
        (process,) = processes.started
        send = process.send

        def fail(modality, inputs, done):
            asyncio.get_running_loop().call_soon(done, BatchDone([InputFailed("no")] * len(inputs), 0.001))

        process.send = fail
        with pytest.raises(InputFailed):
            await points_of(engine, ["a dog"])
        process.send = send
        return await points_of(engine, ["a dog"])

    assert asyncio.run(call()).shape == (1, 1)


def test_a_request_is_told_its_parts(monkeypatch):
    async def call():
        engine = await Processes(monkeypatch).engine()
        with timing.timings() as parts:
            await points_of(engine, ["a dog"])
        return parts

    assert asyncio.run(call()).keys() == {"pre", "queue", "infer"}
