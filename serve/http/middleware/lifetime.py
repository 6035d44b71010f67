"""The service a request is answered by, its deadline, and its end when the client goes away."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import (
    ClientGone,
    DeadlineExceeded,
)
from serve.runtime import Runtime
from serve.telemetry.metrics import Metrics

_EMBEDDING = ("/embed", "/v1/embeddings")


class Lifetime:
    """Give a request the service of the moment, a deadline, and an end when its client goes away.

    What administrators ask for has no deadline: loading a model takes as long as it takes. What asks for embeddings
    while the model's queue is full is refused unread: in a storm the server would else spend its time on parsing.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime, metrics: Metrics, timeout_s: float):
        self.app, self._runtime, self._metrics, self._timeout_s = app, runtime, metrics, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = asyncio.current_task()
        assert request is not None
        watcher: asyncio.Task[None] | None = None
        gone = False

        async def watch() -> None:
            nonlocal gone
            if (await receive())["type"] == "http.disconnect":
                gone = True
                request.cancel()

        async def receive_and_watch() -> Message:
            nonlocal watcher, gone
            message = await receive()
            if message["type"] == "http.disconnect":
                gone = True
                raise asyncio.CancelledError  # no error of the body, which is what FastAPI would make of another one
            if not message.get("more_body") and watcher is None:
                watcher = asyncio.create_task(watch())  # nothing but a disconnect comes after the body
            return message

        with self._runtime.lease() as service:
            scope["state"]["service"] = service
            if scope["path"] in _EMBEDDING:
                service.check_room()
            try:
                async with asyncio.timeout(None if _is_admin(scope["path"]) else self._timeout_s) as deadline:
                    await self.app(scope, receive_and_watch, send)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                self._metrics.rejected.labels("deadline").inc()
                raise DeadlineExceeded(self._timeout_s) from error
            except asyncio.CancelledError:
                if not gone:
                    raise
                request.uncancel()
                raise ClientGone from None
            finally:
                if watcher is not None:
                    watcher.cancel()


def _is_admin(path: str) -> bool:
    return path.startswith("/admin/")
