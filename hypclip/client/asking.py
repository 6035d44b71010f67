"""Sending of one request, again where that is of use, and reading of its answer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx2

from .errors import no_answer, refusal, server_error
from .retry import pause_s

T = TypeVar("T")
Outcome: TypeAlias = httpx2.Response | httpx2.RequestError | None
Returning: TypeAlias = Generator[httpx2.Request | float, Outcome, T]


class Asking:
    """The base of all calls. Each yields requests to send and seconds to wait, and is sent what came of a request."""

    def __init__(
        self, http: httpx2.Client | httpx2.AsyncClient, timeout_s: float, retries: int, proxy: str | None = None
    ):
        if not (isinstance(timeout_s, int | float) and timeout_s > 0 and isinstance(retries, int) and retries >= 0):
            raise ValueError(
                "timeout_s must be a number over 0 and retries a whole number of 0 or more, "
                f"not {timeout_s!r} and {retries!r}"
            )
        self.http, self.timeout_s, self.retries, self.proxy = http, timeout_s, retries, proxy

    def _ask(self, method: str, path: str, content: str | None, read: Callable[[Any], T]) -> Returning[T]:
        """Send a request as `_send`; return what `read` makes of the JSON of its answer."""
        return self._send(method, path, content, lambda response: read(response.json()))

    def _send(
        self,
        method: str,
        path: str,
        content: str | None,
        read: Callable[[httpx2.Response], T],
        query: Mapping[str, str] | None = None,
    ) -> Returning[T]:
        """Send a request, again where that is of use, within `timeout_s` in all; return what `read` makes of it."""
        try:
            body = None if content is None else content.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text is not valid Unicode, and cannot be sent: {error.reason}") from error
        deadline = time.monotonic() + self.timeout_s
        for attempt in itertools.count():
            left_s = max(deadline - time.monotonic(), 1e-3)
            outcome = yield self.http.build_request(method, path, content=body, params=query, timeout=left_s)
            assert outcome is not None
            pause = pause_s(outcome, attempt)
            if pause is None or attempt == self.retries or time.monotonic() + pause >= deadline:
                break
            yield pause
        return self._read(self._successful(outcome), method, path, read)

    def _read(self, response: httpx2.Response, method: str, path: str, read: Callable[[httpx2.Response], T]) -> T:
        try:
            return read(response)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            through = f" through the proxy {self.proxy}" if self.proxy else ""
            message = (
                f"{method} {path}{through} is not answered as by a hypclip server: {type(error).__name__}: {error}"
            )
            raise server_error(response, "unexpected_answer", message) from error

    def _successful(self, outcome: Outcome) -> httpx2.Response:
        assert outcome is not None
        if isinstance(outcome, httpx2.RequestError):
            raise no_answer(outcome, self.proxy) from outcome
        if not outcome.is_success:
            raise refusal(outcome, self.proxy)
        return outcome


def collection_path(name: str) -> str:
    """Return the path of a collection."""
    if not isinstance(name, str):
        raise TypeError(f"a collection is named by a string such as 'default', not {type(name).__name__}")
    if not name.strip("."):  # . and .. are steps in a path
        raise ValueError(f"a collection has a name such as 'default', not {name!r}")
    return f"/collections/{quote(name, safe='')}"


def to_json(value: Any) -> str:
    """Write what is sent.

    Raises:
        ValueError: a number that is NaN or infinite.
        TypeError: what JSON does not know.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError as error:
        raise ValueError(
            f"numbers that are NaN or infinite, and what contains itself, cannot be sent: {error}"
        ) from error


def several(name: str, values: Iterable[T]) -> Iterable[T]:
    """Refuse one text where several are wanted: it would be taken for a list of its letters."""
    if isinstance(values, str | Mapping):
        raise TypeError(f"{name} must be several, in a list or another iterable; came one {type(values).__name__}")
    return values


def _plain(value: Any) -> Any:
    """Convert a numpy scalar to a Python number; refuse any other type that JSON does not know."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(
        f"a {type(value).__name__} cannot be sent: an item is a text or what image(…), point(…) or stored(…) returns, "
        "metadata are texts, numbers, lists and mappings, a rule is a mapping such as "
        '{"form": "plane", "threshold": 0.2}'
    )
