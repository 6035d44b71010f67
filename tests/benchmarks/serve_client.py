"""The HTTP client of the load generator, a check of what it is answered, and a server that costs nothing."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import httptools
from serve_plan import Plan, Report

KEPT = 200  # answers parsed in full: the first ones, and then one in as many


class Connection(asyncio.Protocol):
    """One keep-alive connection, with at most one request on its way."""

    def __init__(self, answered: Callable[[Connection, int, bytes], None]):
        self._tell = answered
        self.index, self.due = -1, math.nan  # of the request on its way
        self.answered = math.nan  # when the last one was
        self.busy = self.open = False

    @classmethod
    async def to(cls, port: int, answered: Callable[[Connection, int, bytes], None]) -> Connection:
        """Connect; `answered` is called with the status, 0 for none, and the body of each answer."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(answered), "127.0.0.1", port)
        return connection

    def send(self, data: bytes, index: int, due: float) -> None:
        """Send a request."""
        self.index, self.due, self.busy = index, due, True
        self.transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        self.chunks: list[bytes] = []
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        status, body = self.parser.get_status_code(), b"".join(self.chunks)
        self.chunks, self.busy = [], False
        if not self.parser.should_keep_alive():
            self.open = False
            self.transport.close()
        self._tell(self, status, body)

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        if self.busy:
            self.busy = False
            self._tell(self, 0, b"")


class Checker:
    """Looks at the bodies of answers.

    Of each it compares how many embeddings and commas it has with those of one that was parsed, which tells how many
    numbers it holds without the cost of reading them, and looks for a null or NaN. Some are parsed when all is over.
    """

    def __init__(self, plan: Plan, report: Report):
        self.plan, self.report = plan, report
        self.commas = -1
        self.seen = 0
        self.kept: list[tuple[int, bytes]] = []

    def check(self, index: int, body: bytes) -> None:
        """Compare a body with the first one."""
        if self.commas < 0:
            self._parse(index, body)
            self.commas = body.count(b",")
        whole = body.count(b'"embedding":') == self.plan.width and body.count(b",") == self.commas
        if not whole or b"NaN" in body or b"null" in body:
            self._complain(index, body)
        if self.seen < KEPT or self.seen % KEPT == 0:
            self.kept.append((index, body))
        self.seen += 1

    def finish(self) -> None:
        """Parse what was kept, and hand some of it on."""
        parsed = [(index, self._parse(index, body)) for index, body in self.kept]
        self.report.samples = parsed[:: max(1, len(parsed) // 32)]

    def _parse(self, index: int, body: bytes) -> list[list[float]]:
        try:
            answer: Any = json.loads(body)
            embeddings: list[list[float]] = [item["embedding"] for item in answer["data"]]
        except (ValueError, KeyError, TypeError):
            embeddings = []
        if [len(embedding) for embedding in embeddings] != [self.plan.dim] * self.plan.width:
            self._complain(index, body)
        return embeddings

    def _complain(self, index: int, body: bytes) -> None:
        if len(self.report.wrong) < 10:
            self.report.wrong.append(f"request {index}: {body[:200]!r}")


class Trivial(asyncio.Protocol):
    """Answers every request with the same embedding."""

    numbers = ",".join(f"{i / 1024:.8f}" for i in range(128))
    body = f'{{"data":[{{"index":0,"embedding":[{numbers}]}}]}}'
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.answer)


async def serve_trivial(port: int) -> None:
    """Serve what costs nothing, to see how much the generator can do."""
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve_trivial(int(sys.argv[1])))
