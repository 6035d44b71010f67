"""The app factory: settings and an engine in, an ASGI app out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TypedDict

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from hypclip.errors import ConfigError
from hypclip.search import VectorStore
from hypclip.search.space import require_lorentz
from hypclip.search.thumbnails import ThumbnailStore
from serve.api import routers
from serve.errors import NotReady
from serve.explore import Explorer
from serve.http import responses
from serve.http.keys import Keyring
from serve.http.middleware.auth import Authenticate
from serve.http.middleware.context import RequestContext
from serve.http.middleware.errors import Errors
from serve.http.middleware.head import Head
from serve.http.middleware.hosts import Hosts
from serve.http.middleware.lifetime import Lifetime
from serve.http.middleware.limits import Bounds
from serve.http.openapi import Documented
from serve.http.paths import Paths
from serve.http.responses import REQUEST_ID_HEADER
from serve.inference.engine import Engine, cores
from serve.inputs.fetch import Fetcher
from serve.runtime import Load, Runtime
from serve.schemas.operations import ErrorResponse
from serve.service import Service
from serve.settings import Settings
from serve.stores import open_store, open_thumbnails, swept
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import Tracing

DESCRIPTION = """
Texts and images become points of one hyperbolic space. Points near the origin are general, points far out are
specific, and `radius`, the distance from the origin, tells how specific. A point is given by its D **space components**
x; its time component is sqrt(1/c + |x|²), and the space has curvature −c, where c is `curv`.

Every error has the shape `{"error": {"type", "message", "request_id"}}`. A server that is full answers 429, one that
cannot answer now 503, both with `Retry-After`; a request that takes too long is answered 504. Where API keys are set up
they are sent as `Authorization: Bearer KEY`.
"""


class State(TypedDict):
    """State that the lifespan gives to every request."""

    runtime: Runtime


def create_app(
    settings: Settings,
    engine: Engine | None,
    store: VectorStore | None = None,
    *,
    thumbnails: ThumbnailStore | None = None,
    load: Load | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Build the server; `app.state.runtime` is what it is serving.

    Args:
        settings: limits, keys, and where the index is.
        engine: the model, closed when the app stops; None to serve the collections without one.
        store: an open store. Without one the app opens the index of the settings, and its thumbnails, when it starts.
            Either is closed when the app stops.
        thumbnails: of the store, closed with it.
        load: makes another engine, for reloads.
        metrics: where the engine counts; one of the app's own when not given.

    Raises:
        ConfigError: the engine's space is not hyperbolic, or a setting cannot work.
    """
    if engine is not None:
        require_lorentz(engine.model_id, engine.geometry, "the server")
    if "*" in settings.cors_origins:
        raise ConfigError("HYPCLIP_CORS_ORIGINS takes origins such as https://example.com one by one, not *")
    counted = metrics or Metrics()
    runtime = Runtime(load)
    keyring = Keyring() if settings.api_keys_file is None else Keyring.read(settings.api_keys_file)
    names = [settings.host, *settings.allowed_hosts]
    tracing = Tracing(settings.otel_endpoint)
    fetcher = Fetcher(
        settings.image_url_hosts, max_bytes=settings.max_image_bytes, timeout_s=settings.image_url_timeout_s
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(tracing.close)
            stack.push_async_callback(fetcher.aclose)
            opened = stack.enter_context(contextlib.closing(open_store(settings) if store is None else store))
            kept = open_thumbnails(settings) if store is None else thumbnails
            if kept is not None:
                stack.enter_context(contextlib.closing(kept))
                await stack.enter_async_context(swept(kept, opened))
            image_threads = stack.enter_context(ThreadPoolExecutor(max(2, cores()), "hypclip-images"))
            explorer = Explorer(opened, settings.index)
            runtime.serve(Service(settings, engine, opened, counted, fetcher, image_threads, explorer, kept))
            stack.push_async_callback(runtime.aclose)
            yield {"runtime": runtime}

    app = FastAPIOffline(
        title="hypclip",
        version=version("hypclip"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirect sends the key along, to whatever the Host header says
        static_url="/docs/static",
        middleware=[
            *tracing.middleware,
            Middleware(RequestContext, metrics=counted, runtime=runtime, access_log=settings.access_log),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-Api-Key", REQUEST_ID_HEADER],
                expose_headers=[REQUEST_ID_HEADER, "ETag", "Retry-After", "Server-Timing"],
            ),
            Middleware(Errors),
            *([Middleware(Hosts, names=names, metrics=counted)] if keyring.is_open else []),
            Middleware(Authenticate, keyring=keyring, metrics=counted, protect_metrics=settings.protect_metrics),
            Middleware(Bounds, settings=settings, metrics=counted),
            Middleware(Lifetime, runtime=runtime, metrics=counted, timeout_s=settings.request_timeout_s),
            Middleware(Head),
        ],
        responses={"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}},
    )
    app.state.runtime = runtime
    responses.install(app)
    for router in routers():
        app.include_router(router)
    app.state.paths = Paths(routers())

    def served() -> Engine | None:
        with contextlib.suppress(NotReady), runtime.lease() as service:
            return service.engine
        return engine

    app.openapi = Documented(app.openapi, settings, served, keys=not keyring.is_open)  # type: ignore[method-assign]
    return app
