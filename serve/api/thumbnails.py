"""The routes of images: thumbnails, many in one body or the file of one, and originals."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Response

from serve.api.collections import Name
from serve.api.deps import ServiceDep
from serve.api.escaped import EscapedRoute, Id
from serve.errors import UnknownImage
from serve.schemas.browse import ThumbnailsRequest

SANDBOX = "default-src 'none'; sandbox"

_WEBP = {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}}
_BODY = {
    "description": "A number, uint32 in little-endian order: the length of a JSON object, which follows, "
    '`{"thumbnails": [{"id", "width", "height", "offset", "length"}]}`; then the WebP files, whose offsets count from '
    "the end of the object.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}

router = APIRouter(tags=["collections"])


@router.post(
    "/collections/{name}/thumbnails", summary="Return thumbnails", response_class=Response, responses={200: _BODY}
)
async def thumbnails(name: Name, request: ThumbnailsRequest, service: ServiceDep) -> Response:
    """Return the thumbnails of some points in one body; points that have none are left out."""
    found = await service.thumbnails_of(name, list(dict.fromkeys(request.ids)))
    rows: list[dict[str, Any]] = []
    offset = 0
    for point_id, made in found.items():
        size = {"width": made.width, "height": made.height}
        rows.append({"id": point_id, **size, "offset": offset, "length": len(made.data)})
        offset += len(made.data)
    header = orjson.dumps({"thumbnails": rows})
    header += b" " * (-len(header) % 4)
    body = b"".join([len(header).to_bytes(4, "little"), header, *(made.data for made in found.values())])
    return Response(body, media_type="application/octet-stream")


async def thumbnail(
    name: Name, id: Id, service: ServiceDep, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Return the thumbnail of a point, WebP of at most 160 pixels on its longest side unless the server was told so."""
    made = (await service.thumbnails_of(name, [id])).get(id)
    if made is None:
        raise UnknownImage(name, id, "thumbnail")
    return as_file(made.data, "image/webp", if_none_match)


def as_file(data: bytes, media_type: str, if_none_match: str | None) -> Response:
    """Return a response with an image, or 304 to who has it; as a page of its own it could do nothing."""
    tag = f'"{hashlib.blake2b(data, digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Content-Security-Policy": SANDBOX}
    known = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


router.add_api_route(
    "/collections/{name}/points/{id:path}/thumbnail",
    thumbnail,
    methods=["GET"],
    summary="Return a thumbnail",
    response_class=Response,
    responses={200: _WEBP, 304: {"description": "As before."}},
    route_class_override=EscapedRoute,
)


async def image(
    name: Name, id: Id, service: ServiceDep, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Return the original of a point, as WebP of at most 4,096 pixels on its longest side.

    Only where the server has a media root, and of points that `train/embed.py` embedded from files below it.
    """
    data = await service.original_of(name, id)
    if data is None:
        raise UnknownImage(name, id, "original that can be shown")
    return as_file(data, "image/webp", if_none_match)


router.add_api_route(
    "/collections/{name}/points/{id:path}/image",
    image,
    methods=["GET"],
    summary="Return an original",
    response_class=Response,
    responses={200: _WEBP, 304: {"description": "As before."}},
    route_class_override=EscapedRoute,
)
