"""The route of nearest-neighbour retrieval."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serve.api.answers import answer
from serve.api.deps import ServiceDep
from serve.schemas.search import Hit, RetrieveRequest, RetrieveResponse

router = APIRouter(tags=["search"])


@router.post("/retrieve", summary="Find the nearest stored points", response_model=RetrieveResponse)
async def retrieve(request: RetrieveRequest, service: ServiceDep) -> Response:
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
    hits = [{name: getattr(hit, name) for name in Hit.model_fields} for hit in found.hits]
    return answer({"hits": hits, "exact": found.exact, "total": found.total})
