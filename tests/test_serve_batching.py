"""Batches against fake workers and a clock that stands still until it is told to go on: no process, no waiting."""

import asyncio
import functools
import gc
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serve import timing
from serve.batching import BatchDone, Batcher, Input, Limits, _worthwhile
from serve.errors import InputFailed, Overloaded, WorkerFailed
from serve.metrics import Metrics

WAIT_S = 0.25  # a power of two, so that sums of times are exact
ROOM = 10**9


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time the tests set."""

    now = 100.0

    def time(self):
        return self.now


def on_clock(test):
    """Run an async test on such a loop."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        with asyncio.Runner(loop_factory=Clock) as runner:
            return runner.run(test(*args, **kwargs))

    return run


async def settle():
    """Let everything happen that does not wait for time or for a worker."""
    for _ in range(20):
        await asyncio.sleep(0)


async def advance(seconds):
    await settle()
    asyncio.get_running_loop().now += seconds
    await settle()


@dataclass
class Sent:
    modality: str
    inputs: Sequence
    done: object

    @property
    def values(self):
        return [int(array.flat[0]) for array in self.inputs]

    @property
    def lengths(self):
        return [len(array) for array in self.inputs]


class FakeWorker:
    """Computes a row from each input, 1000 and its first number, when the test says so."""

    def __init__(self):
        self.sent = []
        self.unfinished = []

    def send(self, modality, inputs, done):
        self.sent.append(Sent(modality, inputs, done))
        self.unfinished.append(self.sent[-1])

    def finish(self, seconds=1.0, **errors):
        """End the oldest batch; `v7=error` fails its input of value 7."""
        batch = self.unfinished.pop(0)
        rows = [errors.get(f"v{value}", np.array([1000 + value])) for value in batch.values]
        batch.done(BatchDone(rows, seconds))
        return batch


def text(value, length=3):
    return Input(np.full(length, value), f"{value} {length}".encode())


def picture(value):
    return Input(np.full((3, 2, 2), value), f"{value}".encode())


def make(workers=1, **limits):
    workers = [FakeWorker() for _ in range(workers)]
    defaults = {"max_wait_s": WAIT_S, "max_items": ROOM, "max_bytes": ROOM, "patience_s": math.inf}
    defaults["overhead"] = {"text": 100.0}
    metrics = Metrics()
    batcher = Batcher(workers, Limits(max_batch={"text": 4, "image": 2}, **{**defaults, **limits}), metrics)
    return batcher, metrics, *workers


def ask(batcher, *values, length=3):
    """Send a request; values are those of its texts."""
    return asyncio.create_task(batcher.run("text", [text(value, length) for value in values]))


def ask_pictures(batcher, *values):
    return asyncio.create_task(batcher.run("image", [picture(value) for value in values]))


def answer(*values):
    return [1000 + value for value in values]


async def rows_of(request):
    await settle()
    assert request.done()
    return [int(row[0]) for row in request.result()]


def depth(metrics, name="queue_depth", sample="hypclip_queue_depth"):
    """Sum a metric over its labels."""
    samples = [each for metric in getattr(metrics, name).collect() for each in metric.samples]
    return sum(each.value for each in samples if each.name == sample)


# When a batch is closed -----------------------------------------------------------------------------------------------


@on_clock
async def test_an_idle_worker_gets_an_input_at_once():
    batcher, _, worker = make()
    request = ask(batcher, 1)
    await settle()
    assert [sent.values for sent in worker.sent] == [[1]]
    worker.finish()
    assert await rows_of(request) == answer(1)


@on_clock
async def test_a_worker_that_has_been_idle_for_a_while_gets_an_input_at_once():
    batcher, _, worker = make()
    ask(batcher, 1)
    await settle()
    worker.finish()
    await advance(WAIT_S)
    ask(batcher, 2)
    await settle()
    assert worker.sent[-1].values == [2]


@on_clock
async def test_a_worker_that_has_just_become_idle_waits_for_more():
    batcher, _, worker = make()
    ask(batcher, 1)
    await settle()
    worker.finish()
    await advance(WAIT_S / 2)
    ask(batcher, 2)
    ask(batcher, 3)
    await settle()
    await advance(WAIT_S / 2 - 2**-10)
    assert len(worker.sent) == 1
    await advance(2**-10)
    assert worker.sent[-1].values == [2, 3]


@on_clock
async def test_it_waits_no_longer_when_a_batch_is_full():
    batcher, _, worker = make()
    ask(batcher, 1)
    await settle()
    worker.finish()
    ask(batcher, 2, 3, 4)
    await settle()
    assert len(worker.sent) == 1
    ask(batcher, 5)
    await settle()
    assert worker.sent[-1].values == [2, 3, 4, 5]


@on_clock
async def test_what_waited_while_the_worker_was_busy_waits_no_more():
    batcher, _, worker = make()
    ask(batcher, 1)
    await settle()
    ask(batcher, 2)
    await advance(WAIT_S)
    worker.finish()
    await settle()
    assert worker.sent[-1].values == [2]


@on_clock
async def test_with_no_time_to_wait_for_others_nothing_waits():
    batcher, _, worker = make(max_wait_s=0.0)
    ask(batcher, 1)
    await settle()
    worker.finish()
    ask(batcher, 2)
    await settle()
    assert worker.sent[-1].values == [2]


@on_clock
async def test_a_busy_worker_gets_one_full_batch_ahead_and_no_more():
    batcher, _, worker = make()
    ask(batcher, 0)
    ask(batcher, 1, 2, 3)
    await settle()
    await advance(10 * WAIT_S)
    assert [sent.values for sent in worker.sent] == [[0]], "a batch that is not full waits for a busy worker"
    ask(batcher, *range(4, 20))
    await settle()
    assert [sent.values for sent in worker.sent] == [[0], [1, 2, 3, 4]]
    worker.finish()
    await settle()
    assert [len(sent.values) for sent in worker.sent] == [1, 4, 4]


@pytest.mark.parametrize("kind, size", [("text", 4), ("image", 2)])
@on_clock
async def test_a_batch_is_never_over_its_limit(kind, size):
    batcher, _, worker = make()
    request = ask(batcher, *range(11)) if kind == "text" else ask_pictures(batcher, *range(11))
    await settle()
    while worker.unfinished:
        worker.finish()
        await advance(WAIT_S)
    assert max(len(sent.values) for sent in worker.sent) == size
    assert await rows_of(request) == answer(*range(11))


@on_clock
async def test_an_idle_worker_comes_before_a_second_batch_for_a_busy_one():
    batcher, _, first, second = make(workers=2)
    request = ask(batcher, *range(16))
    await settle()
    assert (len(first.sent), len(second.sent)) == (2, 2), "one that runs and one ahead"
    assert first.sent[0].values == [0, 1, 2, 3]
    assert second.sent[0].values[0] == 4
    more = ask(batcher, *range(16, 28))
    await settle()
    second.finish()
    await settle()
    assert (len(first.sent), len(second.sent)) == (2, 3)
    while first.unfinished or second.unfinished:
        (first if first.unfinished else second).finish()
        await advance(WAIT_S)
    assert await rows_of(request) == answer(*range(16))
    assert await rows_of(more) == answer(*range(16, 28))


@on_clock
async def test_a_full_batch_goes_to_the_idle_worker_and_not_ahead_to_the_busy_one():
    batcher, _, first, second = make(workers=2)
    ask(batcher, 0)
    await settle()
    ask(batcher, 1, 2, 3, 4)
    await settle()
    assert [sent.values for sent in first.sent] == [[0]]
    assert [sent.values for sent in second.sent] == [[1, 2, 3]]


@on_clock
async def test_what_one_worker_could_take_is_shared_out():
    batcher, _, first, second = make(workers=2)
    request = ask(batcher, *range(6))
    await settle()
    assert [sent.values for sent in first.sent + second.sent] == [[0, 1, 2], [3, 4, 5]]
    first.finish()
    second.finish()
    assert await rows_of(request) == answer(*range(6))


# What goes into a batch -----------------------------------------------------------------------------------------------


@on_clock
async def test_a_batch_is_the_oldest_input_and_those_most_alike_in_length():
    batcher, _, worker = make()
    ask(batcher, *range(8))  # one batch that runs, one ahead
    await settle()
    requests = {length: ask(batcher, length, length=length) for length in [50, 1, 2, 53, 51, 3, 52, 4]}
    await settle()
    for _ in range(4):
        worker.finish()
        await settle()
    assert [sorted(sent.lengths) for sent in worker.sent[2:]] == [[50, 51, 52, 53], [1, 2, 3, 4]]
    for length, request in requests.items():
        assert await rows_of(request) == answer(length)


@given(
    lengths=st.lists(st.integers(1, 77), min_size=1, max_size=12),
    limit=st.integers(1, 8),
    overhead=st.sampled_from([1.0, 30.0, 500.0]),
    data=st.data(),
)
def test_the_smallest_batch_that_is_nearly_the_best_holds_the_oldest(lengths, limit, overhead, data):
    lengths.sort()
    oldest = data.draw(st.integers(0, len(lengths) - 1))

    def work(start, end):
        """Rows of text per time, where padding and the start of a batch take time and are no work."""
        return sum(lengths[start:end]) / ((end - start) * lengths[end - 1] + overhead)

    possible = [(i, j) for i in range(oldest + 1) for j in range(oldest + 1, len(lengths) + 1) if j - i <= limit]
    best = max(work(*each) for each in possible)
    start, end = _worthwhile(lengths, oldest, limit, overhead)
    assert (start, end) in possible
    assert work(start, end) >= 0.97 * best * (1 - 1e-9)
    assert end - start == min(j - i for i, j in possible if work(i, j) >= 0.97 * best * (1 + 1e-9))


@on_clock
async def test_pictures_are_of_one_size_and_fill_batches_in_their_order():
    batcher = Batcher([worker := FakeWorker()], Limits({"image": 40}, WAIT_S, ROOM, ROOM, math.inf), Metrics())
    request = ask_pictures(batcher, *range(60))
    await settle()
    assert [sent.values for sent in worker.sent] == [list(range(40))]
    worker.finish()
    await advance(WAIT_S)
    worker.finish()
    assert await rows_of(request) == answer(*range(60))


@on_clock
async def test_an_odd_length_is_not_passed_over():
    batcher, _, worker = make()
    ask(batcher, 0)
    await settle()
    long = ask(batcher, 1, length=70)
    await settle()
    for value in range(10, 100):
        ask(batcher, value)  # there is a full batch of short ones at any time
    await settle()
    worker.finish()
    worker.finish()
    assert await rows_of(long) == answer(1)


@on_clock
async def test_a_full_queue_of_pictures_does_not_keep_a_text_waiting():
    batcher, _, worker = make()
    value = 0
    for _ in range(4):
        ask_pictures(batcher, value := value + 1, value := value + 1)
    await advance(0.001)
    request = ask(batcher, 7)
    await advance(0.001)
    for _ in range(8):  # more pictures than the worker can ever catch up with
        ask_pictures(batcher, value := value + 1, value := value + 1)
        worker.finish()
        await advance(WAIT_S)
        if request.done():
            break
    assert await rows_of(request) == answer(7)


@on_clock
async def test_full_queues_of_texts_do_not_keep_a_picture_waiting():
    batcher, _, worker = make()
    ask(batcher, *range(16))
    await advance(0.001)
    request = ask_pictures(batcher, 7)
    await advance(0.001)
    for turn in range(8):
        ask(batcher, *range(100 + 4 * turn, 104 + 4 * turn))
        worker.finish()
        await advance(WAIT_S)
        if request.done():
            break
    assert await rows_of(request) == answer(7)


@on_clock
async def test_equal_inputs_of_a_batch_are_computed_once_and_all_answered():
    batcher, _, worker = make()
    ask(batcher, 0)
    await settle()
    first, second = ask(batcher, 1, 2, 1), ask(batcher, 2)
    await settle()
    worker.finish()
    assert worker.sent[1].values == [1, 2]
    worker.finish()
    assert await rows_of(first) == answer(1, 2, 1)
    assert await rows_of(second) == answer(2)


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
    batcher, _, worker = make(patience_s=10.0)
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
