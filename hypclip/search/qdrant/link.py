"""Calls to Qdrant with retries, and with its errors as ours."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpx
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from hypclip.errors import InputError, StoreError
from hypclip.search.errors import Unavailable, UnknownCollection

_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN")
"""Statuses of gRPC that correspond to no answer, 429 and 5xx."""
_T = TypeVar("_T")


class Link:
    """Client of Qdrant that retries within a time limit.

    Args:
        client: speaks REST or gRPC, or is local; its own timeout limits a single request.
        retries: how often a call is made again.
        timeout_s: how long a call may take with all its retries.
    """

    def __init__(self, client: QdrantClient, retries: int, timeout_s: float):
        options = client.init_options
        self.client = client
        self.local = options.get("location") == ":memory:" or options.get("path") is not None
        url = urlsplit(str(options.get("url") or options.get("location") or f"//{options.get('host') or 'localhost'}"))
        port = options.get("grpc_port") if options.get("prefer_grpc") else url.port or options.get("port")
        self.address = "(local mode)" if self.local else f"at {url.hostname}:{port}"
        self._retries, self._timeout_s = retries, timeout_s
        # Local mode is not made for threads.
        self._turn: AbstractContextManager[Any] = threading.RLock() if self.local else contextlib.nullcontext()
        self._ends = threading.local()

    @classmethod
    def connect(cls, url: str, api_key: str | None, retries: int, timeout_s: float) -> Self:
        """Return a link to an address; see `QdrantStore.connect`."""
        if url.startswith(("http://", "https://")):
            # No proxies from the environment; who needs one makes the client and hands it to QdrantStore.
            client = QdrantClient(
                url=url, api_key=api_key, timeout=math.ceil(timeout_s), check_compatibility=False, trust_env=False
            )
            link = cls(client, retries, timeout_s)
            client.http.client.add_middleware(link._in_time)
            return link
        if url != ":memory:" and not url.startswith("path:"):
            raise InputError(f"the address of a Qdrant is http(s)://…, path:DIRECTORY or :memory:, got {url!r}")
        path = None if url == ":memory:" else url.removeprefix("path:")
        try:
            client = QdrantClient(None if path else url, path=path, force_disable_check_same_thread=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreError(f"cannot use the Qdrant directory {path}: {error}") from error
        return cls(client, retries, timeout_s)

    def close(self) -> None:
        """Close the connections."""
        with self._turn:
            self.client.close()

    def ask(
        self, name: str, call: Callable[[], _T], *, retries: int | None = None, timeout_s: float | None = None
    ) -> _T:
        """Make a call that concerns a collection, and return the answer.

        Raises:
            UnknownCollection: there is no collection of this name.
            Unavailable: no answer within the time, or none that was not 429 or 5xx, in spite of all retries.
            StoreError: Qdrant refuses, and would again.
        """
        tries = 1 + (self._retries if retries is None else retries)
        self._ends.at = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        for attempt in itertools.count(1):
            try:
                with self._turn:
                    return call()
            except (ApiException, ResourceExhaustedResponse, json.JSONDecodeError, grpc.RpcError) as error:
                reason = _passing(error)
                if reason is None:
                    raise self._refusal(name, error) from error
                pause = min(2.0, 0.05 * 2**attempt) * random.uniform(0.5, 1)
                if isinstance(error, ResourceExhaustedResponse):
                    pause = max(pause, error.retry_after_s)
                if attempt >= tries or time.monotonic() + pause >= self._ends.at:
                    raise Unavailable(
                        f"Qdrant {self.address} does not answer, tried {attempt} times: {reason}"
                    ) from error
                time.sleep(pause)
            except (ValueError, RuntimeError) as error:
                if not self.local:
                    raise
                raise self._refusal(name, error) from error
        raise AssertionError

    def _in_time(self, request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
        """Set the timeout of a request to the rest of its call's."""
        left = httpx.Timeout(max(self._ends.at - time.monotonic(), 1e-3))
        request.extensions = {**request.extensions, "timeout": left.as_dict()}
        return send(request)

    def _refusal(self, name: str, error: Exception) -> StoreError:
        text, absent = str(error), self.local and str(error).endswith(" not found")
        match error:
            case UnexpectedResponse():
                # Anything else that is not there, such as a page of a proxy, comes without these fields.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    text = f"{error.status_code} {error.structured()['status']['error']}"
                    absent = error.status_code == 404
            case ResponseHandlingException():
                text = f"the answer cannot be read: {error.source}"
            case json.JSONDecodeError():
                text = f"the answer cannot be read: {error}"
            case grpc.RpcError():
                text, absent = f"{error.code().name} {error.details()}", error.code() == grpc.StatusCode.NOT_FOUND
        return UnknownCollection(name) if absent else StoreError(f"Qdrant {self.address} refuses: {text}")


def _passing(error: Exception) -> str | None:
    """Return the reason of a failure that a retry may cure; None of any other."""
    match error:
        case UnexpectedResponse(status_code=int(status)) if status == 429 or status >= 500:
            return str(error)
        case ResponseHandlingException(source=httpx.HTTPError() as source):
            return f"{type(source).__name__}: {source}"
        case ResourceExhaustedResponse():
            return str(error)
        case grpc.RpcError() if error.code().name in _PASSING:
            return f"{error.code().name}: {error.details()}"
    return None
