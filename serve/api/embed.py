"""The routes that embed and classify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, get_args

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field, TypeAdapter, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope
from torch import Tensor

from hypclip.search import Modality
from serve.api.answers import answer, written
from serve.api.deps import ServiceDep
from serve.classify import Taxonomy
from serve.coordinates import Coordinates, coordinates, radii
from serve.errors import InvalidRequest, LimitExceeded, describe
from serve.inputs.images import FORMATS
from serve.schemas.embed import ClassifyRequest, ClassifyResponse, EmbedRequest, EmbedResponse
from serve.schemas.fields import Schema, Text, limits
from serve.schemas.items import Item, Upload
from serve.service import Service
from serve.settings import ENV_PREFIX, Settings

_NUMBER_BYTES = 24
"""Of a number in JSON, with the signs around it."""

router = APIRouter()


class _Multipart(APIRoute):
    """A route for forms, beside one of the same path for JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match requests with a form only."""
        if Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data"):
            return super().matches(scope)
        return Match.NONE, {}


class EmbedForm(Schema):
    """The fields of a form; each may come several times, `geometry` once."""

    text: list[Text] = Field(default_factory=list)
    image: list[Any] = Field(default_factory=list)
    geometry: Coordinates = "space"


class _WholeForm(Request):
    """A request whose form has to come to its end; the parser alone takes what it gets for all there is."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, and refuse it at the end if the last boundary has not come."""
        _, options = parse_options_header(self.headers.get("content-type"))
        end = b"--" + options.get(b"boundary", b"") + b"--"
        ended, window = False, b""
        async for chunk in super().stream():
            window += chunk
            ended = ended or end in window
            window = window[-len(end) :]
            yield chunk
        if not ended:
            raise InvalidRequest("the form is cut short: the boundary at its end is missing")


async def embed_form(request: Request, service: ServiceDep) -> Response:
    """Embed texts and image files, the texts first."""
    settings = service.settings
    # The parser counts texts and files apart, and `embed_inputs` counts them together.
    form = _WholeForm(request.scope, request.receive).form(
        max_files=settings.max_inputs,
        max_fields=settings.max_inputs + 1,
        max_part_size=4 * settings.max_text_chars,
    )
    try:
        async with form as fields:
            items, geometry = await _items(fields)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise InvalidRequest(f"the form cannot be read: {error.detail} {_form_limits(settings)}") from error
    return await _embedded(service, items, geometry, "default")


def _form_limits(settings: Settings) -> str:
    return (
        f"It may hold {settings.max_inputs:,} texts and files (setting {ENV_PREFIX}MAX_INPUTS), texts of "
        f"{settings.max_text_chars:,} characters (setting {ENV_PREFIX}MAX_TEXT_CHARS)."
    )


async def _items(form: FormData) -> tuple[list[Item | Upload], Coordinates]:
    values: dict[str, Any] = {name: form.getlist(name) for name in form}
    if len(values.get("geometry", [])) == 1:
        (values["geometry"],) = values["geometry"]
    try:
        fields = EmbedForm.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(describe([{**p, "loc": ("body", *p["loc"])} for p in error.errors()])) from error
    if not all(isinstance(file, UploadFile) for file in fields.image):
        raise InvalidRequest("image: expected files, each with a filename; base64 goes into a JSON body")
    if not fields.text and not fields.image:
        raise InvalidRequest("the form has neither a field text nor a file image")
    return [*fields.text, *[Upload(await file.read()) for file in fields.image]], fields.geometry


router.add_api_route("/embed", embed_form, methods=["POST"], route_class_override=_Multipart, include_in_schema=False)


_TEXT = TypeAdapter(Text).json_schema()
_FORM = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "text": {
                            "anyOf": [
                                _TEXT,
                                {"type": "array", "items": _TEXT, "minItems": 1, **limits(maxItems="max_inputs")},
                            ],
                            "description": "Texts, one per field.",
                        },
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "Files, one per field.",
                            **limits(maxItems="max_inputs"),
                        },
                        "geometry": {"enum": list(get_args(Coordinates)), "default": "space"},
                    },
                    "additionalProperties": False,
                    "anyOf": [{"required": ["text"]}, {"required": ["image"]}],
                },
                "encoding": {"image": {"contentType": ", ".join(f"image/{name.lower()}" for name in FORMATS)}},
            }
        }
    }
}


@router.post(
    "/embed",
    tags=["embed"],
    summary="Embed texts and images",
    response_model=EmbedResponse,
    openapi_extra=_FORM,
)
async def embed(request: EmbedRequest, service: ServiceDep) -> Response:
    """Return one point of hyperbolic space for each input, and its radius: its distance from the origin.

    Texts and images may be mixed. Points may come in too, to convert them. Compare points with the geodesic distance,
    never with the cosine of their coordinates. Images can also be sent as files, in a form with fields `image`,
    `text` and `geometry`; the texts are embedded first.
    """
    return await _embedded(service, request.inputs, request.geometry, request.collection)


@router.post("/classify", tags=["classify"], summary="Classify without training", response_model=ClassifyResponse)
async def classify(request: ClassifyRequest, service: ServiceDep) -> Response:
    """Return the probability of each label for each input.

    Give either `labels` or a `taxonomy`, whose leaves are then the labels. The answer in a taxonomy is a path from the
    root that stops where the evidence does: at the last node that is at least `min_probability` probable.
    """
    if (request.labels is None) == (request.taxonomy is None):
        raise InvalidRequest("give either labels or taxonomy")
    _check_lengths(request, service.settings.max_text_chars)
    tree = await service.taxonomy(request.taxonomy) if request.taxonomy else None
    labels = tree.leaves if tree else request.labels or []
    _check_answer(len(request.inputs), labels, tree, service.settings.max_body_bytes)
    scores, modality = await service.classify(request.inputs, request.collection, labels, request.templates)
    content = await asyncio.to_thread(
        _classified, service.model.model_id, labels, scores, modality, tree, request.min_probability
    )
    return Response(content, media_type="application/json")


def _check_lengths(request: ClassifyRequest, limit: int) -> None:
    """Refuse long names before each of thousands of templates makes a longer text of each of them."""
    names = request.labels or [name for edge in request.taxonomy or () for name in edge]
    longest = max(map(len, names)) + max(map(len, request.templates)) - len("{}")
    if longest > limit:
        raise LimitExceeded("the number of characters of a label in a template", longest, limit, "max_text_chars")


def _check_answer(inputs: int, labels: Sequence[str], tree: Taxonomy | None, limit: int) -> None:
    """Refuse what would be answered by far more bytes than it has: every input repeats every label."""
    size = sum(len(label) + _NUMBER_BYTES for label in labels)
    if tree:
        way: dict[str | None, int] = {None: 0}
        for node, parent in tree.parents.items():  # every node after its parent
            way[node] = way[parent] + len(node) + _NUMBER_BYTES
        size += max(way.values())
    if inputs * size > limit:
        raise LimitExceeded("the size in bytes of the scores of all inputs", inputs * size, limit, "max_body_bytes")


def _classified(
    model: str,
    labels: Sequence[str],
    scores: Tensor,
    modality: Sequence[Modality],
    tree: Taxonomy | None,
    min_probability: float,
) -> bytes:
    """Write a ClassifyResponse."""
    best = scores.argmax(dim=-1).tolist()
    data: list[dict[str, Any]] = [
        {"index": i, "modality": kind, "label": labels[best[i]], "scores": dict(zip(labels, row, strict=True))}
        for i, (kind, row) in enumerate(zip(modality, scores.tolist(), strict=True))
    ]
    for datum, path in zip(data, tree.paths(scores.numpy(), min_probability) if tree else (), strict=False):
        datum["path"] = [node for node, _ in path]
        datum["path_scores"] = [probability for _, probability in path]
    return written({"model": model, "data": data})


async def _embedded(
    service: Service, items: list[Item | Upload] | list[Item], geometry: Coordinates, collection: str
) -> Response:
    """Embed, and write an EmbedResponse."""
    x, modality, *_, space = await service.embed_inputs(items, collection)
    curv = space.curv
    rows, distances = coordinates(x, geometry, curv), radii(x, curv)
    data = [
        {"index": i, "modality": kind, "embedding": rows[i], "radius": distances[i]} for i, kind in enumerate(modality)
    ]
    body = {"model": space.model_id, "curv": curv, "geometry": geometry, "data": data}
    return answer(body)
