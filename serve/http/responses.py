"""The one place where errors become responses: {"error": {"type", "message", "request_id"}}."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.message import Message

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hypclip.errors import CheckpointError, ConfigError, HypclipError, InputError
from hypclip.search import ModelMismatch, Unavailable, UnknownCollection, UnknownField, UnknownPoint
from serve.errors import (
    DeadlineExceeded,
    Forbidden,
    InputFailed,
    InvalidImage,
    InvalidRequest,
    LimitExceeded,
    NoModel,
    NotReady,
    Overloaded,
    StartFailed,
    Unauthorized,
    UnknownHost,
    UnknownImage,
    UnknownModel,
    UnsupportedBody,
    WorkerFailed,
    describe,
    quoted,
)
from serve.http.paths import Paths
from serve.inputs.fetch import FetchFailed

REQUEST_ID_HEADER = "X-Request-Id"
_MESSAGE_CHARS = 1000

RESPONSES: Mapping[type[HypclipError], tuple[int, str]] = {
    UnknownCollection: (404, "unknown_collection"),
    UnknownPoint: (404, "unknown_point"),
    UnknownImage: (404, "unknown_image"),
    UnknownModel: (404, "unknown_model"),
    Unauthorized: (401, "unauthorized"),
    UnknownHost: (421, "unknown_host"),
    Forbidden: (403, "forbidden"),
    ModelMismatch: (409, "model_mismatch"),
    NoModel: (409, "no_model"),
    UnsupportedBody: (415, "unsupported_media_type"),
    LimitExceeded: (422, "limit_exceeded"),
    InvalidImage: (422, "invalid_image"),
    FetchFailed: (422, "fetch_failed"),
    InvalidRequest: (422, "invalid_request"),
    UnknownField: (422, "unknown_field"),
    InputError: (422, "invalid_input"),
    Overloaded: (429, "overloaded"),
    InputFailed: (500, "model_failed"),
    StartFailed: (500, "model_not_loaded"),
    CheckpointError: (500, "model_not_loaded"),
    ConfigError: (500, "model_not_loaded"),
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
    """Have the app answer what FastAPI and Starlette raise in the one shape; `Errors` does so for everything else."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)


def response_to(error: Exception, request_id: str) -> JSONResponse | None:
    """Build the response to an error; None if it is not one that is expected."""
    known = next((known for kind, known in RESPONSES.items() if isinstance(error, kind)), None)
    if known is None:
        return None
    status, name = known
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(request_id, status, name, str(error), headers)


def error_response(
    request_id: str, status: int, name: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Build the response. A message that quotes a lot is cut, and what UTF-8 cannot hold is escaped."""
    if len(message) > _MESSAGE_CHARS:
        message = message[: _MESSAGE_CHARS - 1] + "…"
    message = message.encode("utf-8", "backslashreplace").decode()
    body = {"error": {"type": name, "message": message, "request_id": request_id}}
    return JSONResponse(body, status_code=status, headers=headers)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    # Not `request.url`, which is also made of the Host header and the query, and those need not be valid.
    paths: Paths = request.app.state.paths
    path, headers = quoted(request.scope["path"]), dict(error.headers or {})
    match error.status_code:
        case 400:
            message = f"the body is not valid JSON: {_unreadable(error.__cause__)}"
        case 404:
            message = f"there is nothing at {path}; {_advice(paths, request.scope['path'])}see /docs"
        case 405:
            headers["Allow"] = ", ".join(paths.methods_of(request.scope["path"])) or headers.get("Allow", "")
            message = f"{path} does not take {quoted(request.method)}, only {headers['Allow']}; see /docs"
        case _:
            message = str(error.detail)
    name = _HTTP_TYPES.get(error.status_code, "http_error")
    return error_response(request.state.request_id, error.status_code, name, message, headers)


def _advice(paths: Paths, path: str) -> str:
    if meant := paths.nearby(path):
        return f"did you mean {quoted(meant)}? Or "
    if path == "/v1" or path.startswith("/v1/"):
        return "of the OpenAI API this server has /v1/embeddings and /v1/models; "
    return ""


def _unreadable(cause: BaseException | None) -> str:
    match cause:
        case RecursionError():
            return "it is nested too deeply"
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case ValueError():
            return "a number has too many digits"
        case _:
            return "it cannot be read"


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    request_id = request.state.request_id
    if problems[0]["type"] == "json_invalid":
        position = problems[0]["loc"][-1]
        detail = problems[0]["ctx"]["error"]
        return error_response(request_id, 400, "invalid_json", f"the body is not valid JSON: {detail} at {position}")
    content_type = request.headers.get("content-type", "")
    if any(problem["loc"][0] == "body" for problem in problems) and not _is_json(content_type):
        message = f"send the body as JSON with the header Content-Type: application/json, not {quoted(content_type)!r}"
        return error_response(request_id, 415, "unsupported_media_type", message)
    return error_response(request_id, 422, "invalid_request", describe(problems))


def _is_json(content_type: str) -> bool:
    """Whether FastAPI reads a body of this type as JSON."""
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
