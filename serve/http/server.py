"""The HTTP server: uvicorn, with a shutdown that load balancers notice and an exit code that supervisors understand."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from hypclip.errors import HypclipError
from serve.http.protocol import Protocol
from serve.runtime import Runtime
from serve.settings import Settings
from serve.telemetry import logs

logger = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 100


class Server(uvicorn.Server):
    """A uvicorn server that drains.

    Graceful shutdown: on SIGTERM it is no longer ready but serves for `drain_s`; then it takes no new connection, and
    ends with its last request. A second signal, or Ctrl-C, skips the wait, and one more the requests. SIGHUP loads the
    checkpoint again. When the model dies it ends at once, and `failed` is true.
    """

    def __init__(self, app: FastAPI, settings: Settings):
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=Protocol,
                ws="none",
                backlog=4096,  # as many as Linux keeps; a connection beyond them waits for seconds to be tried again
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,  # longer than the load balancers in front, which then never meet a closed one
                timeout_graceful_shutdown=math.ceil(settings.request_timeout_s),
            )
        )
        self._runtime: Runtime = app.state.runtime
        self._drain_s = settings.drain_s
        self._log_format = settings.log_format
        self._exit_at = math.inf
        self._listening: list[socket.socket] = []
        self._accepting: set[asyncio.Task[object]] = set()
        self.failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown, or skip a step of it."""
        if self.should_exit:
            self.force_exit = True
        elif self._runtime.draining or sig == signal.SIGINT:
            self.should_exit = True
        else:
            self._exit_at = time.monotonic() + self._drain_s
        self._runtime.draining = True

    def fail(self, error: HypclipError) -> None:
        """Shut down since the model is gone; running requests are answered first, those for the model by 503."""
        logger.critical("%s", error)
        self.failed = True
        self._runtime.draining = True
        self._exit_at = time.monotonic()

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, also to SIGHUP."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(None)
        if not self.should_exit:
            listening = [socket.socket(fileno=os.dup(s.fileno())) for server in self.servers for s in server.sockets]
            self._listening = listening
            for each in listening:
                each.setblocking(False)
                asyncio.get_running_loop().add_reader(each, self._accept, each)
            logs.announce(self._log_format, _address(self.config.host, listening[0]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and return after the last request."""
        logger.info("no new connections; shutting down when the running requests are answered")
        for each in self._listening:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        await super().shutdown(sockets)

    def _accept(self, listening: socket.socket) -> None:
        """Take new connections as fast as they come, beside uvicorn's own server.

        uvloop takes one connection per turn of its loop. Under a storm of requests that is a few per second, so that a
        new client would wait for many seconds.
        """
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except OSError:  # no more, or gone again
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _protocol(self) -> Protocol:
        return Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """End when it is time."""
        if time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _reload(self) -> None:
        async def reload() -> None:
            try:
                await self._runtime.reload()
            except HypclipError as error:
                logger.error("the model was not loaded again: %s", error)

        self._reloading = asyncio.get_running_loop().create_task(reload())


def _address(host: str, listening: socket.socket) -> str:
    """Return the URL of a listener: the host as it was given, and the port that it has."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host or '0.0.0.0'}:{port}"  # noqa: S104 - only named
