"""The service that the process serves, and how it changes: reload, drain, graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from hypclip.errors import HypclipError
from hypclip.search.space import require_lorentz
from serve.errors import InvalidRequest, NotReady, WorkerFailed
from serve.inference.engine import Engine
from serve.service import Service

logger = logging.getLogger(__name__)

Load: TypeAlias = Callable[[], Awaitable[Engine]]


@dataclass(eq=False)
class _Lease:
    service: Service
    users: int = 0
    retired: bool = False


class Runtime:
    """Holder of the current service, which requests lease.

    Args:
        load: makes a new engine from what the settings name; without it `reload` is refused.
    """

    def __init__(self, load: Load | None = None):
        self._load = load
        self._current: _Lease | None = None
        self._reloading = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.draining = False

    def serve(self, service: Service) -> None:
        """Give this service to the requests that come from now on; an earlier one ends with its last request.

        Raises:
            ConfigError: the engine's space is not hyperbolic.
        """
        if service.engine is not None:
            require_lorentz(service.engine.model_id, service.engine.geometry, "the server")
            service.metrics.serving(service.engine.model_id)
        before, self._current = self._current, _Lease(service)
        if before is not None:
            before.retired = True
            self._close_if_unused(before)

    @contextlib.contextmanager
    def lease(self) -> Iterator[Service]:
        """Yield the service, which stays open, and the same, for as long as the block runs.

        Raises:
            NotReady: the server has not started, or has ended.
        """
        lease = self._current
        if lease is None:
            raise NotReady("the server has not started, or has ended: it is not within its lifespan")
        lease.users += 1
        try:
            yield lease.service
        finally:
            lease.users -= 1
            self._close_if_unused(lease)

    def check_alive(self, service: Service) -> None:
        """Check that the model worker is alive.

        Raises:
            WorkerFailed: its heartbeat has stopped.
        """
        seconds_since_heartbeat = service.seconds_since_heartbeat
        if seconds_since_heartbeat > service.settings.worker_timeout_s:
            raise WorkerFailed(f"the process of the model was last heard of {seconds_since_heartbeat:.0f} s ago")

    def check_ready(self, service: Service) -> None:
        """Check that requests may be sent here.

        Raises:
            NotReady: the server is going down.
            WorkerFailed: the heartbeat of the model worker has stopped.
        """
        if self.draining:
            raise NotReady("the server is going down")
        self.check_alive(service)

    async def reload(self) -> Service:
        """Load the model anew, and serve it; not a request is dropped, and if it fails nothing changes.

        Raises:
            InvalidRequest: the server was made without the means, or is loading already.
            NotReady: the server has gone down meanwhile.
            HypclipError: what was found cannot be served.
        """
        if self._load is None or self._current is None:
            raise InvalidRequest("this server cannot load another model: it was started without one, or with its own")
        if self._reloading.locked():
            raise InvalidRequest("a model is being loaded already")
        async with self._reloading:
            engine = await self._load()
            try:
                with self.lease() as service:  # which is gone if the server has gone down meanwhile
                    self.serve(service.with_engine(engine))
            except HypclipError:
                await engine.aclose()
                raise
        logger.info("serving %s", engine.model_id)
        return self._current.service

    async def aclose(self) -> None:
        """Close the engines."""
        if self._current is not None:
            await self._current.service.aclose()
            self._current = None
        await asyncio.gather(*self._closing)

    def _close_if_unused(self, lease: _Lease) -> None:
        if lease.retired and lease.users == 0:
            task = asyncio.get_running_loop().create_task(lease.service.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
