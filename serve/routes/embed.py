"""The routes that embed and classify."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope

from serve.coordinates import Coordinates, coordinates, radii
from serve.errors import InvalidRequest
from serve.routes.running import Running
from serve.schemas import (
    Classified,
    ClassifyRequest,
    ClassifyResponse,
    EmbedRequest,
    EmbedResponse,
    Item,
    Text,
    Upload,
)
from serve.service import Service

router = APIRouter()


class _Multipart(APIRoute):
    """A route for forms, beside one of the same path for JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match requests with a form only."""
        if Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data"):
            return super().matches(scope)
        return Match.NONE, {}


async def embed_form(
    service: Running,
    image: Annotated[list[UploadFile] | None, File()] = None,
    text: Annotated[list[Text] | None, Form()] = None,
    geometry: Annotated[Coordinates, Form()] = "space",
) -> Response:
    """Embed texts and picture files, the texts first."""
    items: list[Item | Upload] = [*(text or []), *[Upload(await file.read()) for file in image or []]]
    if not items:
        raise InvalidRequest("the form has neither a field text nor a file image")
    return await _embedded(service, items, geometry, "default")


router.add_api_route("/embed", embed_form, methods=["POST"], route_class_override=_Multipart, include_in_schema=False)


_FORM = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "text": {"type": "array", "items": {"type": "string", "minLength": 1}},
                        "geometry": {"enum": ["space", "lorentz", "tangent", "poincare"], "default": "space"},
                    },
                }
            }
        }
    }
}


@router.post(
    "/embed",
    tags=["embed"],
    summary="Embed texts and pictures",
    response_model=EmbedResponse,
    openapi_extra=_FORM,
)
async def embed(request: EmbedRequest, service: Running) -> Response:
    """Return one point of hyperbolic space for each input, and its radius: its distance from the origin.

    Texts and pictures may be mixed. Points may come in too, to convert them. Compare points with the geodesic distance,
    never with the cosine of their coordinates. Pictures can also be sent as files, in a form with fields `image`,
    `text` and `geometry`; the texts are embedded first.
    """
    return await _embedded(service, request.inputs, request.geometry, request.collection)


@router.post("/classify", tags=["classify"], summary="Classify without training", response_model_exclude_none=True)
async def classify(request: ClassifyRequest, service: Running) -> ClassifyResponse:
    """Return how probable each label is for each input.

    Give either `labels` or a `taxonomy`, whose leaves are then the labels. The answer in a taxonomy is a path from the
    root that stops where the evidence does: at the last node that is at least `min_probability` probable.
    """
    if (request.labels is None) == (request.taxonomy is None):
        raise InvalidRequest("give either labels or taxonomy")
    tree = await service.taxonomy(request.taxonomy) if request.taxonomy else None
    labels = tree.leaves if tree else request.labels or []
    scores, modality = await service.classify(request.inputs, request.collection, labels, request.templates)
    paths = tree.paths(scores.numpy(), request.min_probability) if tree else [None] * len(modality)
    data = []
    for i, (kind, row, path) in enumerate(zip(modality, scores.tolist(), paths, strict=True)):
        by_label = dict(zip(labels, row, strict=True))
        data.append(
            Classified(
                index=i,
                modality=kind,
                label=max(by_label, key=by_label.__getitem__),
                scores=by_label,
                path=None if path is None else [node for node, _ in path],
                path_scores=None if path is None else [probability for _, probability in path],
            )
        )
    return ClassifyResponse(model=service.engine.model_id, data=data)


async def _embedded(
    service: Service, items: list[Item | Upload] | list[Item], geometry: Coordinates, collection: str
) -> Response:
    """Write an EmbedResponse straight from arrays: to check and copy their numbers one by one takes longer."""
    x, modality = await service.embed_inputs(items, collection)
    curv = service.engine.curv
    rows, distances = coordinates(x, geometry, curv), radii(x, curv)
    data = [
        {"index": i, "modality": kind, "embedding": rows[i], "radius": distances[i]} for i, kind in enumerate(modality)
    ]
    body = {"model": service.engine.model_id, "curv": curv, "geometry": geometry, "data": data}
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
