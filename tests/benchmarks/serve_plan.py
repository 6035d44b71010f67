"""What a load is, and what came of it: what the benchmark and its load generator tell each other."""

from __future__ import annotations

import math
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """The bytes of a request; of a picture those before and after a stamp that makes each one sent another file."""

    before: bytes
    after: bytes = b""

    def stamped(self, count: int) -> bytes:
        """Return what to send."""
        return self.before + stamp(count) + self.after if self.after else self.before


def stamp(count: int) -> bytes:
    """Return the base64 of the start of a JPEG with a comment of 12 digits; always 24 characters."""
    return b64encode(b"\xff\xd8\xff\xfe\x00\x0e%012d" % count)


@dataclass(frozen=True)
class Plan:
    """What to send where.

    `rate` is in requests a second; without one the loop is closed, and `connections` is the number of clients. With one
    it is the most connections that are open. `width` and `dim` are those of every answer. With `probes`, one of them
    is sent every 50 ms for a while before the load, and after it until 20 in a row are answered in at most twice their
    median time before.
    """

    port: int
    requests: list[Request]
    width: int
    dim: int
    seconds: float
    warmup_s: float = 0.0
    connections: int = 64
    rate: float | None = None
    seed: int = 0
    timeout_s: float = 60.0
    probes: list[Request] = field(default_factory=list)


@dataclass
class Report:
    """What came back; times in seconds.

    `statuses` counts every answer, 0 for a request without one; all else leaves the warm-up out. `span` goes from the
    last answer of the warm-up to the last of the `completed` ones: answers come a batch at a time, and it holds whole
    batches. `lateness` is how long after it was due a request was sent. `samples` has the number of some requests and
    the embeddings they got.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    completed: int = 0
    span: float = 0.0
    elapsed: float = 0.0
    latencies: list[float] = field(default_factory=list)
    due: int = 0
    sent: int = 0
    lateness: list[float] = field(default_factory=list)
    most_connections: int = 0
    cpu: float = 0.0
    samples: list[tuple[int, list[list[float]]]] = field(default_factory=list)
    idle_latency: float = math.nan
    recovery: float = math.nan

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.completed / self.span

    @property
    def offered(self) -> float:
        """Requests sent a second."""
        return self.sent / self.elapsed

    def latency(self, quantile: float) -> float:
        """Return a quantile of the latencies of the answers with status 200."""
        return quantile_of(self.latencies, quantile)

    def check(self, statuses: tuple[int, ...] = (200,)) -> None:
        """Raise unless every request was answered, with one of these statuses, and with what it asked for."""
        others = {status: n for status, n in self.statuses.items() if status not in statuses}
        if others or self.wrong or not self.completed:
            raise RuntimeError(
                f"answers by status, 0 for none: {dict(self.statuses)}; completed {self.completed}; "
                f"wrong: {self.wrong[:3]}"
            )


def quantile_of(values: list[float], quantile: float) -> float:
    """Return the smallest of the values that this share of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)] if ordered else math.nan
