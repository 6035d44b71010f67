"""Context of a request: its id, response headers, metrics and access log."""

from __future__ import annotations

import logging
import re
import time
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import (
    ClientGone,
)
from serve.http.responses import REQUEST_ID_HEADER
from serve.runtime import Runtime
from serve.telemetry import timing, tracing
from serve.telemetry.metrics import Metrics

access = logging.getLogger("serve.access")


_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

_CLIENT_GONE = 499

_LOGGED_CHARS = 200

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

_EXPLORER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html"
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
                for name, value in {**_HEADERS, "Content-Security-Policy": _policy(scope["path"])}.items():
                    headers.setdefault(name, value)  # a route may have its own
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
                "path": logged(scope["path"]),
                "status": status,
                "ms": round(seconds * 1e3, 1),
                **{f"{part}_ms": round(taken * 1e3, 1) for part, taken in parts.items()},
            }
            access.info(" ".join(f"{name}={value}" for name, value in fields.items()), extra=fields)


def _endpoint(scope: Scope) -> str:
    """Return the path of the route as the document writes it, for the few values that a label may take.

    Also for what is refused before there is a route: without a key, or for want of room. All that leads nowhere, and
    the files of the docs, are "other".
    """
    path = getattr(scope.get("route"), "path_format", None) or scope["app"].state.paths.template_of(scope["path"])
    return path or "other"


def _policy(path: str) -> str:
    if path == "/" or path.startswith("/explorer/"):
        return _EXPLORER_POLICY
    return _DOCS_POLICY if path.startswith("/docs") else _POLICY


def logged(path: str) -> str:
    """Return a path as a client may have made it up, for one short line of a log."""
    return quote(path[:_LOGGED_CHARS], safe="/:@!$&'()*+,;=~-._", errors="replace")
