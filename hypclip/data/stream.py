"""An endless, resumable stream of batches from shards.

Each worker of each process reads its own share of the shards (`shards.share_of`), shuffles raw samples in a buffer,
decodes, and makes whole batches, epoch after epoch. What it yields is a pure function of (seed, epoch, rank, world
size, worker), so the position of a stream is two numbers per worker: its epoch, and the number of its raw samples that
are used.
"""

from __future__ import annotations

import atexit
import copy
import functools
import multiprocessing
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import webdataset as wds
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hypclip.data.batch import Batch, Example
from hypclip.data.record import BadSample, Reading, Record, read_record
from hypclip.data.samples import samples_and_damage
from hypclip.data.shards import share_of
from hypclip.data.tally import Tally
from hypclip.errors import DataError

_JUDGE_AFTER = 200
"""Samples that a worker reads before it checks its share of bad ones; at the end of an epoch it checks in any case."""


@dataclass(frozen=True)
class StreamConfig:
    """Settings of a stream of batches; `rank` and `world_size` say which process this is.

    `max_bad_fraction` is of samples, `max_bad_shards` counts shards of which a part cannot be read.
    """

    shards: Sequence[str]
    batch_size: int
    seed: int = 0
    workers: int = 1
    shuffle_buffer: int = 1_000
    max_bad_fraction: float = 0.01
    max_bad_shards: int = 0
    reading: Reading = field(default_factory=Reading)
    rank: int = 0
    world_size: int = 1


@dataclass
class StreamState:
    """Position in the stream of one process: per worker (epoch, raw samples used), and the worker whose turn is next.

    `seen` counts since the run began; `workers` is their number, 0 before the first batch.
    """

    positions: dict[int, tuple[int, int]] = field(default_factory=dict)
    turn: int = 0
    seen: Tally = field(default_factory=Tally)
    workers: int = 0

    def to_plain(self) -> dict[str, Any]:
        """Return JSON data."""
        positions = {str(worker): list(position) for worker, position in self.positions.items()}
        return {"positions": positions, "turn": self.turn, "workers": self.workers, "seen": self.seen.to_plain()}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> StreamState:
        """Read what `to_plain` returned."""
        positions = {int(worker): (int(p[0]), int(p[1])) for worker, p in data["positions"].items()}
        return cls(positions, data["turn"], Tally.from_plain(data["seen"]), data["workers"])


@dataclass(frozen=True)
class _Delivery:
    """Message from a worker: a batch and the position after it, or the message of an error."""

    worker: int
    position: tuple[int, int]
    seen: Tally
    batch: Batch | None
    error: str = ""

    def pin_memory(self) -> _Delivery:
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


class BatchStream:
    """Iterate over batches for ever; `state` is always the position after the last batch handed out.

    Args:
        config: see StreamConfig.
        make: (record, seed) → example.
        collate: examples → batch.
        state: the position to go on from; None starts at the beginning.

    Raises:
        DataError: a reader would have no shard; while iterating: too many bad samples or damaged shards, or a share
            without samples.
    """

    def __init__(
        self,
        config: StreamConfig,
        make: Callable[[Record, str], Example],
        collate: Callable[[Sequence[Example]], Batch],
        state: StreamState | None = None,
    ):
        workers = max(1, config.workers)
        for worker in range(workers):
            _share(config, 0, worker)
        self.state = state or StreamState()
        if self.state.workers not in (0, workers):
            raise DataError(
                f"the run was started with {self.state.workers} data workers a process, data.workers is now {workers}: "
                "resume with the same number"
            )
        self.state.workers = workers
        if config.workers:
            _end_workers_at_exit()
        self.max_bad_shards = config.max_bad_shards
        dataset = _WorkerStream(config, make, collate, self.state)
        self._loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=config.workers,
            prefetch_factor=4 if config.workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else the loader takes its seed from the generator that a resume has set
        )

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches; the state moves on when the next one is asked for by the caller's loop."""
        delivery: _Delivery
        for delivery in self._loader:
            if delivery.batch is None:
                raise DataError(delivery.error)
            self.state.positions[delivery.worker] = delivery.position
            self.state.turn = (delivery.worker + 1) % self.state.workers
            self.state.seen += delivery.seen
            self.state.seen.judge_shards(self.max_bad_shards)  # of all workers together
            yield delivery.batch


class _WorkerStream(IterableDataset[_Delivery]):
    def __init__(
        self,
        config: StreamConfig,
        make: Callable[[Record, str], Example],
        collate: Callable[[Sequence[Example]], Batch],
        state: StreamState,
    ):
        self.config, self.make, self.collate, self.state = config, make, collate, state

    def __iter__(self) -> Iterator[_Delivery]:
        info = get_worker_info()
        # The loader always asks its worker 0 first; after a resume that one plays the worker whose turn it is.
        worker = ((info.id if info else 0) + self.state.turn) % self.state.workers
        tally = _WorkerTally(worker, self.config, self.state.seen)
        epoch, used = self.state.positions.get(worker, (0, 0))
        examples: list[Example] = []
        try:
            while True:
                usable = used > 0  # a position within an epoch comes after a batch of it
                for index, sample in enumerate(_raw_samples(self.config, epoch, worker)):
                    if index < used:
                        continue
                    if (example := self._example(sample, epoch, tally)) is not None:
                        examples.append(example)
                        usable = True
                    if len(examples) == self.config.batch_size:
                        yield tally.deliver((epoch, index + 1), self.collate(examples))
                        examples = []
                tally.end_epoch(usable)
                epoch, used = epoch + 1, 0
        except DataError as error:
            yield _Delivery(worker, (epoch, used), Tally(), None, str(error))

    def _example(self, sample: dict[str, Any], epoch: int, tally: _WorkerTally) -> Example | None:
        if "__damage__" in sample:
            tally.damaged(sample["__url__"], sample["__damage__"])
            return None
        try:
            record = read_record(sample, self.config.reading)
        except BadSample as bad:
            tally.bad(bad)
            return None
        tally.good()
        # The name of the shard without its folder: where the data lies makes no difference.
        return self.make(record, f"{self.config.seed}/{epoch}/{record.shard.rpartition('/')[2]}/{record.key}")


class _WorkerTally:
    """Count the samples of a worker, on top of those its process had seen before; stop it when too many are bad."""

    def __init__(self, worker: int, config: StreamConfig, before: Tally):
        self.worker, self.config = worker, config
        self.all, self.new = copy.deepcopy(before), Tally()

    def good(self) -> None:
        self.all.read += 1
        self.new.read += 1

    def bad(self, bad: BadSample) -> None:
        self._add(Tally(1, Counter([bad.reason]), {bad.reason: bad.detail}))
        if self.all.read >= _JUDGE_AFTER:
            self.all.judge_samples(self.config.max_bad_fraction)

    def damaged(self, shard: str, why: str) -> None:
        self._add(Tally(damaged={shard: why}))
        self.all.judge_shards(self.config.max_bad_shards)

    def end_epoch(self, usable: bool) -> None:
        self.all.judge_samples(self.config.max_bad_fraction)
        if not usable:
            damaged = "".join(f"; damaged: {shard}: {why}" for shard, why in list(self.all.damaged.items())[:3])
            raise DataError(
                f"the shards of data worker {self.worker} hold no usable sample: they would be read for ever{damaged}"
            )

    def deliver(self, position: tuple[int, int], batch: Batch) -> _Delivery:
        new, self.new = self.new, Tally()
        return _Delivery(self.worker, position, new, batch)

    def _add(self, seen: Tally) -> None:
        self.all += seen
        self.new += seen


def _raw_samples(config: StreamConfig, epoch: int, worker: int) -> Iterator[dict[str, Any]]:
    """Yield the undecoded samples of one epoch of one worker, shuffled."""
    samples = (sample for shard in _share(config, epoch, worker) for sample in samples_and_damage(shard))
    rng = random.Random(f"samples/{config.seed}/{epoch}/{config.rank}/{config.world_size}/{worker}")
    yield from wds.shuffle(config.shuffle_buffer, initial=config.shuffle_buffer, rng=rng)(samples)


def _share(config: StreamConfig, epoch: int, worker: int) -> list[str]:
    return share_of(
        config.shards,
        seed=config.seed,
        epoch=epoch,
        rank=config.rank,
        world_size=config.world_size,
        worker=worker,
        workers=max(1, config.workers),
    )


@functools.cache
def _end_workers_at_exit() -> None:
    """Send workers that live at the end of the program the first of the two SIGTERMs that end them.

    multiprocessing sends one and then waits: for ever, since workers live on after the first.
    """

    def end() -> None:
        for child in multiprocessing.active_children():
            if child.daemon:
                child.terminate()

    atexit.register(end)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # `timeout`, a shell's `kill %1` and Slurm send SIGTERM to workers too. It is for the training process to stop and
    # save, for which they must live on; a second one, such as the loader's own when it ends, ends them.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
