"""The routes: HTTP in, service call, HTTP out."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute

from serve.routes import collections, embed, hierarchy, models, openai, operations, retrieve

router = APIRouter()
_routes: list[APIRoute] = []
for each in (embed, openai, models, retrieve, hierarchy, collections, operations):
    router.include_router(each.router)
    _routes += [route for route in each.router.routes if isinstance(route, APIRoute)]


def methods_of(path: str) -> list[str]:
    """Return the methods that a path takes; none if there is nothing at it."""
    return sorted({method for route in _routes if route.path_regex.match(path) for method in route.methods or ()})


def template_of(path: str) -> str | None:
    """Return the path of the route that a path leads to as the document writes it, such as /collections/{name}."""
    return next((route.path_format for route in _routes if route.path_regex.match(path)), None)


def nearby(path: str) -> str | None:
    """Return the path that a client is likely to have meant by one that leads nowhere.

    A slash at the end; a base URL with /v1 for the routes that have none of their own, without it, or with it twice.
    """
    bare = path.strip("/")
    while bare.startswith("v1/"):
        bare = bare.removeprefix("v1/").lstrip("/")
    return next((near for near in (f"/{bare}", f"/v1/{bare}") if near != path and methods_of(near)), None)
