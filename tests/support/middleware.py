"""Engines that wait or fail, and requests put to an app by hand."""

import asyncio
import json
from dataclasses import dataclass, field

from tests.support.serving import FakeEngine

EMBED = json.dumps({"inputs": ["a"]}).encode()


class Gate(FakeEngine):
    """An engine that waits to be let on, and says when it was asked and when it was given up."""

    def __init__(self):
        super().__init__()
        self.asked, self.open, self.given_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def embed_text(self, texts):
        self.asked.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        return await super().embed_text(texts)


class Failing(FakeEngine):
    def __init__(self, error):
        super().__init__()
        self.error = error

    async def embed_text(self, texts):
        raise self.error


@dataclass
class Answer:
    """What an app sent; the interface of a response that `assert_error` knows."""

    status_code: int = 0
    headers: dict = field(default_factory=dict)
    content: bytes = b""

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


async def ask(app, state, body=EMBED, path="/embed", method="POST", headers=(), messages=None):
    """Put one request to an app; `messages` is what it receives, its body and then silence when not given."""
    answer, queue = Answer(), list(messages or [{"type": "http.request", "body": body}])

    async def receive():
        if not queue:
            await asyncio.Event().wait()
        return queue.pop(0)

    async def send(message):
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.content += message["body"]

    raw = [(b"content-type", b"application/json"), *headers]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    await app({**scope, "headers": raw, "state": dict(state)}, receive, send)
    return answer


def run(app, scenario):
    async def within():
        async with app.router.lifespan_context(app) as state:
            await asyncio.wait_for(scenario(state), 30)

    asyncio.run(within())
