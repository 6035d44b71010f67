"""A trace of every request by OpenTelemetry, for servers that were told where to send it."""

from __future__ import annotations

from typing import Any

from starlette.middleware import Middleware

from hypclip.errors import MissingExtraError

_EXCLUDED = "healthz,readyz,metrics"


class Tracing:
    """Traces to an OTLP endpoint over HTTP; `middleware` is empty, and nothing is imported, without one.

    Args:
        endpoint: URL that takes spans, such as http://collector:4318/v1/traces.
        exporter: where spans go in place of the endpoint.

    Raises:
        MissingExtraError: the packages are not installed.
    """

    def __init__(self, endpoint: str | None, exporter: Any = None):
        self.middleware: list[Middleware] = []
        self._provider: Any = None
        if endpoint is None and exporter is None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise MissingExtraError(
                "traces need the packages of OpenTelemetry: run pip install 'hypclip[otel]'"
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": "hypclip"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint)))
        self.middleware = [
            Middleware(
                OpenTelemetryMiddleware,
                tracer_provider=self._provider,
                excluded_urls=_EXCLUDED,
                exclude_spans=["receive", "send"],
                server_request_hook=_keep,
            )
        ]

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def annotate(scope: Any, fields: dict[str, Any]) -> None:
    """Add what the log says of a request to its span, if it has one."""
    span = scope["state"].get("span")
    if span is not None:
        span.set_attributes({f"hypclip.{name}": value for name, value in fields.items()})


def _keep(span: Any, scope: Any) -> None:
    scope.setdefault("state", {})["span"] = span
