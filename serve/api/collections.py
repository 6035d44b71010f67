"""The routes of collections: list, describe, write and delete."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Path

from hypclip.search import Collection, UnknownCollection, VectorStore
from serve.api.deps import ServiceDep
from serve.schemas.fields import CollectionName
from serve.schemas.operations import rule_info
from serve.schemas.points import (
    CollectionInfo,
    CollectionsResponse,
    DeletePointsRequest,
    DeletePointsResponse,
    IndexInfo,
    PutPointsRequest,
    PutPointsResponse,
)

router = APIRouter(tags=["collections"])

Name = Annotated[CollectionName, Path(examples=["default"])]


@router.get("/collections", summary="List the collections")
async def list_collections(service: ServiceDep) -> CollectionsResponse:
    """Return every collection with its size and the model its points belong to."""

    def described() -> list[CollectionInfo]:
        found = []
        for collection in service.store.collections():
            with contextlib.suppress(UnknownCollection):  # which has gone meanwhile
                found.append(_info(collection, service.store))
        return found

    return CollectionsResponse(collections=await service.ask("collections", described))


@router.get("/collections/{name}", summary="Describe a collection")
async def describe_collection(name: Name, service: ServiceDep) -> CollectionInfo:
    """Return one collection, also one of another model."""
    return await service.ask("describe", lambda: _info(service.store.describe(name), service.store))


@router.put("/collections/{name}/points", summary="Write points")
async def put_points(name: Name, request: PutPointsRequest, service: ServiceDep) -> PutPointsResponse:
    """Embed and store points, all or none; those whose id is stored already are replaced.

    The first write creates the collection. When the response arrives the points are on disk.
    """
    return PutPointsResponse(upserted=len(request.points), count=await service.put(name, request.points))


@router.delete("/collections/{name}/points", summary="Delete points")
async def delete_points(name: Name, request: DeletePointsRequest, service: ServiceDep) -> DeletePointsResponse:
    """Remove points by id. When the response arrives they are gone from the disk."""
    deleted, count = await service.delete(name, request.ids)
    return DeletePointsResponse(deleted=deleted, count=count)


def _info(collection: Collection, store: VectorStore) -> CollectionInfo:
    space, index = collection.space, collection.index
    return CollectionInfo(
        name=collection.name,
        count=collection.count,
        counts=store.browse(collection.name).modalities(),
        model=space.model_id,
        revision=space.revision,
        curv=space.curv,
        dim=space.dim,
        entailment=rule_info(space.entailment),
        index=None if index is None else IndexInfo(**vars(index)),
    )
