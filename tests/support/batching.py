"""Fake workers, a clock that stands still until it is told to go on, and requests to a batcher between the two."""

import asyncio
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve.inference.batching import BatchDone, Batcher, Input, Limits
from serve.telemetry.metrics import Metrics

WAIT_S = 0.25  # a power of two, so that sums of times are exact
ROOM = 10**9
LENGTH = 3
"""Tokens of a text unless a test says otherwise; four such texts fill a batch."""


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


def text(value, length=LENGTH):
    return Input(np.full(length, value), f"{value} {length}".encode())


def picture(value):
    return Input(np.full((3, 2, 2), value), f"{value}".encode())


def make(workers=1, **limits):
    workers = [FakeWorker() for _ in range(workers)]
    defaults = {"max_wait_s": WAIT_S, "max_items": ROOM, "max_bytes": ROOM, "max_expected_s": math.inf}
    metrics = Metrics()
    batcher = Batcher(workers, Limits(max_batch={"text": 4 * LENGTH, "image": 2}, **{**defaults, **limits}), metrics)
    return batcher, metrics, *workers


def ask(batcher, *values, length=LENGTH):
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
