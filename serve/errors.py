"""The one place where errors become responses: {"error": {"type", "message", "request_id"}}."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hypclip.errors import HypclipError, InputError
from hypclip.search import ModelMismatch, Unavailable, UnknownCollection, UnknownField, UnknownPoint
from serve.settings import ENV_PREFIX

REQUEST_ID_HEADER = "X-Request-Id"
_PROBLEMS_SHOWN = 3


class LimitExceeded(HypclipError):
    """A request asks for more than a setting allows."""

    def __init__(self, what: str, value: float | None, limit: float, setting: str):
        size = "" if value is None else f"{value:,}, "
        super().__init__(f"{what} is {size}over the limit of {limit:,} (setting {ENV_PREFIX}{setting.upper()})")


class InvalidImage(HypclipError):
    """What came as an image is no picture that can be read."""


class InvalidRequest(HypclipError):
    """Fields that are fine each by itself do not work together."""


class NotReady(HypclipError):
    """The server cannot answer yet, or not any more."""


class Overloaded(HypclipError):
    """There is no room for a request now.

    Args:
        what: what is full.
        setting: what bounds it.
        retry_after_s: when there is likely to be room again.
    """

    def __init__(self, what: str, setting: str, retry_after_s: float = 1.0):
        super().__init__(f"{what} (setting {ENV_PREFIX}{setting.upper()}); try again in a moment")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(HypclipError):
    """A request took longer than one may."""

    def __init__(self, limit_s: float):
        super().__init__(f"the answer took longer than {limit_s:g} s (setting {ENV_PREFIX}REQUEST_TIMEOUT_S)")


class StartFailed(HypclipError):
    """The model cannot be run."""


class WorkerFailed(HypclipError):
    """The process of the model has died."""


class InputFailed(HypclipError):
    """The model fails on an input; a fault of the server's."""


class Unauthorized(HypclipError):
    """No API key, or one that is not known."""


class Forbidden(HypclipError):
    """The API key is not for this."""


class UnknownModel(HypclipError):
    """A request names another model than the one that is served."""


class BodyTooLarge(HTTPException):
    """The body is over the limit. An HTTPException, because FastAPI lets only those through while it reads a body."""

    def __init__(self, limit: int):
        super().__init__(
            413, f"the request body is over the limit of {limit:,} bytes (setting {ENV_PREFIX}MAX_BODY_BYTES)"
        )


class TooMuchAtOnce(HTTPException):
    """The bodies of all requests together are over the limit; an HTTPException for the same reason."""

    def __init__(self, limit: int):
        super().__init__(
            429,
            f"the bodies of all requests at a time are over the limit of {limit:,} bytes (setting "
            f"{ENV_PREFIX}MAX_REQUEST_BYTES); try again in a moment",
            headers={"Retry-After": "1"},
        )


class ClientGone(Exception):
    """The client has closed the connection; there is nobody to answer."""


RESPONSES: Mapping[type[HypclipError], tuple[int, str]] = {
    UnknownCollection: (404, "unknown_collection"),
    UnknownPoint: (404, "unknown_point"),
    UnknownModel: (404, "unknown_model"),
    Unauthorized: (401, "unauthorized"),
    Forbidden: (403, "forbidden"),
    ModelMismatch: (409, "model_mismatch"),
    LimitExceeded: (422, "limit_exceeded"),
    InvalidImage: (422, "invalid_image"),
    InvalidRequest: (422, "invalid_request"),
    UnknownField: (422, "unknown_field"),
    InputError: (422, "invalid_input"),
    Overloaded: (429, "overloaded"),
    InputFailed: (500, "model_failed"),
    NotReady: (503, "not_ready"),
    WorkerFailed: (503, "worker_failed"),
    Unavailable: (503, "store_unavailable"),
    DeadlineExceeded: (504, "deadline_exceeded"),
}
"""Status and type of every error a client can cause or must know about. Any other one is ours: 500, logged."""

_HTTP_TYPES = {
    400: "invalid_json",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    429: "overloaded",
}


def install(app: FastAPI) -> None:
    """Have the app answer every expected error in the one shape; `RequestContext` does so for the unexpected ones."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    for kind in RESPONSES:
        app.add_exception_handler(kind, _expected)


def response_to(error: HypclipError, request_id: str) -> JSONResponse:
    """Build the response to an expected error."""
    status, name = next(known for kind, known in RESPONSES.items() if isinstance(error, kind))
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(request_id, status, name, str(error), headers)


def error_response(
    request_id: str, status: int, name: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build the response."""
    body = {"error": {"type": name, "message": message, "request_id": request_id}}
    return JSONResponse(body, status_code=status, headers=headers)


async def _expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HypclipError)
    return response_to(error, request.state.request_id)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 400:
            message = "the body is not valid JSON, or is nested too deeply"
        case 404:
            message = f"there is nothing at {request.url.path}; see /docs"
        case 405:
            message = f"{request.url.path} does not take {request.method}; see /docs"
        case _:
            message = str(error.detail)
    name = _HTTP_TYPES.get(error.status_code, "http_error")
    return error_response(request.state.request_id, error.status_code, name, message, error.headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    request_id = request.state.request_id
    if problems[0]["type"] == "json_invalid":
        position = problems[0]["loc"][-1]
        detail = problems[0]["ctx"]["error"]
        return error_response(request_id, 400, "invalid_json", f"the body is not valid JSON: {detail} at {position}")
    content_type = request.headers.get("content-type", "")
    if request.method != "GET" and "json" not in content_type.lower():
        message = f"send the body as JSON with the header Content-Type: application/json, not {content_type!r}"
        return error_response(request_id, 415, "unsupported_media_type", message)
    shown = "; ".join(
        f"{_place(p['loc'])}: {p['msg'].removeprefix('Value error, ')}" for p in problems[:_PROBLEMS_SHOWN]
    )
    more = f"; and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
    return error_response(request_id, 422, "invalid_request", shown + more)


def _place(loc: tuple[int | str, ...]) -> str:
    """Write ("body", "inputs", 3, "(text)", "text") as inputs.3.text, shortened when it is absurdly deep."""
    parts = [str(part) for part in loc[1:] if not str(part).startswith("(")] or ["body"]
    return ".".join(parts if len(parts) <= 8 else [*parts[:8], "…"])
