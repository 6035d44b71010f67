"""What happens around every request: its id, its line in the log, its rights, its room, its time."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hypclip.errors import HypclipError
from serve import timing, tracing
from serve.auth import Keyring, needed_scope
from serve.errors import (
    BodyTooLarge,
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    TooMuchAtOnce,
    UnsupportedBody,
)
from serve.metrics import Metrics
from serve.responses import REQUEST_ID_HEADER, error_response, response_to
from serve.routes import template_of
from serve.runtime import Runtime
from serve.settings import Settings

logger = logging.getLogger(__name__)
access = logging.getLogger("serve.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_CLIENT_GONE = 499
_LOGGED_CHARS = 200
_EMBEDDING = ("/embed", "/v1/embeddings")
_UNBOUNDED = ("/healthz", "/readyz", "/metrics")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)


class RequestContext:
    """Give each request an id, the client's own if it sent a sane one; time, count and log it.

    The id is `request.state.request_id`, a header of the response, part of every error, and in the log beside the
    traceback, which the client does not get to see.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, runtime: Runtime, access_log: bool):
        self.app, self._metrics, self._runtime, self._access_log = app, metrics, runtime, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = _DOCS_POLICY if scope["path"].startswith("/docs") else _POLICY
                headers[REQUEST_ID_HEADER] = request_id
                headers["Server-Timing"] = timing.header(parts, time.perf_counter() - start)
                if self._runtime.draining:
                    headers["Connection"] = "close"
                annotate()  # now, for the span of the trace ends with the response
            await send(message)

        def annotate() -> None:
            fields = {"request_id": request_id, "endpoint": _endpoint(scope), **parts}
            tracing.annotate(scope, fields)

        with timing.timings() as parts:
            try:
                await self.app(scope, receive, send_with_headers)
            except ClientGone:
                status = status or _CLIENT_GONE
                annotate()
            finally:
                self._count(scope, status, time.perf_counter() - start, parts)

    def _count(self, scope: Scope, status: int, seconds: float, parts: dict[str, float]) -> None:
        endpoint = _endpoint(scope)
        self._metrics.requests.labels(endpoint, status).inc()
        self._metrics.request_seconds.labels(endpoint).observe(seconds)
        if self._access_log and access.isEnabledFor(logging.INFO):
            fields = {
                "request_id": scope["state"]["request_id"],
                "method": scope["method"],
                "path": _logged(scope["path"]),
                "status": status,
                "ms": round(seconds * 1e3, 1),
                **{f"{part}_ms": round(taken * 1e3, 1) for part, taken in parts.items()},
            }
            access.info(" ".join(f"{name}={value}" for name, value in fields.items()), extra=fields)


class Errors:
    """Answer what is raised below: expected errors by what they say, others by 500 with the traceback in the log.

    It stands inside the middleware for CORS, so that scripts of the origins that may call can read errors too.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except ClientGone:
            raise
        except Exception as error:
            if started:
                raise
            request_id = scope["state"]["request_id"]
            response = response_to(error, request_id)
            if response is None or response.status_code == 500:
                logger.exception("request %s failed: %s %s", request_id, scope["method"], _logged(scope["path"]))
            if response is None:
                message = "the server failed to answer this request; its log has the details under this request id"
                response = error_response(request_id, 500, "internal_error", message)
            await response(scope, receive, send)


class Authenticate:
    """Ask for an API key before anything of the body is read."""

    def __init__(self, app: ASGIApp, keyring: Keyring, metrics: Metrics, protect_metrics: bool):
        self.app, self._keyring, self._metrics, self._protect_metrics = app, keyring, metrics, protect_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http":
            needed = needed_scope(scope["method"], scope["path"], protect_metrics=self._protect_metrics)
            if needed is not None:
                try:
                    self._keyring.check(_presented(Headers(scope=scope)), needed)
                except HypclipError:
                    self._metrics.rejected.labels("rights").inc()
                    raise
        await self.app(scope, receive, send)


class Bounds:
    """Bound how many requests there are at a time, the bytes of their bodies, and the bytes of each.

    Bodies are refused at once when Content-Length says so, else as soon as more has come in.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app, self._settings, self._metrics = app, settings, metrics
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["path"] in _UNBOUNDED:
            await self.app(scope, receive, send)
            return
        settings = self._settings
        if self._requests >= settings.max_requests:
            self._metrics.rejected.labels("requests").inc()
            raise Overloaded(f"{settings.max_requests:,} requests are being answered already", "max_requests")
        headers = Headers(scope=scope)
        if _announced(headers) > settings.max_body_bytes:
            self._metrics.rejected.labels("body").inc()
            error = BodyTooLarge(settings.max_body_bytes)
            response = error_response(scope["state"]["request_id"], 413, "body_too_large", error.detail)
            await response(scope, receive, send)
            return
        if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise UnsupportedBody("bodies are not decompressed: send this one without the header Content-Encoding")
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                received += size
                self._bytes += size
                if received > settings.max_body_bytes:
                    self._metrics.rejected.labels("body").inc()
                    raise BodyTooLarge(settings.max_body_bytes)
                if self._bytes > settings.max_request_bytes and self._requests > 1:
                    self._metrics.rejected.labels("bytes").inc()
                    raise TooMuchAtOnce(settings.max_request_bytes)
            return message

        self._requests += 1
        try:
            await self.app(scope, counted, send)
        finally:
            self._requests -= 1
            self._bytes -= received


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
                service.engine.check_room()
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


def _presented(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else headers.get("x-api-key")


def _announced(headers: Headers) -> float:
    """Return how many bytes the body will have, as far as the client says so."""
    length = headers.get("content-length", "")
    return float(length) if length.isdecimal() else 0  # not int, which refuses thousands of digits


class Head:
    """Answers HEAD as GET without the body, which FastAPI leaves to each route; monitors and proxies ask so."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, send_without_body)


def _is_admin(path: str) -> bool:
    return path.startswith("/admin/")


def _endpoint(scope: Scope) -> str:
    """Return the path of the route as the document writes it, for the few values that a label may take.

    Also for what is refused before there is a route: without a key, or for want of room. All that leads nowhere, and
    the files of the docs, are "other".
    """
    path = getattr(scope.get("route"), "path_format", None) or template_of(scope["path"])
    return path or "other"


def _logged(path: str) -> str:
    """Return a path as a client may have made it up, for one short line of a log."""
    return quote(path[:_LOGGED_CHARS], safe="/:@!$&'()*+,;=~-._", errors="replace")
