"""The routes: HTTP in, service call, HTTP out."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.routing import APIRoute

from serve.routes import collections, embed, hierarchy, models, openai, operations, retrieve

_PARTS = 6
"""Of a path that leads nowhere, the last of which are looked at; a path may have thousands."""

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

    A slash at the end; a base URL with /v1 for the routes that have none of their own, without it, or with it twice; a
    base URL that is a whole path, such as /v1/embeddings, or that ends in the prefix of another server, such as /api.
    """
    parts = [part for part in path.split("/") if part][-_PARTS:]
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((near for end in ends for near in (f"/{end}", f"/v1/{end}") if near != path and methods_of(near)), None)
