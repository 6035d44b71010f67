"""The routes: HTTP in, service call, HTTP out."""

from __future__ import annotations

from fastapi import APIRouter

from serve.api import (
    browse,
    collections,
    embed,
    explore,
    hierarchy,
    models,
    openai,
    operations,
    page,
    retrieve,
    thumbnails,
)


def routers() -> list[APIRouter]:
    """Return the routers of all routes, in the order of the OpenAPI document."""
    modules = (embed, openai, models, retrieve, hierarchy, collections, thumbnails, browse, explore, operations, page)
    return [each.router for each in modules]
