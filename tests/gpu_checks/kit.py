"""Where a check runs, what it measures with, and the lines that it leaves."""

from __future__ import annotations

import gc
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

DENSE_BF16 = {"B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}
"""TFLOP/s of matrix products in bfloat16 without sparsity, as NVIDIA's data sheets have them."""
MEASURED_ONLY = "measured only"


@dataclass(frozen=True)
class Line:
    """A line of the table: `passed` is None where a figure has no bar; `values` has the figures as numbers."""

    check: str
    what: str
    figure: str
    bar: str = MEASURED_ONLY
    passed: bool | None = None
    values: dict[str, float | None] = field(default_factory=dict)


class Report:
    """The lines of a check, which are in a file as soon as they are known: a check that is ended leaves what it had.

    Args:
        check: its name.
        file: JSON lines; None keeps them in memory only.
    """

    def __init__(self, check: str, file: Path | None = None):
        self.check, self.lines, self._file = check, list[Line](), file

    def measured(self, what: str, figure: str, **values: float) -> None:
        """Tell a figure that has no bar."""
        self._add(Line(self.check, what, figure, values=_finite(values)))

    def judged(self, what: str, figure: str, bar: str, passed: bool, **values: float) -> None:
        """Tell a figure that has one."""
        self._add(Line(self.check, what, figure, bar, bool(passed), _finite(values)))

    def failed(self, why: str) -> None:
        """Tell that there is no figure."""
        self._add(Line(self.check, "the whole check", why, "no error", False))

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(line)) + "\n")


@dataclass(frozen=True)
class Place:
    """The device, a folder for scratch, and whether all is to be `small`, for a CPU."""

    device: torch.device
    folder: Path
    small: bool = False

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def of(self, large: T, small: T) -> T:
        """Return the first, or the second where all is small."""
        return small if self.small else large

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given: no clock is read before."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], calls: int = 1) -> float:
        """Return what a call takes on average."""
        self.synchronise()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self.synchronise()
        return (time.perf_counter() - start) / calls

    def free(self) -> None:
        """Give back all memory that nothing holds."""
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> float:
        """Return the most memory in use since `free`; NaN on a CPU, where torch does not count it."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.is_gpu else math.nan

    def flops(self, dtype: torch.dtype) -> float:
        """Return the floating-point operations a second of a matrix product here."""
        side = self.of(8192, 256)
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        torch.mm(a, b)
        return 2 * side**3 / self.seconds(lambda: torch.mm(a, b), 10)

    def peak_flops(self) -> tuple[float, str]:
        """Return what a bfloat16 product could do at best, and by whose word; measured where no data sheet is known."""
        name = torch.cuda.get_device_name(self.device) if self.is_gpu else ""
        for known, tflops in DENSE_BF16.items():
            if re.search(rf"\b{known}\b", name):
                return tflops * 1e12, f"{tflops} TFLOP/s of its data sheet"
        measured = self.flops(torch.bfloat16)
        return measured, f"{measured / 1e12:.3g} TFLOP/s of a product measured here"


def until_full(attempt: Callable[[int], float], first: int, most: int, seconds: float) -> dict[int, float]:
    """Call with 1, 2, 4, … times `first`, up to `most`, until memory is full or the time is over.

    Args:
        attempt: returns a figure for a size.
        first: the size to begin with.
        most: the largest size.
        seconds: after which no larger size is begun.

    Returns:
        size → figure, of what fitted.

    Raises:
        torch.OutOfMemoryError: the first does not fit.
    """
    found: dict[int, float] = {}
    start, size = time.perf_counter(), first
    while size <= most and (not found or time.perf_counter() - start < seconds):
        try:
            found[size] = attempt(size)
        except torch.OutOfMemoryError:
            if not found:
                raise
            break
        size *= 2
    return found


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """Put None in place of what JSON has no number for."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
