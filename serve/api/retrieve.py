"""The route of nearest-neighbour retrieval."""

from __future__ import annotations

from fastapi import APIRouter

from serve.api.deps import ServiceDep
from serve.schemas.search import Hit, RetrieveRequest, RetrieveResponse

router = APIRouter(tags=["search"])


@router.post("/retrieve", summary="Find the nearest stored points")
async def retrieve(request: RetrieveRequest, service: ServiceDep) -> RetrieveResponse:
    """Return the k points of a collection with the smallest geodesic distance to the query, nearest first.

    A query by `id` may return that point first, at distance 0.
    """
    found = await service.retrieve(
        request.query,
        request.k,
        request.offset,
        request.collection,
        request.where(),
        max_distance=request.max_distance,
        exact=request.exact,
    )
    hits = [
        Hit(id=h.id, distance=h.distance, radius=h.radius, modality=h.modality, metadata=dict(h.metadata))
        for h in found.hits
    ]
    return RetrieveResponse(hits=hits, exact=found.exact, total=found.total)
