"""Limits of the number of concurrent requests, and of the bytes of their bodies."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import (
    BodyTooLarge,
    Overloaded,
    TooMuchAtOnce,
    UnsupportedBody,
)
from serve.http.responses import error_response
from serve.settings import Settings
from serve.telemetry.metrics import Metrics

_UNBOUNDED = ("/healthz", "/readyz", "/metrics")


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


def _announced(headers: Headers) -> float:
    """Return the length of the body that the client declares."""
    length = headers.get("content-length", "")
    return float(length) if length.isdecimal() else 0  # not int, which refuses thousands of digits
