"""The queue before the workers: who is let in, who goes away, what fails, and any schedule of all of it."""

import asyncio
import functools
import gc
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve.errors import InputFailed, Overloaded, WorkerFailed
from serve.telemetry import timing
from tests.support.batching import (
    WAIT_S,
    Clock,
    advance,
    answer,
    ask,
    ask_pictures,
    make,
    on_clock,
    picture,
    rows_of,
    settle,
    text,
)


def depth(metrics, name="queue_depth", sample="hypclip_queue_depth"):
    """Sum a metric over its labels."""
    samples = [each for metric in getattr(metrics, name).collect() for each in metric.samples]
    return sum(each.value for each in samples if each.name == sample)


# Requests that go away ------------------------------------------------------------------------------------------------


@on_clock
async def test_a_cancelled_request_is_never_sent_and_its_room_is_free_at_once():
    batcher, metrics, worker = make(max_items=5)
    running = ask(batcher, 0)
    await settle()
    waiting = ask(batcher, 1, 2)
    other = ask(batcher, 3)
    await settle()
    assert depth(metrics) == 4
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert depth(metrics) == 2
    third = ask(batcher, 4, 5, 6)  # there is room for three again
    await settle()
    worker.finish()
    await settle()
    worker.finish()
    assert [sent.values for sent in worker.sent] == [[0], [3, 4, 5, 6]]
    assert [await rows_of(r) for r in (running, other, third)] == [answer(0), answer(3), answer(4, 5, 6)]
    assert depth(metrics) == depth(metrics, "queue_bytes", "hypclip_queue_bytes") == 0


@on_clock
async def test_cancelled_inputs_do_not_make_a_batch_full():
    batcher, _, worker = make()
    ask(batcher, 0)
    await settle()
    ask(batcher, 1)
    gone = ask(batcher, 2, 3)
    await settle()
    gone.cancel()
    await settle()
    ask(batcher, 4)
    await settle()
    assert len(worker.sent) == 1
    ask(batcher, 5, 6)
    await settle()
    assert worker.sent[1].values == [1, 4, 5, 6]


@on_clock
async def test_cancelled_inputs_are_not_kept_while_the_worker_is_busy():
    """Clients that come and go faster than the worker computes must not fill the memory."""
    batcher, _, worker = make()
    ask_pictures(batcher, 0)
    await settle()
    kept = ask_pictures(batcher, 1)
    image = picture(2)
    pixels = weakref.ref(image.array)
    gone = asyncio.create_task(batcher.run("image", [image]))
    del image
    await settle()
    assert worker.sent[1].values == [1, 2]  # a full batch, ahead of time
    image = picture(3)
    pixels = weakref.ref(image.array)
    gone = asyncio.create_task(batcher.run("image", [image]))
    del image
    await settle()
    assert pixels() is not None
    gone.cancel()
    await settle()
    del gone
    gc.collect()
    assert pixels() is None
    assert not kept.done()


@on_clock
async def test_cancelling_a_running_request_harms_no_other_of_its_batch():
    batcher, metrics, worker = make()
    ask(batcher, 0)
    await settle()
    gone, stays = ask(batcher, 1, 2), ask(batcher, 2, 3)
    await settle()
    worker.finish()
    await settle()
    gone.cancel()
    await settle()
    worker.finish()
    assert await rows_of(stays) == answer(2, 3)
    assert gone.cancelled()
    assert depth(metrics) == 0


# Admission ------------------------------------------------------------------------------------------------------------


async def refused(request, setting):
    await settle()
    with pytest.raises(Overloaded, match=f"HYPCLIP_{setting.upper()}") as caught:
        request.result()
    return caught.value


@on_clock
async def test_a_request_is_queued_whole_or_not_at_all():
    batcher, metrics, worker = make(max_items=5)
    ask(batcher, 0, 1, 2)
    await settle()
    await refused(ask(batcher, 3, 4, 5), "max_queue_items")
    assert depth(metrics) == 3
    fits = ask(batcher, 6, 7)
    await settle()
    await refused(ask(batcher, 8), "max_queue_items")
    worker.finish()
    await advance(WAIT_S)
    worker.finish()
    assert await rows_of(fits) == answer(6, 7)
    assert all(value not in (3, 4, 5, 8) for sent in worker.sent for value in sent.values)
    assert depth(metrics) == depth(metrics, "queue_bytes", "hypclip_queue_bytes") == 0
    assert depth(metrics, "rejected", "hypclip_rejected_total") == 2


@on_clock
async def test_texts_and_pictures_share_the_room():
    batcher, _, _ = make(max_items=3)
    ask(batcher, 0, 1)
    await settle()
    await refused(ask_pictures(batcher, 2, 3), "max_queue_items")
    fits = ask_pictures(batcher, 4)
    await settle()
    assert not fits.done()


@on_clock
async def test_bytes_are_bounded():
    size = text(0).array.nbytes
    batcher, _, worker = make(max_bytes=3 * size)
    ask(batcher, 0)
    await settle()
    await refused(ask(batcher, 1, 2, 3), "max_queue_bytes")
    fits = ask(batcher, 4, 5)
    await settle()
    worker.finish()
    await advance(WAIT_S)
    worker.finish()
    assert await rows_of(fits) == answer(4, 5)


@pytest.mark.parametrize("limits", [{"max_items": 2}, {"max_bytes": 1}])
@on_clock
async def test_a_request_over_the_bounds_runs_when_it_is_alone(limits):
    batcher, metrics, worker = make(**limits)
    request = ask(batcher, *range(4))
    await settle()
    await refused(ask(batcher, 9), f"max_queue_{next(iter(limits)).removeprefix('max_')}")
    worker.finish()
    assert await rows_of(request) == answer(*range(4))
    again = ask(batcher, *range(4))
    await advance(WAIT_S)
    assert depth(metrics) == 4
    worker.finish()
    assert await rows_of(again) == answer(*range(4))


@on_clock
async def test_what_would_wait_too_long_is_refused_with_the_time_it_takes_but_a_crowd_is_welcome():
    batcher, _, worker = make(max_expected_s=10.0)
    ask(batcher, 0, 1)
    await settle()
    worker.finish(seconds=6.0)  # three seconds an input
    crowd = [ask(batcher, i) for i in range(128)]
    await settle()
    assert not any(each.done() for each in crowd)
    error = await refused(ask(batcher, 128), "max_queue_s")
    assert error.retry_after_s == pytest.approx(3.0 * 128)
    while worker.unfinished:
        worker.finish()
        await advance(WAIT_S)
    assert [await rows_of(each) for each in crowd] == [answer(i) for i in range(128)]


@on_clock
async def test_the_expected_time_is_shared_by_the_workers_and_follows_the_last_batches():
    batcher, _, first, _ = make(workers=2, max_items=4)
    ask(batcher, 0)
    await settle()
    first.finish(seconds=1.0)
    await advance(WAIT_S)
    ask(batcher, 1)
    await settle()
    first.finish(seconds=2.0)
    await advance(WAIT_S)
    ask(batcher, 2, 3, 4, 5)
    await settle()
    error = await refused(ask(batcher, 6), "max_queue_items")
    assert error.retry_after_s == pytest.approx(4 * (0.8 * 1.0 + 0.2 * 2.0) / 2)


# Failures -------------------------------------------------------------------------------------------------------------


@on_clock
async def test_an_input_that_fails_reaches_its_own_request_only():
    batcher, metrics, worker = make()
    ask(batcher, 0)
    await settle()
    bad, good, also_bad = ask(batcher, 1, 2), ask(batcher, 3), ask(batcher, 2)
    await settle()
    worker.finish()
    worker.finish(v2=InputFailed("the model failed on this input"))
    assert await rows_of(good) == answer(3)
    for request in (bad, also_bad):
        with pytest.raises(InputFailed):
            request.result()
    assert depth(metrics) == 0


@on_clock
async def test_what_is_left_of_a_failed_request_is_not_computed():
    batcher, metrics, worker = make()
    request = ask(batcher, *range(11))
    await settle()
    worker.finish(v0=InputFailed("the model failed on this input"))
    await settle()
    with pytest.raises(InputFailed):
        request.result()
    worker.finish()
    await advance(WAIT_S)
    assert sorted(value for sent in worker.sent for value in sent.values) == list(range(8)), (
        "two batches were under way"
    )
    assert depth(metrics) == 0


@on_clock
async def test_when_a_worker_dies_all_fail_at_once_and_all_that_come_later():
    batcher, metrics, worker = make()
    running, waiting, pictures = ask(batcher, 0, 1), ask(batcher, 2), ask_pictures(batcher, 3)
    await settle()
    assert len(worker.unfinished) == 1
    batcher.fail(WorkerFailed("gone"))
    later = ask(batcher, 4)
    await settle()
    for request in (running, waiting, pictures, later):
        with pytest.raises(WorkerFailed, match="gone"):
            request.result()
    await advance(10 * WAIT_S)
    assert len(worker.sent) == 1
    assert depth(metrics) == depth(metrics, "queue_bytes", "hypclip_queue_bytes") == 0


@on_clock
async def test_a_batch_that_comes_in_after_the_failure_is_passed_over():
    batcher, _, first, second = make(workers=2)
    requests = [ask(batcher, 0), ask(batcher, 1)]
    await settle()
    batcher.fail(WorkerFailed("gone"))
    await settle()
    (first if first.unfinished else second).finish()
    await settle()
    assert all(isinstance(request.exception(), WorkerFailed) for request in requests)


# What is told ---------------------------------------------------------------------------------------------------------


@on_clock
async def test_a_request_knows_how_long_it_waited_and_ran():
    batcher, metrics, worker = make()
    ask(batcher, 0)
    await settle()
    with timing.timings() as parts:
        request = ask(batcher, 1)
    await advance(2.0)
    worker.finish(seconds=2.0)
    await settle()
    worker.finish(seconds=0.5)
    await rows_of(request)
    assert parts == {"queue": 2.0, "infer": 0.5}
    waits = {s.name: s.value for m in metrics.queue_wait.collect() for s in m.samples if not s.name.endswith("bucket")}
    assert (waits["hypclip_queue_wait_seconds_count"], waits["hypclip_queue_wait_seconds_sum"]) == (2, 2.0)
    sizes = {s.name: s.value for m in metrics.batch_size.collect() for s in m.samples if not s.name.endswith("bucket")}
    assert sizes["hypclip_batch_size_count"] == 2


# Any schedule ---------------------------------------------------------------------------------------------------------


class AnySchedule(RuleBasedStateMachine):
    """Requests come, go away, fail and are computed in any order: each is answered once, with its own rows."""

    MAX_ITEMS = 24

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=Clock)
        self.batcher, self.metrics, *self.workers = self.runner.run(self._make())
        self.requests = []  # (modality, values, task)
        self.bad = set()
        self.cancelled = set()

    async def _make(self):
        return make(workers=2, max_items=self.MAX_ITEMS)

    def _turn(self, act):
        async def turn():
            result = act()
            await settle()
            return result

        return self.runner.run(turn())

    @rule(
        modality=st.sampled_from(["text", "text", "image"]),
        values=st.lists(st.integers(0, 12), min_size=1, max_size=9),
        length=st.sampled_from([1, 3, 40]),
    )
    def submit(self, modality, values, length):
        before = depth(self.metrics)
        call = functools.partial(ask, length=length) if modality == "text" else ask_pictures
        request = self._turn(lambda: call(self.batcher, *values))
        if request.done():
            assert isinstance(request.exception(), Overloaded)
            assert before
            assert before + len(values) > self.MAX_ITEMS
            assert depth(self.metrics) == before
        else:
            self.requests.append((modality, values, request))

    @rule(seconds=st.sampled_from([2**-10, WAIT_S, 10.0]))
    def wait(self, seconds):
        self.runner.run(advance(seconds))

    @rule(data=st.data())
    def cancel(self, data):
        if alive := [request for *_, request in self.requests if not request.done()]:
            request = data.draw(st.sampled_from(alive))
            self.cancelled.add(request)
            self._turn(request.cancel)

    @rule(which=st.integers(0, 1), failing=st.one_of(st.none(), st.integers(0, 12)))
    def finish(self, which, failing):
        worker = self.workers[which]
        if worker.unfinished:
            batch = worker.unfinished[0]
            if failing in batch.values:
                self.bad |= {r for m, values, r in self.requests if m == batch.modality and failing in values}
            self._turn(lambda: worker.finish(**{f"v{failing}": InputFailed("the model failed on this input")}))

    @invariant()
    def workers_are_not_crowded(self):
        for worker in self.workers:
            assert len(worker.unfinished) <= 2
            for batch in worker.unfinished:
                assert len(batch.values) <= {"text": 4, "image": 2}[batch.modality]
                assert len(set(zip(batch.values, batch.lengths, strict=True))) == len(batch.values)

    @invariant()
    def the_room_is_that_of_the_unanswered(self):
        assert depth(self.metrics) == sum(len(values) for _, values, request in self.requests if not request.done())

    @rule()
    def nothing_waits_without_a_reason(self):
        self.runner.run(advance(WAIT_S))
        if any(self.batcher._queues.values()):
            assert all(worker.unfinished for worker in self.workers)

    def teardown(self):
        for _ in range(1000):
            self.runner.run(advance(WAIT_S))
            busy = [worker for worker in self.workers if worker.unfinished]
            if not busy:
                break
            self._turn(busy[0].finish)
        for _, values, request in self.requests:
            assert request.done()
            if request in self.cancelled:
                assert request.cancelled()
            elif request.exception() is not None:
                assert isinstance(request.exception(), InputFailed)
                assert request in self.bad
            else:
                assert [int(row[0]) for row in request.result()] == answer(*values)
        assert depth(self.metrics) == depth(self.metrics, "queue_bytes", "hypclip_queue_bytes") == 0
        self.runner.close()


TestAnySchedule = AnySchedule.TestCase
