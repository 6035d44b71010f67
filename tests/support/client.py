"""Both kinds of client behind one set of methods, and servers that answer by a script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

import hypclip.client as c


class Blocking:
    """An AsyncClient behind the methods of a Client, so that one test can do for both."""

    def __init__(self, **options: Any):
        self.client = c.AsyncClient(**options)
        self.runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *args, **kwargs: self.runner.run(method(*args, **kwargs))

    def close(self) -> None:
        self.aclose()
        self.runner.close()


BOTH = pytest.mark.parametrize("kind", [c.Client, Blocking], ids=["sync", "async"])


@contextlib.contextmanager
def clients() -> Iterator[Callable[..., Any]]:
    """Make clients over a function from request to response, and close them."""
    made = []

    def make(kind: Any, handler: Any, **options: Any) -> Any:
        made.append(kind(transport=httpx2.MockTransport(handler), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()}, json=body)


def error(status: int, type: str = "some_type", message: str = "some message", **headers: str) -> httpx2.Response:
    body = {"error": {"type": type, "message": message, "request_id": "r-1"}}
    return answer(status, body, x_request_id="r-1", **headers)


MODEL = {"model": "m", "geometry": "lorentz", "curv": 1.0, "dim": 2, "logit_scale": 3.0}


class Script:
    """A server that answers with one thing after the other, and remembers the requests."""

    def __init__(self, *answers: Any):
        self.answers, self.requests = list(answers), []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self.answers.pop(0)
        if isinstance(step, Exception):
            step.request = request
            raise step
        return httpx2.Response(step.status_code, headers=step.headers, content=step.content)
