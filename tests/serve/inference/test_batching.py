"""When a batch is closed and what goes into it, against fake workers and a clock that stands still: no waiting."""

import math

import pytest

from serve.inference.batching import Batcher, Limits
from serve.telemetry.metrics import Metrics
from tests.support.batching import (
    ROOM,
    WAIT_S,
    FakeWorker,
    advance,
    answer,
    ask,
    ask_pictures,
    make,
    on_clock,
    rows_of,
    settle,
)

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
async def test_a_batch_has_the_oldest_texts_that_fit_into_its_tokens():
    batcher, _, worker = make()
    ask(batcher, *range(8))  # one batch that runs, one ahead
    await settle()
    requests = {length: ask(batcher, length, length=length) for length in [5, 6, 2, 10, 50, 1, 12, 11]}
    await settle()
    while worker.unfinished:
        worker.finish()
        await advance(WAIT_S)
    assert [sent.lengths for sent in worker.sent[2:]] == [[5, 6], [2, 10], [50], [1], [12], [11]]
    for length, request in requests.items():
        assert await rows_of(request) == answer(length)


@on_clock
async def test_a_batch_is_full_by_its_tokens_and_not_by_its_texts():
    batcher, _, worker = make()
    ask(batcher, 0)
    await settle()
    ask(batcher, *range(1, 12), length=1)
    await settle()
    assert len(worker.sent) == 1, "eleven tokens wait"
    gone = ask(batcher, 12, length=20)
    await settle()
    assert [sent.values for sent in worker.sent[1:]] == [list(range(1, 12))]
    gone.cancel()
    await settle()
    ask(batcher, 13, length=11)
    await settle()
    assert len(worker.sent) == 2, "what was given up does not count"


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
async def test_a_long_text_is_not_passed_over():
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
