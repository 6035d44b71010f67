"""Routes of points, whose ids may be anything, and may end like another route."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from urllib.parse import quote, unquote

from fastapi import Path
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from serve.schemas.fields import PointId

Id: TypeAlias = Annotated[
    PointId, Path(description="With its /, % and ? escaped: 0001%2Fimage.", examples=["photo-1", "0001%2Fimage"])
]


class EscapedRoute(APIRoute):
    """A route that is matched by the path as it was sent, and whose parameters are unescaped after that.

    So the id 0001/image, sent as 0001%2Fimage, is not taken for the image of 0001, and an id with %2F in it is another
    one than that with a slash.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path before anything in it is unescaped."""
        raw = scope.get("raw_path")
        sent = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
        match, child = super().matches({**scope, "path": sent})
        if match != Match.NONE:
            child["path_params"] = {name: unquote(value) for name, value in child["path_params"].items()}
        return match, child
