"""Errors of requests; `serve.http.responses` maps them to responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from hypclip.errors import HypclipError
from serve.settings import ENV_PREFIX

_PROBLEMS_SHOWN = 3
_QUOTED_CHARS = 64


class LimitExceeded(HypclipError):
    """A request asks for more than a setting allows."""

    def __init__(self, what: str, value: float | None, limit: float, setting: str):
        size = "" if value is None else f"{value:,}, "
        super().__init__(f"{what} is {size}over the limit of {limit:,} (setting {ENV_PREFIX}{setting.upper()})")


class InvalidImage(HypclipError):
    """The bytes of an image cannot be read as one."""


class InvalidRequest(HypclipError):
    """Fields that are fine each by itself do not work together."""


class UnsupportedBody(HypclipError):
    """The body comes in a form that is not read."""


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


class UnknownHost(HypclipError):
    """A request came by a name that may be of a page of the web that only pretends to lead here."""

    def __init__(self, host: str):
        super().__init__(
            f"this server does not go by the name {quoted(host)!r}: ask by its address, or let it know the name with "
            f"the setting {ENV_PREFIX}ALLOWED_HOSTS"
        )


class Forbidden(HypclipError):
    """The API key is not for this."""


class UnknownImage(HypclipError):
    """A point has no thumbnail or no original, or there is no point."""

    def __init__(self, name: str, point_id: str, what: str):
        super().__init__(f"collection {name!r} has no {what} of a point {point_id!r}")


class NoModel(HypclipError):
    """A request needs a model, and the server has none.

    Args:
        what: needs it, such as "to embed a text".
    """

    def __init__(self, what: str):
        super().__init__(
            f"{what} needs a model, and this server has an index only ({ENV_PREFIX}INDEX_ONLY): ask by a stored point "
            'such as {"id": …}, by {"embedding": …} or by {"root": true}'
        )


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


def describe(problems: Sequence[Mapping[str, Any]]) -> str:
    """Name the first few of pydantic's problems, each by its field."""
    shown = "; ".join(
        f"{_place(p['loc'])}: {p['msg'].removeprefix('Value error, ')}" for p in problems[:_PROBLEMS_SHOWN]
    )
    more = f"; and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
    return shown + more


def quoted(text: str) -> str:
    """Return text of a client for a message: one short line without control characters."""
    return repr(text[:_QUOTED_CHARS])[1:-1] + ("…" if len(text) > _QUOTED_CHARS else "")


def _place(loc: tuple[int | str, ...]) -> str:
    """Write ("body", "inputs", 3, "(text)", "text") as inputs.3.text, shortened when it is absurdly deep."""
    parts = [quoted(str(part)) for part in loc[1:] if not str(part).startswith("(")] or ["body"]
    return ".".join(parts if len(parts) <= 8 else [*parts[:8], "…"])
