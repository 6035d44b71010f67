"""/v1/embeddings: the OpenAI schema, with images as Jina has them, and radius and curvature beside."""

from __future__ import annotations

import base64
from typing import Annotated, Literal, TypeAlias

import numpy as np
import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from serve.api.deps import ServiceDep
from serve.api.models import require_model
from serve.coordinates import Coordinates, coordinates, radii
from serve.errors import InvalidRequest
from serve.inputs.data_uri import is_image
from serve.schemas.fields import WHOLE, Flag, Schema, limits
from serve.schemas.items import ImageItem, Item, JinaItem

router = APIRouter(prefix="/v1", tags=["embed"])


def _listed(value: object) -> object:
    if isinstance(value, list) and value and all(map(_is_token_ids, value)):
        raise ValueError("token ids are not taken, since every model has its own: send the text")
    return [_part(each) for each in (value if isinstance(value, list) else [value])]


def _is_token_ids(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, list) and bool(value) and isinstance(value[0], int))


def _part(value: object) -> object:
    """Return the item that a part of a message of OpenAI's is; anything else as it is."""
    match value:
        case {"type": "text" | "input_text", "text": text, **rest} if not rest:
            return {"text": text}
        case {"type": "image_url" | "input_image", "image_url": {"url": str(url)} | str(url), **rest} if (
            rest.keys() <= {"detail"}
        ):
            return {"image": url}
        case {"type": "image", "image": image, **rest} if not rest:
            return {"image": image}
        case _:
            return value


Inputs: TypeAlias = Annotated[
    list[JinaItem], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_inputs"))
]
Dimensions: TypeAlias = Annotated[
    int, Field(strict=True, json_schema_extra=limits(minimum="dim", maximum="dim")), WHOLE
]


class EmbeddingsRequest(Schema):
    """A request of the OpenAI client, or of Jina's."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str = Field("hypclip", max_length=512, examples=["hypclip"])
    input: Annotated[Inputs, BeforeValidator(_listed, json_schema_input_type=JinaItem | Inputs)] = Field(
        description='A text, or a list of texts and of objects {"text": …} or {"image": base64, data URI or URL}. A '
        "text that is a data URI of an image, or the base64 of one, is that image. Parts of messages are items too: "
        '{"type": "text", "text": …}, {"type": "image_url", "image_url": {"url": …}}.',
        examples=[["a photo of a dog", {"text": "an animal"}]],
    )
    modality: Literal["text", "image"] = Field("text", description="What strings of the input are.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: float32, little-endian; what the official client asks for unless told otherwise."
    )
    embedding_type: Literal["float", "base64"] | None = Field(None, description="The same, as Jina calls it.")
    dimensions: Dimensions | None = Field(None, description="The dimensions of the model; it has no others.")
    normalized: Annotated[Flag, Field(json_schema_extra={"const": False})] | None = Field(
        None, description="false: the length of a point is how specific it is."
    )
    user: str | None = None
    geometry: Coordinates = "space"


class OpenAIEmbedding(BaseModel):
    """One embedding, a list of numbers or base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    radius: float = Field(description="Distance from the origin: small is general, large is specific.")


class Usage(BaseModel):
    """The tokens that the model read. Images have none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The embeddings in the order of the input. The space has curvature −curv."""

    object: Literal["list"] = "list"
    model: str
    curv: float
    geometry: Coordinates
    data: list[OpenAIEmbedding]
    usage: Usage


@router.post("/embeddings", summary="Embed, as OpenAI does", response_model=EmbeddingsResponse)
async def embeddings(request: EmbeddingsRequest, service: ServiceDep) -> Response:
    """Return embeddings in the form of the OpenAI API.

    They are points of hyperbolic space: compare them with the geodesic distance, not with the cosine.
    """
    engine = service.model
    require_model(engine, request.model)
    if request.dimensions not in (None, engine.dim):
        raise InvalidRequest(f"dimensions: this model has {engine.dim}, which cannot be cut to {request.dimensions}")
    if request.normalized:
        raise InvalidRequest("normalized: the length of a point tells how specific it is and is never removed")
    items: list[Item] = [
        ImageItem(image=item) if isinstance(item, str) and (request.modality == "image" or is_image(item)) else item
        for item in request.input
    ]
    x, _, tokens, *_ = await service.embed_inputs(items, "default")
    rows, distances = coordinates(x, request.geometry, engine.curv), radii(x, engine.curv)
    as_base64 = "base64" in (request.encoding_format, request.embedding_type)
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if as_base64 else row,
            "radius": radius,
        }
        for i, (row, radius) in enumerate(zip(np.ascontiguousarray(rows), distances, strict=True))
    ]
    body = {
        "object": "list",
        "model": engine.model_id,
        "curv": engine.curv,
        "geometry": request.geometry,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
