"""The routes of maps: all points of a collection, and all of them as seen from one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from serve.api.collections import Name
from serve.api.deps import ServiceDep
from serve.columns import MEDIA_TYPE
from serve.schemas.explore import FocusRequest, LayoutInfo

router = APIRouter(tags=["explore"])

_COLUMNS: dict[str, Any] = {
    "description": "A uint32 with the length of the header, the header in JSON, then columns of numbers in little "
    "endian. Its `columns` lists name, type (uint32, float32, uint8), offset in bytes from the end of the header and "
    "length.",
    "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="The ETag of a map that the client has."),
]


@router.get(
    "/collections/{name}/map",
    summary="Draw a collection",
    response_class=Response,
    responses={200: _COLUMNS, 304: {"description": "The map of this ETag still holds."}},
)
async def read_map(name: Name, service: ServiceDep, if_none_match: IfNoneMatch = None) -> Response:
    """Return every point's place on a disk: its true radius, and an angle that near points share.

    Columns, ascending by key: key (uint32, a number of the point within its collection), radius (float32, distance to
    the root), angle (float32, 0 to 2π), modality (uint8, index into `modalities`). Above 500,000 points the map has a
    sample of them, with every range of radii in its share, and `sampled` is true. What a point is drawn at stays when
    others are written; the layout is made again where the collection has grown fourfold.
    """
    headers = {"ETag": f'"{await service.map_version(name)}"', "Cache-Control": "no-cache"}
    if if_none_match is not None and _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    version, body = await service.map(name)
    return Response(body, media_type=MEDIA_TYPE, headers={**headers, "ETag": f'"{version}"'})


@router.put("/collections/{name}/map", summary="Lay a collection out anew")
async def renew_map(name: Name, service: ServiceDep) -> LayoutInfo:
    """Give the points of a collection new angles, from the points that it has now; radii do not change."""
    about = await service.renew_map(name)
    return LayoutInfo(layout=about.version, built_at=about.built_at)


@router.post(
    "/collections/{name}/focus",
    summary="See a collection from one point",
    response_class=Response,
    responses={200: _COLUMNS},
)
async def read_focus(name: Name, request: FocusRequest, service: ServiceDep) -> Response:
    """Return where every point lies seen from one, what entails it and what it entails.

    A point, the root and any other lie in one hyperbolic plane, so that these places are exact. Columns, ascending by
    key: key, radius (distance to the root), angle (true angle at the root between the two, −π to π; its sign chooses
    the half of the picture, as on the map), flags (uint8: 1 an ancestor, 2 a descendant, 4 lies in the same place),
    above (margin of the one in the cone of the other), below (margin of the other in the cone of the one). Flags and
    margins are those of /hierarchy/ancestors and /hierarchy/descendants.
    """
    body = await service.focus(
        name,
        request.of,
        request.target,
        await service.entailment(request.rule, request.aperture_scale, name, reflexive=request.reflexive),
    )
    return Response(body, media_type=MEDIA_TYPE)


def _matches(wanted: str, etag: str) -> bool:
    """Tell whether the header If-None-Match names a version."""
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in wanted.split(","))
