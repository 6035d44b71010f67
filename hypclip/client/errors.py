"""Errors between a client and a server, by what a program can do about them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping

import httpx2


class HypclipServerError(Exception):
    """The server refused or failed a request.

    Attributes:
        status: of HTTP.
        type: the kind of error, for programs; "http_error" when it was not the server that answered, but a proxy.
        message: the error, for people.
        request_id: finds the request in the log of the server; "" if there is none.
    """

    def __init__(self, status: int, type: str, message: str, request_id: str):
        super().__init__(status, type, message, request_id)
        self.status, self.type, self.message, self.request_id = status, type, message, request_id

    def __str__(self) -> str:
        return f"{self.status} {self.type}: {self.message} (request {self.request_id or 'without an id'})"


class InvalidRequest(HypclipServerError):
    """4xx: a field is wrong, or there is more than a limit allows. The message names it; do not retry."""


class Unauthorized(InvalidRequest):
    """401, 403: there is no such key, or it may not do this."""


class NotFound(InvalidRequest):
    """404: no such collection, point or route."""


class Conflict(InvalidRequest):
    """409: the collection is of another model, or the server has none and the request needs one."""


class Overloaded(HypclipServerError):
    """429: the server has too much to do, still after the retries."""


class Unavailable(HypclipServerError):
    """503: the server is starting or stopping or cannot reach its store, still after the retries."""


class DeadlineExceeded(HypclipServerError):
    """504: the server gave the request up."""


class NoAnswer(ConnectionError):
    """The connection was refused or cut, or time ran out. A write may have been done all the same."""


class UnusableProxy(ValueError):
    """The environment names a proxy that cannot be used: of another kind, or for want of a library."""


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


def refusal(response: httpx2.Response, proxy: str | None = None) -> HypclipServerError:
    """Return the error of an unsuccessful response; `proxy` is the proxy it came through, without a password."""
    try:
        error = response.json()["error"]
        return server_error(response, error["type"], error["message"])
    except (ValueError, KeyError, TypeError):  # not the server's, but from something in front of it
        moved = response.headers.get("Location") if response.is_redirect else None
        if moved:  # which is not followed: the key in the request is for the server that was named
            return server_error(response, "http_error", f"it sends on to {moved[:200]}: is that the right base_url?")
        through = f" (through the proxy {proxy}, which may have answered itself)" if proxy else ""
        return server_error(response, "http_error", f"{response.text[:200] or response.reason_phrase}{through}")


def no_answer(error: httpx2.RequestError, proxy: str | None = None) -> NoAnswer:
    """Return the error of a request that came to nothing, without the password that its URL may have.

    Args:
        error: of the request.
        proxy: the proxy it went through, without a password.
    """
    request = error.request
    place = f"{request.method} {request.url.path} at {request.url.netloc.decode()}"
    through = f" through the proxy {proxy}" if proxy else ""
    details = [str(cause) for cause in _causes(error) if str(cause)]  # those of asynchronous calls are often empty
    said = ": ".join([type(error).__name__, *details[:1]])
    return NoAnswer(f"{place}{through}: {said}; {_likely(error, request.url, proxy)}")


def is_about_tls(error: BaseException | None) -> bool:
    """Tell whether TLS failed, so that to retry is no use."""
    return _cause(error, ssl.SSLError) is not None


def _likely(error: httpx2.RequestError, url: httpx2.URL, proxy: str | None) -> str:
    """Return the likely cause, and a remedy where there is one."""
    tls = _cause(error, ssl.SSLError)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return "its certificate is not trusted here: name that of its authority in SSL_CERT_FILE, or give a transport"
    if tls is not None:
        return f"what answers there speaks no TLS, or another version: is it http://{url.netloc.decode()}?"
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError() if proxy:
            return f"does the proxy work? To do without it, put {url.host} into NO_PROXY"
        case httpx2.ConnectError() if _cause(error, socket.gaierror) is not None:
            return f"there is no host of the name {url.host!r}, or names cannot be looked up now"
        case httpx2.ConnectTimeout():
            return "nothing answers at that address: is it the right one, and no firewall between?"
        case httpx2.ConnectError():
            return "is the server running there?"
        case httpx2.DecodingError():
            return "what answers there says that it is compressed, and it is not: is it another server?"
        case httpx2.TimeoutException():
            return "the server was reached, and did not finish within timeout_s"
        case httpx2.RemoteProtocolError() if str(error).startswith("illegal"):
            other = "" if url.scheme == "https" else f", such as https://{url.netloc.decode()}"
            return f"what answers there is no HTTP server{other}: is the port right?"
        case httpx2.RemoteProtocolError():
            return "has the server stopped, or is what listens there another one, such as one for https only?"
        case _:
            return "the connection was cut; what was asked may have been done"


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    return next((cause for cause in _causes(error) if isinstance(cause, kind)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
