"""The two clients: how requests are sent and waited for, and nothing of what is in them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import httpx2

from .routes import Outcome, Returning, Routes

_T = TypeVar("_T")
_P = ParamSpec("_P")


def _now(route: Callable[Concatenate[Routes, _P], Returning[_T]]) -> Callable[Concatenate[Client, _P], _T]:
    @functools.wraps(route)
    def method(self: Client, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._run(route(self._routes, *args, **kwargs))

    return method


def _later(
    route: Callable[Concatenate[Routes, _P], Returning[_T]],
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]]:
    @functools.wraps(route)
    async def method(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._run(route(self._routes, *args, **kwargs))

    return method


def _options(base_url: str, api_key: str | None) -> dict[str, Any]:
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must begin with http:// or https://, not {base_url!r}")
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": base_url, "headers": headers}


class Client:
    """A connection to a server, which threads may share; close it, or use it in `with`.

    Every method raises HypclipServerError, or the subclass of its status, and all but `ready` raise NoAnswer.

    Args:
        base_url: where the server is, with the prefix that a proxy may put before its paths.
        api_key: sent as `Authorization: Bearer`.
        timeout_s: longest time of a request, its retries and the pauses between them included.
        retries: how often to try again where the server is overloaded (429), unavailable (503) or refuses the
            connection, after the pause it asks for. Nothing is done twice: writes are by id.
        transport: another way to send requests: through a proxy, with other certificates, or in tests.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
    ):
        self._http = httpx2.Client(transport=transport, **_options(base_url, api_key))
        self._routes = Routes(self._http, timeout_s, retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _run(self, flow: Returning[_T]) -> _T:
        outcome: Outcome = None
        try:
            while True:
                step = flow.send(outcome)
                if not isinstance(step, httpx2.Request):
                    time.sleep(step)
                    continue
                try:
                    outcome = self._http.send(step)
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    embed = _now(Routes.embed)
    retrieve = _now(Routes.retrieve)
    classify = _now(Routes.classify)
    ancestors = _now(Routes.ancestors)
    descendants = _now(Routes.descendants)
    common_ancestors = _now(Routes.common_ancestors)
    traverse = _now(Routes.traverse)
    mean = _now(Routes.mean)
    order = _now(Routes.order)
    put_points = _now(Routes.put_points)
    delete_points = _now(Routes.delete_points)
    collections = _now(Routes.collections)
    collection = _now(Routes.collection)
    model = _now(Routes.model)
    ready = _now(Routes.ready)


class AsyncClient:
    """A `Client` whose methods are awaited. Close it with `aclose`, or use it in `async with`. Arguments as there."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ):
        self._http = httpx2.AsyncClient(transport=transport, **_options(base_url, api_key))
        self._routes = Routes(self._http, timeout_s, retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, flow: Returning[_T]) -> _T:
        outcome: Outcome = None
        try:
            while True:
                step = flow.send(outcome)
                if not isinstance(step, httpx2.Request):
                    await anyio.sleep(step)
                    continue
                try:
                    outcome = await self._http.send(step)
                except httpx2.RequestError as error:
                    outcome = error
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    embed = _later(Routes.embed)
    retrieve = _later(Routes.retrieve)
    classify = _later(Routes.classify)
    ancestors = _later(Routes.ancestors)
    descendants = _later(Routes.descendants)
    common_ancestors = _later(Routes.common_ancestors)
    traverse = _later(Routes.traverse)
    mean = _later(Routes.mean)
    order = _later(Routes.order)
    put_points = _later(Routes.put_points)
    delete_points = _later(Routes.delete_points)
    collections = _later(Routes.collections)
    collection = _later(Routes.collection)
    model = _later(Routes.model)
    ready = _later(Routes.ready)
