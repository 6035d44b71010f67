"""The load generator: an HTTP client of keep-alive connections, in a process of its own.

Closed loop: each client sends its next request when it has its answer. Open loop: Poisson arrivals that wait for
nobody; one that finds all connections busy, or a generator too far behind, is not sent, and shows as the difference of
`due` and `sent`. A latency begins when its request was due, not when it was sent. Requests are bytes made beforehand.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import pickle
import random
import resource
import subprocess
import sys
from pathlib import Path

from serve_client import Checker, Connection
from serve_plan import Plan, Report, quantile_of

PROBE_INTERVAL_S = 0.05
PROBES = 20
RECOVERY_WAIT_S = 15.0
GRACE_S = 0.1  # for arrivals due just before the end
KEEP_S = 2.0  # servers keep an idle connection for 5 s or more


def run(plan: Plan) -> Report:
    """Carry a plan out in another process."""
    command = [sys.executable, "-c", "import load; load.main()"]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, input=pickle.dumps(plan), stdout=subprocess.PIPE, check=True)
    report = pickle.loads(done.stdout)
    assert isinstance(report, Report)
    return report


def main() -> None:
    """Read a plan from standard input, write the report to standard output."""
    plan: Plan = pickle.load(sys.stdin.buffer)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    sys.stdout.buffer.write(pickle.dumps(asyncio.run(Generator(plan).run())))


class Generator:
    """Carries out one plan, once."""

    def __init__(self, plan: Plan):
        self.plan, self.report = plan, Report()
        self.random = random.Random(plan.seed)
        self.count = 0
        self.connections: set[Connection] = set()
        self.idle: list[Connection] = []
        self.tasks: set[asyncio.Task[None]] = set()  # connections being opened
        self.checker = Checker(plan, self.report)
        self.begin = self.end = self.last_before = self.cpu_before = math.nan

    async def run(self) -> Report:
        """Send, wait for the last answer, report."""
        loop, plan, report = asyncio.get_running_loop(), self.plan, self.report
        if plan.probes:
            await self._idle()
        if plan.rate is None:
            self.connections = {await Connection.to(plan.port, self._answered) for _ in range(plan.connections)}
        self.last_before = loop.time()
        self.begin = loop.time() + plan.warmup_s
        self.end = self.begin + plan.seconds
        loop.call_at(self.begin, self._note_cpu)
        if plan.rate is None:
            for connection in list(self.connections):
                self._send(connection, loop.time())
            await asyncio.sleep(self.end - loop.time())
        else:
            await self._arrivals(plan.rate)
        report.elapsed = loop.time() - self.begin
        report.cpu = (_cpu_time() - self.cpu_before) / report.elapsed
        recovery = asyncio.create_task(self._recovery()) if plan.probes else None
        await self._last_answers()
        if recovery is not None:
            await recovery
        for connection in list(self.connections):
            connection.transport.abort()
        self.checker.finish()
        return report

    def _send(self, connection: Connection, due: float) -> None:
        index = self.count % len(self.plan.requests)
        connection.send(self.plan.requests[index].stamped(self.count), index, due)
        self.count += 1
        if due >= self.begin:
            self.report.sent += 1
            self.report.lateness.append(asyncio.get_running_loop().time() - due)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        """Note an answer; a closed loop sends the next request at once."""
        now = asyncio.get_running_loop().time()
        self.report.statuses[status] += 1
        if status == 200:
            self.checker.check(connection.index, body)
            if now < self.begin:
                self.last_before = now
            elif now <= self.end:
                self.report.completed += 1
                self.report.span = now - self.last_before
            if connection.due >= self.begin:
                self.report.latencies.append(now - connection.due)
        connection.answered = now
        if not connection.open:
            self.connections.discard(connection)
        if self.plan.rate is not None:
            if connection.open:
                self.idle.append(connection)
        elif now < self.end:
            if connection.open:
                self._send(connection, now)
            else:
                self._open(now)

    async def _arrivals(self, rate: float) -> None:
        """Send at random times, each independent of all others; when behind, at once."""
        loop, report = asyncio.get_running_loop(), self.report
        due = loop.time()
        while due < self.end and loop.time() < self.end + GRACE_S:
            while due <= loop.time() and due < self.end:
                report.due += due >= self.begin
                if (connection := self._idle_connection()) is not None:
                    self._send(connection, due)
                elif len(self.connections) + len(self.tasks) < self.plan.connections:
                    self._open(due)
                due += self.random.expovariate(rate)
            await asyncio.sleep(max(0.0, min(due, self.end) - loop.time()))
        while due < self.end:  # what a generator that fell behind did not come to
            report.due += due >= self.begin
            due += self.random.expovariate(rate)

    def _idle_connection(self) -> Connection | None:
        """Return the one used last, unless the server might be about to close it."""
        now = asyncio.get_running_loop().time()
        while self.idle:
            connection = self.idle.pop()
            if connection.open and now < connection.answered + KEEP_S:
                return connection
            connection.transport.abort()
            self.connections.discard(connection)
        return None

    def _open(self, due: float) -> None:
        """Open one more connection, and send the next request on it."""

        async def opening() -> None:
            try:
                connection = await Connection.to(self.plan.port, self._answered)
            except OSError:
                self.report.statuses[0] += 1
                return
            self.connections.add(connection)
            self.report.most_connections = max(self.report.most_connections, len(self.connections))
            self._send(connection, due)

        task = asyncio.create_task(opening())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _last_answers(self) -> None:
        """Wait for what is on its way; what takes too long counts as not answered."""
        give_up = asyncio.get_running_loop().time() + self.plan.timeout_s
        while asyncio.get_running_loop().time() < give_up:
            if not self.tasks and not any(connection.busy for connection in self.connections):
                return
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(0.1)

    async def _probe(self, number: int) -> tuple[float, float, int]:
        """Be a new client with one request; return when it came, when it had its answer, and the status."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        start = loop.time()
        connection = await Connection.to(self.plan.port, lambda _, status, __: answer.set_result(status))
        try:
            connection.send(self.plan.probes[number % len(self.plan.probes)].stamped(number), -1, start)
            status = await answer
        finally:
            connection.busy = False
            connection.transport.abort()
        return start, loop.time(), status

    async def _idle(self) -> None:
        times = []
        for number in range(2 * PROBES):
            _, (start, end, status) = await asyncio.gather(asyncio.sleep(PROBE_INTERVAL_S), self._probe(number))
            assert status == 200, f"a probe of the idle server was answered {status}"
            times.append(end - start)
        self.report.idle_latency = quantile_of(times, 0.5)

    async def _recovery(self) -> None:
        """Probe every 50 ms, answered or not, until enough in a row were answered as fast as before the load."""
        loop = asyncio.get_running_loop()
        stopped = loop.time()
        tasks: list[asyncio.Task[tuple[float, float, int]]] = []
        while loop.time() < stopped + RECOVERY_WAIT_S and math.isnan(self.report.recovery):
            tasks.append(asyncio.create_task(self._probe(2 * PROBES + len(tasks))))
            await asyncio.sleep(stopped + len(tasks) * PROBE_INTERVAL_S - loop.time())
            row: list[float] = []
            for task in tasks:
                start, end, status = task.result() if task.done() and task.exception() is None else (0.0, 0.0, 0)
                row = [*row, end] if status == 200 and end - start <= 2 * self.report.idle_latency else []
                if len(row) == PROBES:
                    self.report.recovery = min(row) - stopped
                    break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note_cpu(self) -> None:
        self.cpu_before = _cpu_time()


def _cpu_time() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
