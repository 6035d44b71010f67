"""The app factory: settings and an engine in, an ASGI app out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TypedDict

from fastapi import FastAPI
from starlette.middleware import Middleware

from hypclip.errors import ConfigError
from hypclip.search import VectorStore
from serve import errors, hierarchy
from serve.engine import Engine
from serve.middleware import BodyLimit, RequestContext
from serve.routes import router
from serve.schemas import ErrorResponse
from serve.service import Service
from serve.settings import Settings
from serve.stores import open_store

DESCRIPTION = """
Texts and pictures become points of one hyperbolic space. Points near the origin are general, points far out are
specific, and `radius`, the distance from the origin, tells how specific. A point is given by its D **space components**
x; its time component is sqrt(1/c + |x|²), and the space has curvature −c, where c is `curv`.

Every error has the shape `{"error": {"type", "message", "request_id"}}`. No URL is ever fetched.
"""


class State(TypedDict):
    """What the lifespan hands to every request."""

    service: Service


def create_app(settings: Settings, engine: Engine, store: VectorStore | None = None) -> FastAPI:
    """Build the server.

    Args:
        settings: limits, and where the index is.
        engine: the model; closing it is up to the caller.
        store: an open store. Without one the app opens the index of the settings when it starts. Either is closed when
            the app stops.

    Raises:
        ConfigError: the engine's space is not hyperbolic.
    """
    if engine.geometry != "lorentz":
        raise ConfigError(
            f"model {engine.model_id!r} has geometry {engine.geometry!r}; the server needs 'lorentz', because "
            "distances, radii and cones are those of hyperbolic space"
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        opened = open_store(settings) if store is None else store
        with contextlib.closing(opened):
            yield {"service": Service(settings, engine, opened)}

    app = FastAPI(
        title="hypclip",
        version=version("hypclip"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        middleware=[Middleware(RequestContext), Middleware(BodyLimit, max_bytes=settings.max_body_bytes)],
        responses={"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}},
    )
    errors.install(app)
    app.include_router(router)
    app.include_router(hierarchy.router)
    return app
