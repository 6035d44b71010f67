"""A hostile request: the bytes that go over the wire, how they are sent, and what the answer may be."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import uvicorn

from serve.http.protocol import Protocol

IMAGE = r"image|EXIF|HYPCLIP_MAX_IMAGE|HYPCLIP_IMAGE_URL"
"""What a message about a picture has to match."""
BODY = r"body|JSON|HYPCLIP_MAX_BODY_BYTES"
"""What a message about a body has to match."""
_SECRETS = re.compile(r"Traceback|File \"|/home/|/usr/|/tmp/|\.py\b|0x[0-9a-f]{6,}|127\.0\.0\.1|::1|\(most recent")


@dataclass(frozen=True)
class Payload:
    """One request.

    Args:
        name: what it tries.
        raw: the bytes to send.
        names: what a message that refuses it has to match.
        http: whether it is HTTP at all; what is not may be refused by the HTTP parser, or by closing the connection.
    """

    name: str
    raw: bytes
    names: str
    http: bool = True


def request(method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """Write a request as it is meant to be, whatever is in it."""
    given = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def posted(body: bytes | Any, path: str = "/embed", method: str = "POST", **headers: str) -> bytes:
    """Write a request with a body, JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(method, path, {"Content-Type": "application/json", **named}, content)


def form(parts: list[tuple[str, str | None, bytes]], boundary: str = "frontier") -> tuple[bytes, str]:
    """Write parts of (name, filename, content), and the content type."""
    body = io.BytesIO()
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode("latin-1"))
        body.write(content + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    return body.getvalue(), f"multipart/form-data; boundary={boundary}"


def send(port: int, raw: bytes, timeout_s: float = 20.0) -> tuple[int, Mapping[str, str], bytes, float]:
    """Send bytes to this machine; return status, headers and body of the answer, and the seconds it took.

    The status is 0 when the connection was closed without an answer.
    """
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        with contextlib.suppress(OSError):  # answered and closed before all of it was sent
            connection.sendall(raw)
        response = http.client.HTTPResponse(connection, method=raw.split(b" ", 1)[0].decode("latin-1"))
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            return 0, {}, b"", time.monotonic() - begin
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, body, time.monotonic() - begin


def closing(raw: bytes) -> bytes:
    """Ask for the end of the connection, where that can be asked for, so that the answer ends with it."""
    return raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nConnection: close\r\n", 1)


def check(payload: Payload, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """Return what is wrong with an answer, if anything is."""
    if not payload.http and (status == 0 or (status == 400 and body == b"Invalid HTTP request received.")):
        return None
    if not 200 <= status < 500:
        return f"status {status}: {body[:200]!r}"
    if "x-request-id" not in headers or headers.get("x-content-type-options") != "nosniff":
        return f"headers are missing: {dict(headers)}"
    if status < 400 or payload.raw.startswith(b"HEAD"):
        return None
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"not the shape of an error: {body[:200]!r}"
    if error.keys() != {"type", "message", "request_id"} or headers["x-request-id"] != error["request_id"]:
        return f"not the shape of an error: {body[:200]!r}"
    message = error["message"]
    if len(message) > 1_000 or not message.isprintable():
        return f"a message that is long or not printable: {message[:200]!r}"
    sent = unquote_to_bytes(payload.raw)  # which may be quoted
    if secret := next((s for s in _SECRETS.findall(message) if s.encode() not in sent), None):
        return f"a message that tells of {secret!r}: {message!r}"
    if not payload.http and error["type"] in ("invalid_http", "headers_too_large"):
        return None
    if not re.search(payload.names, message, re.IGNORECASE):
        return f"a message that names none of {payload.names}: {message!r}"
    return None


@contextlib.contextmanager
def listening(app: Any) -> Iterator[int]:
    """Serve an app by uvicorn in a thread; yield the port."""
    options: dict[str, Any] = {"ws": "none", "lifespan": "on", "log_config": None, "access_log": False}
    config = uvicorn.Config(app, port=0, http=Protocol, server_header=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
