"""The two clients: sending requests and waiting for answers, without knowledge of their content."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import httpx2

from .asking import Outcome, Returning
from .errors import UnusableProxy
from .proxies import proxy_for
from .routes import Routes

_HOST_AND_PORT = re.compile(r"[\w.\-\[\]:]+(?:/[\w./-]*)?")
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


_Transport = TypeVar("_Transport", httpx2.HTTPTransport, httpx2.AsyncHTTPTransport)


def _address(base_url: str) -> httpx2.URL:
    if not isinstance(base_url, str | httpx2.URL):
        raise TypeError(f"base_url must be a string, not {type(base_url).__name__}")
    written = str(base_url).strip()
    if not written.lower().startswith(("http://", "https://")):
        how = f": write 'http://{written}'" if _HOST_AND_PORT.fullmatch(written) and "://" not in written else ""
        raise ValueError(f"base_url must begin with http:// or https://, not {base_url!r}{how}")
    try:
        url = httpx2.URL(written)
    except httpx2.InvalidURL as error:
        raise ValueError(f"base_url is no valid URL: {error}") from error
    if url.port is not None and not 0 < url.port < 2**16:
        raise ValueError(f"base_url must have a port below 65,536, not {url.port}")
    if url.query or url.fragment:
        raise ValueError("base_url must end before ? and #, where the paths of the server are put behind it")
    if not url.host:
        raise ValueError(f"base_url must name a host, as http://127.0.0.1:8000 does, not {base_url!r}")
    return url


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        if not isinstance(api_key, str):
            raise TypeError(f"api_key must be a string, not {type(api_key).__name__}")
        key = api_key.strip()  # a line's end, where it was read from a file
        if not key or not key.isascii() or not key.isprintable():
            # The key itself is not for messages.
            raise ValueError("api_key must be printable ASCII on one line, as python -m serve --new-key prints it")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _raised(error: OSError, request: httpx2.Request) -> httpx2.RequestError:
    known = httpx2.NetworkError(str(error), request=request)
    known.__cause__ = error
    return known


def _connection(kind: type[_Transport], url: httpx2.URL) -> tuple[_Transport, str | None]:
    """Return the transport for a server, and the proxy it goes through, for messages."""
    proxy = proxy_for(url)
    if proxy is None:
        return kind(), None
    try:
        return kind(proxy=proxy.url), proxy.named
    except ImportError as error:
        raise UnusableProxy(
            f"the proxy {proxy.named} needs a library that is not installed: pip install 'httpx2[socks]'. "
            f"Or put {url.host} into NO_PROXY to do without"
        ) from error


class Client:
    """A connection to a server, which threads may share; close it, or use it in `with`.

    Every method raises HypclipServerError, or the subclass of its status, and all but `ready` raise NoAnswer.

    Args:
        base_url: where the server is, with the prefix that a proxy may put before its paths.
        api_key: sent as `Authorization: Bearer`.
        timeout_s: longest time of a request, its retries and the pauses between them included.
        retries: how often to try again where the server is overloaded (429), unavailable (503) or refuses the
            connection, after the pause it asks for. Nothing is done twice: writes are by id.
        transport: another way to send requests: through a proxy, with other certificates, or in tests. Without it the
            proxy is that of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, unless NO_PROXY excepts the server or it is this
            machine.

    Raises:
        ValueError: the URL, the key or a limit cannot work; UnusableProxy, which is one, where the proxy cannot.
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
        url, headers, proxy = _address(base_url), _headers(api_key), None
        if transport is None:
            transport, proxy = _connection(httpx2.HTTPTransport, url)
        self._http = httpx2.Client(transport=transport, base_url=url, headers=headers)
        self._routes = Routes(self._http, timeout_s, retries, proxy)

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
                except OSError as error:  # of TLS some come as they are
                    outcome = _raised(error, step)
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
    points = _now(Routes.points)
    point = _now(Routes.point)
    lookup = _now(Routes.lookup)
    fields = _now(Routes.fields)
    thumbnails = _now(Routes.thumbnails)
    map = _now(Routes.map)
    renew_map = _now(Routes.renew_map)
    focus = _now(Routes.focus)
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
        url, headers, proxy = _address(base_url), _headers(api_key), None
        if transport is None:
            transport, proxy = _connection(httpx2.AsyncHTTPTransport, url)
        self._http = httpx2.AsyncClient(transport=transport, base_url=url, headers=headers)
        self._routes = Routes(self._http, timeout_s, retries, proxy)

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
                except OSError as error:  # of TLS some come as they are
                    outcome = _raised(error, step)
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
    points = _later(Routes.points)
    point = _later(Routes.point)
    lookup = _later(Routes.lookup)
    fields = _later(Routes.fields)
    thumbnails = _later(Routes.thumbnails)
    map = _later(Routes.map)
    renew_map = _later(Routes.renew_map)
    focus = _later(Routes.focus)
    model = _later(Routes.model)
    ready = _later(Routes.ready)
