"""The explorer: the page at / and its files, as they lie in serve/explorer."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, HTTPException, Request, Response

FOLDER = Path(__file__).parents[1] / "explorer"
PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Media types of the files that are served; no other file of the folder is."""

router = APIRouter(include_in_schema=False)


class File(NamedTuple):
    """A file of the page; `etag` is a hash of its content."""

    content: bytes
    media_type: str
    etag: str


@functools.cache
def files() -> Mapping[str, File]:
    """Return the files of the page by their path in the folder.

    A request picks one of these by name, so that no path of a request ever reaches the file system.
    """
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in TYPES and path.is_file():
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(FOLDER).as_posix()] = File(content, TYPES[path.suffix], etag)
    return found


@router.get("/")
async def index(request: Request) -> Response:
    """Return the page."""
    return _answer(request, PAGE)


@router.get("/explorer/{path:path}")
async def file(path: str, request: Request) -> Response:
    """Return a file of the page."""
    return _answer(request, path)


def _answer(request: Request, path: str) -> Response:
    file = files().get(path)
    if file is None:
        raise HTTPException(404)
    headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
