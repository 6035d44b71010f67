"""The OpenAPI document: of the types, completed with the limits, model and keys of a running server."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from hypclip.search.limits import MAX_SINH_RADIUS
from serve.http.keys import Scope, needed_scope
from serve.http.responses import REQUEST_ID_HEADER
from serve.inference.engine import Engine
from serve.settings import Settings

Document: TypeAlias = dict[str, Any]

_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_HEADERS = {
    REQUEST_ID_HEADER: {
        "description": "The id of the request: that of the request's own header of this name, if it sent a sane one.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "Server-Timing": {
        "description": "Milliseconds taken by parts of the work.",
        "required": True,
        "schema": {"type": "string"},
    },
}


class Documented:
    """Write the document of an app for the model of the moment; in place of `FastAPI.openapi`.

    Args:
        generate: writes the document of the types.
        settings: the limits that `serve.schemas.fields.limits` marks.
        engine: returns the model; without one the document has no limits that are a model's.
        keys: whether API keys are asked for.
    """

    def __init__(
        self, generate: Callable[[], Document], settings: Settings, engine: Callable[[], Engine | None], *, keys: bool
    ):
        self._generate, self._settings, self._engine, self._keys = generate, settings, engine, keys
        self._written = functools.lru_cache(maxsize=1)(self._write)

    def __call__(self) -> Document:
        """Return the document; it is not to be changed."""
        engine = self._engine()
        return self._written(*((None, None) if engine is None else (engine.dim, engine.curv)))

    def _write(self, dim: int | None, curv: float | None) -> Document:
        document = copy.deepcopy(self._generate())
        values = dict(self._settings)
        if dim is not None and curv is not None:
            farthest = MAX_SINH_RADIUS / math.sqrt(curv)
            values |= {"dim": dim, "min_component": -farthest, "max_component": farthest}
        for schema in list(_objects(document)):
            for keyword, name in schema.pop("x-limits", {}).items():
                if name in values:
                    schema[keyword] = values[name]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                for response in operation["responses"].values():
                    response["headers"] = _HEADERS
                if self._keys:
                    needed = needed_scope(method.upper(), path, protect_metrics=self._settings.protect_metrics)
                    _secure(operation, needed)
        if self._keys:
            document["components"]["securitySchemes"] = _SECURITY
        return document


def _secure(operation: Document, needed: Scope | None) -> None:
    operation["security"] = [] if needed is None else [{name: []} for name in _SECURITY]
    if needed is not None:
        operation["description"] += f"\n\nNeeds an API key of scope {needed}."


def _objects(value: Any) -> Iterator[Document]:
    """Yield every object of a JSON value."""
    if isinstance(value, Mapping):
        assert isinstance(value, dict)
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _objects(each)
