"""The API key of a request."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hypclip.errors import HypclipError
from serve.http.keys import Keyring, needed_scope
from serve.telemetry.metrics import Metrics


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


def _presented(headers: Headers) -> str | None:
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else headers.get("x-api-key")
