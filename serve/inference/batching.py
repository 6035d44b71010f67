"""From inputs of many requests to batches of a model, and back; all of it on the event loop.

Why not a library: LitServe brings its own server and closes batches by polling a queue in a worker, with no bound on
what waits; `batched` has no bound, no cancellation and one queue. Neither computes equal inputs once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from serve.errors import Overloaded, WorkerFailed
from serve.telemetry.metrics import Metrics
from serve.telemetry.timing import record

Modality: TypeAlias = Literal["text", "image"]
Array: TypeAlias = NDArray[Any]

_ALWAYS_ADMITTED = 128
"""Inputs that may wait however long they take: a crowd of clients with one each is no overload."""
_SMALL = 3
"""Inputs that are not worth sharing out among workers."""


@dataclass(frozen=True)
class BatchDone:
    """The answer to a batch: one embedding or one error per input, and the seconds it took."""

    rows: Sequence[Array | Exception]
    seconds: float


class Worker(Protocol):
    """A process that computes batches, one after the other, in the order they were sent."""

    def send(self, modality: Modality, inputs: Sequence[Array], done: Callable[[BatchDone], None]) -> None:
        """Start on a batch as soon as those before it are done; call `done` on the event loop."""
        ...


@dataclass(frozen=True)
class Limits:
    """Limits of a batch, and of what may wait.

    Args:
        max_batch: size of a batch by modality, in tokens of texts and in images; what is larger alone goes alone.
        max_wait_s: how long an input waits for others while the worker could start.
        max_items: inputs that wait or run.
        max_bytes: of all of them.
        max_expected_s: how long they may be expected to take.
    """

    max_batch: Mapping[Modality, int]
    max_wait_s: float
    max_items: int
    max_bytes: int
    max_expected_s: float


@dataclass(frozen=True)
class Input:
    """The token ids of a text, or the pixels of an image. Inputs of equal `key` have equal embeddings."""

    array: Array
    key: bytes

    @property
    def size(self) -> int:
        """The number of tokens of a text; an image is 1."""
        return len(self.array) if self.array.ndim == 1 else 1


@dataclass(eq=False, slots=True)
class _Job:
    input: Input
    since: float
    future: asyncio.Future[Array]
    waited_s: float = 0.0
    ran_s: float = 0.0


@dataclass(eq=False)
class _Lane:
    """A worker and the batches it was sent."""

    worker: Worker
    idle_since: float = -float("inf")
    running: list[list[_Job]] = field(default_factory=list)


class _Queue:
    """Jobs of one modality, the oldest first, and the sum of their sizes."""

    def __init__(self, max_batch: int):
        self.jobs: deque[_Job] = deque()
        self._max_batch, self._size = max_batch, 0

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def is_full(self) -> bool:
        """True if there is enough for a batch."""
        return self._size >= self._max_batch

    def extend(self, jobs: Iterable[_Job]) -> None:
        """Add jobs behind the others."""
        for job in jobs:
            self.jobs.append(job)
            self._size += job.input.size

    def take(self, share: int) -> list[_Job]:
        """Take the oldest jobs, as many as fit into a batch and no more than `share`, but at least one."""
        batch = [self._pop()]
        size = batch[0].input.size
        while self.jobs and len(batch) < share and size + self.jobs[0].input.size <= self._max_batch:
            batch.append(self._pop())
            size += batch[-1].input.size
        return batch

    def drop_done(self) -> None:
        """Forget jobs whose futures are done."""
        jobs = [job for job in self.jobs if not job.future.done()]
        self.jobs, self._size = deque(), 0
        self.extend(jobs)

    def _pop(self) -> _Job:
        job = self.jobs.popleft()
        self._size -= job.input.size
        return job


class Batcher:
    """Queues of texts and of images before one or several workers.

    A batch goes to an idle worker at once; to one that has only just become idle, when it is full or its oldest input
    has waited for `max_wait_s`, so that the answers of one batch can bring the inputs of the next; to a busy one when
    it is full, one batch ahead, so that the worker never waits for the event loop. Where both queues have something to
    send, that whose oldest input has waited longer comes first.
    """

    def __init__(self, workers: Sequence[Worker], limits: Limits, metrics: Metrics):
        self._limits, self._metrics = limits, metrics
        self._lanes = [_Lane(worker) for worker in workers]
        self._queues: dict[Modality, _Queue] = {modality: _Queue(size) for modality, size in limits.max_batch.items()}
        self._pace_s: dict[Modality, float] = dict.fromkeys(limits.max_batch, 0.0)
        self._items, self._bytes = dict.fromkeys(limits.max_batch, 0), 0
        self._failure: WorkerFailed | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, modality: Modality, inputs: Sequence[Input]) -> list[Array]:
        """Return the embeddings of the inputs of one request, all of them or none.

        Raises:
            Overloaded: too much waits already; nothing was queued.
            WorkerFailed: a worker has died.
            InputFailed: the model cannot compute one of them.
        """
        loop = asyncio.get_running_loop()
        size = sum(each.array.nbytes for each in inputs)
        self._admit(modality, len(inputs), size)
        jobs = [_Job(each, loop.time(), loop.create_future()) for each in inputs]
        try:
            self._queues[modality].extend(jobs)
            self._dispatch()
            rows = [await job.future for job in jobs]
        except BaseException:
            self._abandon(modality, jobs)
            raise
        finally:
            self._release(modality, len(inputs), size)
        record("queue", max(job.waited_s for job in jobs))
        record("infer", max(job.ran_s for job in jobs))
        return rows

    def check_room(self) -> None:
        """Check whether a request with one input would be taken, before anything is spent on reading it.

        Raises:
            Overloaded: it would not, as far as time and number say.
            WorkerFailed: a worker has died.
        """
        self._check(1, 0)

    def fail(self, failure: WorkerFailed) -> None:
        """Fail everything that waits or runs, at once, and everything that comes after."""
        self._failure = failure
        waiting = [job for queue in self._queues.values() for job in queue.jobs]
        running = [job for lane in self._lanes for batch in lane.running for job in batch]
        for job in (*waiting, *running):
            if not job.future.done():
                job.future.set_exception(failure)
        for queue in self._queues.values():
            queue.drop_done()

    def _admit(self, modality: Modality, items: int, size: int) -> None:
        self._check(items, size)
        self._items[modality] += items
        self._bytes += size
        self._metrics.queued(modality, items, size)

    def _check(self, items: int, size: int) -> None:
        if self._failure is not None:
            raise self._failure
        limits = self._limits
        ahead_s = sum(self._items[m] * self._pace_s[m] for m in self._items) / len(self._lanes)
        waiting = sum(self._items.values())
        # What is more than fits at all runs alone: how much a request may hold is bounded elsewhere.
        full = None
        if waiting and waiting + items > limits.max_items:
            full = "the queue of the model is full", "max_queue_items"
        elif waiting and self._bytes + size > limits.max_bytes:
            full = "the queue of the model is full", "max_queue_bytes"
        elif ahead_s > limits.max_expected_s and waiting >= _ALWAYS_ADMITTED:
            full = f"what waits for the model takes {ahead_s:.1f} s", "max_queue_s"
        if full is not None:
            self._metrics.rejected.labels("queue").inc()
            raise Overloaded(*full, ahead_s)

    def _release(self, modality: Modality, items: int, size: int) -> None:
        self._items[modality] -= items
        self._bytes -= size
        self._metrics.queued(modality, -items, -size)

    def _abandon(self, modality: Modality, jobs: Sequence[_Job]) -> None:
        """Forget inputs that nobody waits for any more; one in a running batch is computed for nothing."""
        for job in jobs:
            if not job.future.cancel() and not job.future.cancelled():
                job.future.exception()
        self._queues[modality].drop_done()

    def _dispatch(self) -> None:
        """Send every batch that is due, and come back when the next one will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = asyncio.get_running_loop().time()
        next_due = float("inf")
        for ahead in (0, 1):  # every idle worker gets a batch before a busy one gets one ahead
            for lane in self._lanes:
                due = {m: self._due(lane, m) for m, queue in self._queues.items() if queue}
                if not due or len(lane.running) != ahead:
                    continue
                modality = min(due, key=lambda m: (due[m] > now, self._queues[m].jobs[0].since))
                if due[modality] <= now:
                    self._send(lane, modality, now)
                else:
                    next_due = min(next_due, *due.values())
        if next_due < float("inf"):
            self._timer = asyncio.get_running_loop().call_at(next_due, self._dispatch)

    def _due(self, lane: _Lane, modality: Modality) -> float:
        """Return the time from which on the next batch may go to a lane."""
        if self._queues[modality].is_full:
            return -float("inf")
        if lane.running:
            # It waits to become full; but where a full batch of the other kind would go, the older of the two does.
            return -float("inf") if any(queue.is_full for queue in self._queues.values()) else float("inf")
        return min(lane.idle_since, self._queues[modality].jobs[0].since) + self._limits.max_wait_s

    def _send(self, lane: _Lane, modality: Modality, now: float) -> None:
        queue = self._queues[modality]
        # Not more than a worker's share: with all of it in one batch the other workers would have nothing to take.
        batch = queue.take(max(_SMALL, -(-len(queue) // len(self._lanes))))
        slots: dict[bytes, list[_Job]] = {}
        for job in batch:
            job.waited_s = now - job.since
            slots.setdefault(job.input.key, []).append(job)
        same = list(slots.values())
        lane.running.append(batch)
        self._metrics.batch_sent(modality, len(batch), (job.waited_s for job in batch))
        lane.worker.send(modality, [jobs[0].input.array for jobs in same], lambda done: self._done(lane, same, done))

    def _done(self, lane: _Lane, same: Sequence[Sequence[_Job]], done: BatchDone) -> None:
        batch = lane.running.pop(0)
        lane.idle_since = asyncio.get_running_loop().time()
        modality: Modality = "text" if batch[0].input.array.ndim == 1 else "image"
        pace = done.seconds / len(same)
        known = self._pace_s[modality]
        self._pace_s[modality] = pace if known == 0 else 0.8 * known + 0.2 * pace
        self._metrics.batch_done(modality, done.seconds)
        self._dispatch()  # before the answers, which take the event loop a while
        for jobs, row in zip(same, done.rows, strict=True):
            _resolve(jobs, row, done.seconds)


def _resolve(jobs: Iterable[_Job], row: Array | Exception, seconds: float) -> None:
    for job in jobs:
        job.ran_s = seconds
        if job.future.done():
            continue
        if isinstance(row, Exception):
            job.future.set_exception(row)
        else:
            job.future.set_result(row)
