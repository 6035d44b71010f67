"""HTTP as uvicorn reads it, but with bounds on what comes before a body and on how long it may take."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.http.responses import REQUEST_ID_HEADER

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of the request line and the headers, and of what follows a body in chunks. The parser puts long lines
together piece by piece, which takes time by the square of their length, and nobody else is answered meanwhile."""

HEAD_TIMEOUT_S = 30.0
"""Time limit for the first request line and headers of a connection, and for the rest of later ones."""

_STATUS = {400: b"400 Bad Request", 408: b"408 Request Timeout", 431: b"431 Request Header Fields Too Large"}


class Protocol(HttpToolsProtocol):
    """Refuse what is no HTTP, comes too slowly or in headers too large, in the shape of every other error."""

    _unread = 0
    _progress = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what has come, and end the connection where too much has come that is no body."""
        self._progress = False
        super().data_received(data)
        self._unread = 0 if self._progress else self._unread + len(data)
        if self._unread > MAX_HEAD_BYTES and not self.transport.is_closing():
            limit = f"{MAX_HEAD_BYTES:,} bytes"
            self._refuse(431, "headers_too_large", f"the request line and headers are over the limit of {limit}")

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Note that its headers are there."""
        self._stop_waiting()
        self._progress = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that some of its body is there."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that all of it is there."""
        self._progress = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, "invalid_http", "this is no HTTP/1.1 request that can be read")

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        message = f"the request line and headers took longer than {HEAD_TIMEOUT_S:g} s"
        self._refuse(408, "request_timeout", message)

    def _refuse(self, status: int, name: str, message: str) -> None:
        """Answer, unless an answer is under way, and close the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            request_id = uuid.uuid4().hex
            body = json.dumps({"error": {"type": name, "message": message, "request_id": request_id}}).encode()
            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "x-content-type-options": "nosniff",
                REQUEST_ID_HEADER.lower(): request_id,
                "connection": "close",
            }
            lines = [b"HTTP/1.1 " + _STATUS[status], *(f"{key}: {value}".encode() for key, value in headers.items())]
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()
