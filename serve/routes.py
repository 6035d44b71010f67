"""The routes: HTTP in, service call, HTTP out."""

from __future__ import annotations

import asyncio
from typing import Annotated

import torch
from fastapi import APIRouter, Depends, Path, Request
from jaxtyping import Float
from torch import Tensor

from hypclip.geometry import lorentz, poincare
from hypclip.search import Collection
from serve.errors import InvalidRequest, NotReady
from serve.schemas import (
    Classified,
    ClassifyRequest,
    ClassifyResponse,
    CollectionInfo,
    CollectionName,
    CollectionsResponse,
    DeletePointsRequest,
    DeletePointsResponse,
    Embedded,
    EmbedRequest,
    EmbedResponse,
    Health,
    IndexInfo,
    ModelInfo,
    PutPointsRequest,
    PutPointsResponse,
)
from serve.schemas_search import Found, RetrieveRequest, RetrieveResponse
from serve.service import Service

router = APIRouter()


def _service(request: Request) -> Service:
    service = getattr(request.state, "service", None)
    if not isinstance(service, Service):
        raise NotReady("the server has not started: its lifespan has not run")
    return service


Running = Annotated[Service, Depends(_service)]
Name = Annotated[CollectionName, Path()]


@router.post("/embed", tags=["embed"], summary="Embed texts and pictures")
async def embed(request: EmbedRequest, service: Running) -> EmbedResponse:
    """Return one point of hyperbolic space for each input, and its radius: its distance from the origin.

    Texts and pictures may be mixed. Points may come in too, to convert them. Compare points with the geodesic distance,
    never with the cosine of their coordinates.
    """
    x, modality = await service.embed_inputs(request.inputs, request.collection)
    curv = service.engine.curv
    rows = _coordinates(x, request.geometry, curv).tolist()
    radii = lorentz.radius(x.double(), curv).tolist()
    data = [
        Embedded(index=i, modality=kind, embedding=row, radius=radius)
        for i, (kind, row, radius) in enumerate(zip(modality, rows, radii, strict=True))
    ]
    return EmbedResponse(model=service.engine.model_id, curv=curv, geometry=request.geometry, data=data)


@router.post("/retrieve", tags=["search"], summary="Find the nearest stored points")
async def retrieve(request: RetrieveRequest, service: Running) -> RetrieveResponse:
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
        Found(id=h.id, distance=h.distance, radius=h.radius, modality=h.modality, metadata=dict(h.metadata))
        for h in found.hits
    ]
    return RetrieveResponse(hits=hits, exact=found.exact, total=found.total)


@router.post("/classify", tags=["classify"], summary="Classify without training", response_model_exclude_none=True)
async def classify(request: ClassifyRequest, service: Running) -> ClassifyResponse:
    """Return how probable each label is for each input.

    Give either `labels` or a `taxonomy`, whose leaves are then the labels.
    """
    if (request.labels is None) == (request.taxonomy is None):
        raise InvalidRequest("give either labels or taxonomy")
    tree = service.taxonomy(request.taxonomy) if request.taxonomy else None
    labels = tree.leaves if tree else request.labels or []
    scores, modality = await service.classify(request.inputs, request.collection, labels, request.templates)
    data = []
    for i, (kind, row) in enumerate(zip(modality, scores.tolist(), strict=True)):
        by_label = dict(zip(labels, row, strict=True))
        best = max(by_label, key=by_label.__getitem__)
        data.append(
            Classified(index=i, modality=kind, label=best, scores=by_label, path=tree.path(best) if tree else None)
        )
    return ClassifyResponse(model=service.engine.model_id, data=data)


@router.get("/collections", tags=["collections"], summary="List the collections")
async def list_collections(service: Running) -> CollectionsResponse:
    """Return every collection with its size and the model its points belong to."""
    return CollectionsResponse(collections=[_info(c) for c in await asyncio.to_thread(service.store.collections)])


@router.get("/collections/{name}", tags=["collections"], summary="Describe a collection")
async def describe_collection(name: Name, service: Running) -> CollectionInfo:
    """Return one collection, also one of another model."""
    return _info(await asyncio.to_thread(service.store.describe, name))


@router.put("/collections/{name}/points", tags=["collections"], summary="Write points")
async def put_points(name: Name, request: PutPointsRequest, service: Running) -> PutPointsResponse:
    """Embed and store points, all or none; those whose id is stored already are replaced.

    The first write creates the collection. When the response arrives the points are on disk.
    """
    collection = await service.put(name, request.points)
    return PutPointsResponse(upserted=len(request.points), count=collection.count)


@router.delete("/collections/{name}/points", tags=["collections"], summary="Delete points")
async def delete_points(name: Name, request: DeletePointsRequest, service: Running) -> DeletePointsResponse:
    """Remove points by id. When the response arrives they are gone from the disk."""
    deleted, collection = await service.delete(name, request.ids)
    return DeletePointsResponse(deleted=deleted, count=collection.count)


@router.get("/model", tags=["server"], summary="Describe the model")
async def model(service: Running) -> ModelInfo:
    """Return what a client needs to compute with embeddings itself."""
    engine = service.engine
    return ModelInfo(
        model=engine.model_id,
        geometry=engine.geometry,
        curv=engine.curv,
        dim=engine.dim,
        logit_scale=engine.logit_scale,
    )


@router.get("/healthz", tags=["server"], summary="Is the process alive?")
async def healthz() -> Health:
    """Answer as long as the event loop turns."""
    return Health(status="ok")


@router.get("/readyz", tags=["server"], summary="Can it answer requests?")
async def readyz(service: Running) -> Health:
    """Answer 200 when the model and the store are open, and 503 before."""
    await asyncio.to_thread(service.store.collections)
    return Health(status="ready")


def _coordinates(x: Float[Tensor, "n d"], geometry: str, curv: float) -> Float[Tensor, "n coordinates"]:
    exact = x.double()
    match geometry:
        case "lorentz":
            return torch.cat([lorentz.time_component(exact, curv), exact], dim=-1)
        case "tangent":
            return lorentz.log_map0(exact, curv)
        case "poincare":
            return poincare.from_lorentz(exact, curv)
        case _:
            return exact


def _info(collection: Collection) -> CollectionInfo:
    space, index = collection.space, collection.index
    return CollectionInfo(
        name=collection.name,
        count=collection.count,
        model=space.model_id,
        revision=space.revision,
        curv=space.curv,
        dim=space.dim,
        index=None if index is None else IndexInfo(**vars(index)),
    )
