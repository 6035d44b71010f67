"""Match of paths to routes, also for requests that are answered before, or without, one."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute

_PARTS = 6
"""Of a path that leads nowhere, the last of which are looked at; a path may have thousands."""


class Paths:
    """The paths of an app's routes.

    Args:
        routers: those the app includes, as they are.
    """

    def __init__(self, routers: Iterable[APIRouter]):
        self._routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    def methods_of(self, path: str) -> list[str]:
        """Return the methods that a path takes; none if there is nothing at it."""
        template = self.template_of(path)  # /points/lookup would also be the point of that id
        return sorted({m for route in self._routes if route.path_format == template for m in route.methods or ()})

    def template_of(self, path: str) -> str | None:
        """Return the path of the route that a path leads to as the document writes it, such as /collections/{name}."""
        return next((route.path_format for route in self._routes if route.path_regex.match(path)), None)

    def nearby(self, path: str) -> str | None:
        """Return the path that a client is likely to have meant by one that leads nowhere.

        A slash at the end; a base URL with /v1 for the routes that have none of their own, without it, or with it
        twice; a base URL that is a whole path, such as /v1/embeddings, or that ends in the prefix of another server,
        such as /api.
        """
        parts = [part for part in path.split("/") if part][-_PARTS:]
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        likely = (near for end in ends for near in (f"/{end}", f"/v1/{end}"))
        return next((near for near in likely if near != path and self.methods_of(near)), None)
