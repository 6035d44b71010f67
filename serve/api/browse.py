"""The routes that browse a collection: its points in order, one or some of them, and the fields of their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from hypclip.search import Listed, UnknownPoint
from serve.api.answers import answer
from serve.api.collections import Name
from serve.api.deps import ServiceDep
from serve.api.escaped import EscapedRoute, Id
from serve.errors import InvalidRequest
from serve.schemas.browse import (
    FieldsResponse,
    ListQuery,
    LookupRequest,
    LookupResponse,
    PointDetails,
    PointQuery,
    PointsResponse,
)
from serve.service import Service

router = APIRouter(tags=["collections"])


@router.get("/collections/{name}/points", summary="List points", response_model=PointsResponse)
async def list_points(name: Name, asked: Annotated[ListQuery, Query()], service: ServiceDep) -> Response:
    """Return the points of a collection page by page; every point once that is there all the time."""
    service.check_page(asked.k, 0)
    where = asked.where()
    found = await service.browse("list", name, lambda browser: browser.page(asked.order, asked.after, asked.k, where))
    points = await _points(service, name, found.points)
    return answer({"points": points, "next": found.next, "total": found.total})


@router.post("/collections/{name}/points/lookup", summary="Return some points", response_model=LookupResponse)
async def look_up(name: Name, request: LookupRequest, service: ServiceDep) -> Response:
    """Return the points that have these ids or keys, in the order asked for; unknown ones are left out."""
    if (request.ids is None) == (request.keys is None):
        raise InvalidRequest("give either ids or keys")
    ids, keys = request.ids, request.keys
    found = await service.browse(
        "lookup", name, lambda browser: browser.by_keys(keys or []) if ids is None else browser.by_ids(ids)
    )
    of_place = {point.key if ids is None else point.id: point for point in found}
    places = dict.fromkeys(keys or [] if ids is None else ids)
    listed = [of_place[place] for place in places if place in of_place]
    return answer({"points": await _points(service, name, listed)})


async def point(name: Name, id: Id, asked: Annotated[PointQuery, Query()], service: ServiceDep) -> Response:
    """Return one point by its id."""
    found = await service.browse("lookup", name, lambda browser: browser.by_ids([id]))
    if not found:
        raise UnknownPoint(name, id)
    (body,) = await _points(service, name, found)
    if asked.vector:
        stored = await service.ask("get", lambda: service.store.get(name, [id]))
        body["embedding"] = stored.vectors[0].tolist()
    return answer(body)


router.add_api_route(
    "/collections/{name}/points/{id:path}",
    point,
    methods=["GET"],
    summary="Return a point",
    response_model=PointDetails,
    route_class_override=EscapedRoute,
)


@router.get("/collections/{name}/fields", summary="Describe the metadata", response_model=FieldsResponse)
async def fields(name: Name, service: ServiceDep) -> Response:
    """Return the fields that a filter can name, with their frequent values and ranges, and the points by modality."""
    found, modalities = await service.browse("fields", name, lambda browser: (browser.fields(), browser.modalities()))
    described = [
        {**vars(field), "values": [{"value": value, "count": count} for value, count in field.values]}
        for field in found.fields
    ]
    return answer({"fields": described, "modalities": modalities, "sampled": found.sampled})


async def _points(service: Service, name: str, found: Sequence[Listed]) -> list[dict[str, Any]]:
    shown = await service.with_thumbnail(name, [point.id for point in found])
    return [{**vars(point), "thumbnail": point.id in shown} for point in found]
