"""What the server says on standard error, and what it leaves out."""

import io
import json
import logging
import socket
import sys
import warnings

import pytest

from serve.http.server import _address
from serve.telemetry import logs

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def said(monkeypatch):
    """Standard error as a console of some encoding has it; `said(encoding)` begins, and returns what has come."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in ("serve", "hypclip")]
    before = (root.level, list(root.handlers), [each.level for each in ours])

    def begin(encoding="utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        monkeypatch.setattr(sys, "stderr", stream)

        def lines():
            stream.flush()
            return stream.buffer.getvalue().decode(encoding).splitlines()

        return lines

    with warnings.catch_warnings():
        yield begin
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for each, level in zip(ours, before[2], strict=True):
        each.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_libraries_are_quiet_and_the_server_is_not(said, style):
    lines = said()
    logs.configure(style)
    for library in ("onnx_ir.passes", "onnxscript.optimizer", "httpx", "uvicorn.error", "some.other"):
        logging.getLogger(library).info("nothing that anybody can act on")
    warnings.warn("deprecated since yesterday", FutureWarning, stacklevel=1)
    assert lines() == []
    logging.getLogger("serve.access").info("a request")
    logging.getLogger("hypclip.data").info("a sample")
    logging.getLogger("uvicorn.error").error("address in use")
    assert [part in line for part, line in zip(("a request", "a sample", "address in use"), lines(), strict=True)] == [
        True
    ] * 3


def test_who_asks_for_warnings_gets_them(said, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    logs.configure("text")
    with pytest.warns(FutureWarning):
        warnings.warn("deprecated since yesterday", FutureWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", [f"{ADDRESS} – docs at /docs", f"Explorer: {ADDRESS}/"]),
        ("ascii", [f"{ADDRESS} - docs at /docs", f"Explorer: {ADDRESS}/"]),
    ],
)
def test_the_banner_is_two_lines_for_people_that_any_console_can_print(said, encoding, expected):
    lines = said(encoding)
    logs.configure("text")
    logs.announce("text", ADDRESS)
    assert lines() == expected


def test_the_banner_is_a_record_for_machines(said):
    lines = said("ascii")
    logs.configure("json")
    logs.announce("json", ADDRESS)
    (line,) = lines()
    record = json.loads(line)
    assert record["message"] == f"{ADDRESS} – docs at /docs"
    assert record["level"] == "INFO"
    assert record["time"]


@pytest.mark.parametrize(
    ("host", "bound", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:{}"),
        ("localhost", "127.0.0.1", "http://localhost:{}"),
        ("0.0.0.0", "0.0.0.0", "http://0.0.0.0:{}"),
        ("", "0.0.0.0", "http://0.0.0.0:{}"),
        ("::1", "127.0.0.1", "http://[::1]:{}"),
    ],
)
def test_the_address_has_the_port_that_was_taken(host, bound, expected):
    with socket.create_server((bound, 0)) as listening:
        assert _address(host, listening) == expected.format(listening.getsockname()[1])
