"""Traces: a span a request with what the log says of it, none for health, and nothing at all without a setting."""

import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import serve.app
from hypclip.errors import MissingExtraError
from serve.telemetry.tracing import Tracing
from tests.support.serving import FakeEngine, app_at, encoded, quadrants

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """Return a function that sends requests by a client, and returns the spans."""

    def run(send, engine=None, **settings):
        exporter = InMemorySpanExporter()
        monkeypatch.setattr(serve.app, "Tracing", lambda endpoint: Tracing(endpoint, exporter))
        with TestClient(app_at(tmp_path, engine, **settings), raise_server_exceptions=False) as client:
            send(client)
        return exporter.get_finished_spans()

    return run


def test_a_request_becomes_a_span_with_what_the_log_says(traced):
    def send(client):
        client.put("/collections/default/points", json={"points": [{"id": "a", "image": encoded(quadrants())}]})
        client.post("/retrieve", json={"query": "a"}, headers={"x-request-id": "job-1"})

    put, retrieve = traced(send)
    assert [span.kind.name for span in (put, retrieve)] == ["SERVER", "SERVER"]
    assert retrieve.attributes["hypclip.request_id"] == "job-1"
    assert retrieve.attributes["hypclip.endpoint"] == "/retrieve"
    assert put.attributes["hypclip.endpoint"] == "/collections/{name}/points"
    assert (retrieve.attributes["http.method"], retrieve.attributes["http.status_code"]) == ("POST", 200)
    assert 0 < retrieve.attributes["hypclip.index"] < 10
    assert 0 < put.attributes["hypclip.pre"] < 10
    assert retrieve.resource.attributes["service.name"] == "hypclip"


def test_refusals_and_failures_are_spans_too(traced):
    class Broken(FakeEngine):
        async def embed_text(self, texts):
            raise RuntimeError

    def send(client):
        client.get("/nowhere")
        client.post("/embed", json={"inputs": []})
        client.post("/embed", json={"inputs": ["a"]})

    spans = traced(send, Broken())
    assert [span.attributes["http.status_code"] for span in spans] == [404, 422, 500]
    assert [span.attributes["hypclip.endpoint"] for span in spans] == ["other", "/embed", "/embed"]
    assert [span.status.status_code.name for span in spans] == ["UNSET", "UNSET", "ERROR"]


def test_health_and_metrics_leave_no_spans(traced):
    def send(client):
        for path in ("/healthz", "/readyz", "/metrics", "/metrics?a=b"):
            assert client.get(path).status_code == 200

    assert traced(send) == ()


def test_a_trace_that_has_begun_goes_on(traced):
    def send(client):
        client.get("/model", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        client.get("/model")

    within, alone = traced(send)
    assert format(within.context.trace_id, "032x") == TRACE
    assert format(within.parent.span_id, "016x") == PARENT
    assert format(alone.context.trace_id, "032x") != TRACE
    assert alone.parent is None


@pytest.mark.parametrize("value", ["", "x", "00-0-0-0", f"00-{TRACE}-{PARENT}", "é" * 500, f"ff-{TRACE}-{PARENT}-01-9"])
def test_an_odd_trace_header_harms_nobody(traced, value):
    def send(client):
        assert client.get("/model", headers=[(b"traceparent", value.encode("latin-1"))]).status_code == 200

    assert len(traced(send)) == 1


def test_no_text_key_or_picture_gets_into_a_span(traced):
    def send(client):
        client.post("/embed", json={"inputs": ["my text"]}, headers={"authorization": "Bearer hyp_secret"})

    (span,) = traced(send)
    assert "my text" not in str(dict(span.attributes))
    assert "hyp_secret" not in str(dict(span.attributes))


@pytest.mark.slow
def test_without_a_setting_there_is_no_middleware_and_no_package():
    assert Tracing(None).middleware == []
    Tracing(None).close()
    program = """
import sys
import serve.command, serve.app
from serve.settings import Settings
from serve.telemetry.tracing import Tracing
Tracing(Settings().otel_endpoint)
# FastAPI looks for the interface by itself; these are what sends.
senders = tuple(f"opentelemetry.{name}" for name in ("sdk", "exporter", "instrumentation"))
print([name for name in sys.modules if name.startswith(senders)])
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asgi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hypclip\[otel\]'"):
        Tracing("http://collector:4318/v1/traces")
