"""Throughput of a run: samples per second, waiting for data, work of the model, memory."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from hypclip.data.batch import Batch
from hypclip.model import HypCLIP
from hypclip.training.parallel import is_sharded, untrained

T = TypeVar("T")


class Throughput:
    """Figures since the last lap.

    Args:
        device: whose memory is told.
        flops: of the model for one sample, forward and backward, where known.
    """

    def __init__(self, device: torch.device, flops: float = math.nan):
        self._device, self._flops = device, flops
        self.is_started = False
        self._start()

    def start(self, flops: float) -> None:
        """Start the clock anew at the first step, so that the start of data workers does not count."""
        self._flops, self.is_started = flops, True
        self._start()

    def waiting(self, get: Callable[[], T]) -> T:
        """Return get(), counting the time it takes as waiting for data."""
        before = time.perf_counter()
        try:
            return get()
        finally:
            self._waited_s += time.perf_counter() - before

    def done(self, samples: int) -> None:
        """Count samples that the model was trained on."""
        self._lap += samples

    def lap(self) -> dict[str, float]:
        """Return samples and model floating-point operations per second, waiting and memory, and start again."""
        elapsed = time.perf_counter() - self._started
        rate = self._lap / elapsed
        values = {
            "samples_per_s": rate,
            "data_wait_s": self._waited_s,
            "model_flop_per_s": rate * self._flops,
            "memory_bytes": float(_memory(self._device)),
        }
        self._start()
        return values

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a block out of the figures."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - before

    def _start(self) -> None:
        self._lap, self._waited_s, self._started = 0, 0.0, time.perf_counter()


def model_flops(model: HypCLIP, batch: Batch) -> float:
    """Return the floating-point operations that training takes per sample, counted on a batch without computing it.

    The backward pass counts twice the forward pass, and nothing is counted that is computed again to save memory.
    NaN if the towers cannot be run without data.
    """
    # A model in parts cannot be copied; it has no adapters either.
    empty = (untrained(model.config) if is_sharded(model) else copy.deepcopy(model)).to("meta").eval()
    images = {role: x.to("meta") for role, x in batch.images.items()}
    texts = batch.texts.map(lambda x: x.to("meta"))
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for pixels in images.values():
                empty.image_tower(pixels)
            for tokens in texts.passes:
                empty.text_tower(tokens)
    except (NotImplementedError, RuntimeError):
        return float("nan")
    return 3.0 * float(counter.get_total_flops()) / batch.size


def _memory(device: torch.device) -> int:
    """Return the peak of the memory in use on the device, or on a CPU the process's present one, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
