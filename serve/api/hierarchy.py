"""The routes of the hierarchy: ancestors, descendants, traversal, means and order."""

from __future__ import annotations

from fastapi import APIRouter, Response

from hypclip.geometry import lorentz
from hypclip.search import Page, Side
from serve.api.answers import answer
from serve.api.deps import ServiceDep
from serve.errors import InvalidRequest
from serve.schemas.search import (
    CommonRequest,
    ConeRequest,
    ConeResponse,
    MeanRequest,
    MeanResponse,
    OrderRequest,
    OrderResponse,
    TraverseRequest,
    TraverseResponse,
)
from serve.service import Service

router = APIRouter(prefix="/hierarchy", tags=["hierarchy"])


@router.post("/ancestors", summary="Find what is more general", response_model=ConeResponse)
async def ancestors(request: ConeRequest, service: ServiceDep) -> Response:
    """Return the stored points that entail a point, whose cones or half-spaces hold it: what it is an instance of."""
    return await _cone(request, "ancestors", service)


@router.post("/descendants", summary="Find what is more specific", response_model=ConeResponse)
async def descendants(request: ConeRequest, service: ServiceDep) -> Response:
    """Return the stored points that a point entails, which its cone or half-space holds: its instances."""
    return await _cone(request, "descendants", service)


@router.post("/common_ancestors", summary="Find what several points have in common", response_model=ConeResponse)
async def common_ancestors(request: CommonRequest, service: ServiceDep) -> Response:
    """Return the stored points that entail all of the points, the most specific first.

    Of a hit, `distance` is to the farthest of the points; `angle` and `margin` are of the one that is held least.
    """
    rule = await service.entailment(request.rule, request.aperture_scale, request.collection)
    found = await service.common_ancestors(
        request.of, request.k, request.offset, request.collection, request.where(), rule
    )
    return _related(found)


@router.post("/traverse", summary="Go towards the root, or towards another point", response_model=TraverseResponse)
async def traverse(request: TraverseRequest, service: ServiceDep) -> Response:
    """Return the nearest points on the route from a point to the root, or to a target: from specific to general."""
    if request.rule and not request.entailment:
        raise InvalidRequest("rule: with entailment false no rule is asked: leave one of the two out")
    traversal = await service.traverse(
        request.source,
        request.target,
        request.steps,
        request.collection,
        request.where(),
        await service.entailment(request.rule, request.aperture_scale, request.collection)
        if request.entailment
        else None,
    )
    return answer({"path": [vars(stop) for stop in traversal.stops], "exact": traversal.exact})


@router.post("/mean", summary="Average points")
async def mean(request: MeanRequest, service: ServiceDep) -> MeanResponse:
    """Return the weighted mean of points; of two, the midpoint. Search with it as {"embedding": …}."""
    x, space = await service.mean(request.inputs, request.weights, request.collection)
    radius = float(lorentz.radius(x.double(), space.curv))
    return MeanResponse(model=space.model_id, curv=space.curv, embedding=x.tolist(), radius=radius)


@router.post("/order", summary="Tell which of two points is the more general")
async def order(request: OrderRequest, service: ServiceDep) -> OrderResponse:
    """Return whether the first is general (it entails the second), specific, or neither."""
    rule = await service.entailment(request.rule, request.aperture_scale, request.collection)
    found = await service.order(request.first, request.second, request.collection, rule)
    return OrderResponse(**vars(found))


async def _cone(request: ConeRequest, side: Side, service: Service) -> Response:
    found = await service.cone(
        request.of,
        side,
        request.k,
        request.offset,
        request.collection,
        request.where(),
        rule=await service.entailment(
            request.rule, request.aperture_scale, request.collection, reflexive=request.reflexive
        ),
        order_by=request.order_by,
    )
    return _related(found)


def _related(found: Page) -> Response:
    return answer({"hits": [vars(hit) for hit in found.hits], "exact": found.exact, "total": found.total})
