"""What can go wrong between a client and a server, by what a program can do about it."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2


class HypclipServerError(Exception):
    """The server did not do what was asked.

    Attributes:
        status: of HTTP.
        type: what went wrong, for programs; "http_error" when it was not the server that answered, but a proxy.
        message: the same for people.
        request_id: finds the request in the log of the server; "" if there is none.
    """

    def __init__(self, status: int, type: str, message: str, request_id: str):
        super().__init__(status, type, message, request_id)
        self.status, self.type, self.message, self.request_id = status, type, message, request_id

    def __str__(self) -> str:
        return f"{self.status} {self.type}: {self.message} (request {self.request_id or 'without an id'})"


class InvalidRequest(HypclipServerError):
    """4xx: a field is wrong, or there is more than a limit allows. The message names it; to repeat it is no use."""


class Unauthorized(InvalidRequest):
    """401, 403: there is no such key, or it may not do this."""


class NotFound(InvalidRequest):
    """404: no such collection, point or route."""


class Conflict(InvalidRequest):
    """409: the collection is of another model."""


class Overloaded(HypclipServerError):
    """429: the server has too much to do, still after the retries."""


class Unavailable(HypclipServerError):
    """503: the server is starting or stopping or cannot reach its store, still after the retries."""


class DeadlineExceeded(HypclipServerError):
    """504: the server gave the request up."""


class NoAnswer(ConnectionError):
    """The connection was refused or cut, or time ran out. A write may have been done all the same."""


_BY_STATUS: Mapping[int, type[HypclipServerError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}


def server_error(response: httpx2.Response, type: str, message: str) -> HypclipServerError:
    """Return the error of a response."""
    status = response.status_code
    kind = _BY_STATUS.get(status, InvalidRequest if 400 <= status < 500 else HypclipServerError)
    return kind(status, type, message, response.headers.get("X-Request-Id", ""))


def refusal(response: httpx2.Response) -> HypclipServerError:
    """Return the error that a response without success tells of."""
    try:
        error = response.json()["error"]
        return server_error(response, error["type"], error["message"])
    except (ValueError, KeyError, TypeError):  # not the server's, but from something in front of it
        return server_error(response, "http_error", response.text[:200] or response.reason_phrase)


def no_answer(error: httpx2.RequestError) -> NoAnswer:
    """Return the error of a request that came to nothing, without the password that its URL may have."""
    request = error.request
    place = f"{request.method} {request.url.path} at {request.url.netloc.decode()}"
    return NoAnswer(f"{place}: {type(error).__name__}: {error}; is the server running there?")
