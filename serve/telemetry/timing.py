"""Times of the parts of a request, for its Server-Timing header and its line in the log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, TypeAlias

Part: TypeAlias = Literal["pre", "queue", "infer", "index"]

_CURRENT: ContextVar[dict[str, float] | None] = ContextVar("timings", default=None)


@contextlib.contextmanager
def timings() -> Iterator[dict[str, float]]:
    """Collect what `record` is told within this context, in seconds by part."""
    parts: dict[str, float] = {}
    token = _CURRENT.set(parts)
    try:
        yield parts
    finally:
        _CURRENT.reset(token)


def record(part: Part, seconds: float) -> None:
    """Add to a part of the current request, if there is one."""
    parts = _CURRENT.get()
    if parts is not None:
        parts[part] = parts.get(part, 0.0) + seconds


@contextlib.contextmanager
def recorded(part: Part) -> Iterator[None]:
    """Record the time that a block takes."""
    start = time.perf_counter()
    try:
        yield
    finally:
        record(part, time.perf_counter() - start)


def header(parts: dict[str, float], total_s: float) -> str:
    """Write the value of a Server-Timing header, in milliseconds."""
    return ", ".join(f"{name};dur={seconds * 1e3:.1f}" for name, seconds in (*parts.items(), ("total", total_s)))
