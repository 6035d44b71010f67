"""The routes: HTTP in, service call, HTTP out."""

from __future__ import annotations

from fastapi import APIRouter

from serve.routes import collections, embed, hierarchy, openai, operations, retrieve

router = APIRouter()
for each in (embed, openai, retrieve, hierarchy, collections, operations):
    router.include_router(each.router)
