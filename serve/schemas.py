"""Requests and responses. What a request may hold is checked here; how much of it, by settings, in service.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

from hypclip.geometry.entailment import Entailment, Plane
from hypclip.search import Modality
from hypclip.search.store import nesting
from serve.coordinates import Coordinates

MAX_NESTING = 8
_MAX_FIELDS = 64
_BLANK = r"\x09-\x0d\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.strip` takes away; every dialect of patterns has its own idea of white space."""
_VISIBLE = rf"^[{_BLANK}]*[^{_BLANK}][\s\S]*$"
_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJ"
    "RU5ErkJggg=="
)


def limits(**keywords: str) -> dict[str, Any]:
    """Return the mark of a field whose JSON Schema has these keywords, with values that only a running server knows.

    `serve.document` puts them in: those of the settings of these names, and `dim` of the model.
    """
    return {"x-limits": keywords}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Takes 10.0 for 10, as JSON Schema does, and JavaScript, which knows no other numbers."""


def _unicode(text: str) -> str:
    """Refuse lone surrogates, which JSON can escape but neither a tokenizer nor a response can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the string is not valid Unicode") from error
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the string is empty")
    return _unicode(text)


def _storable(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if nesting(metadata, MAX_NESTING + 1) > MAX_NESTING:
        raise ValueError(f"metadata is nested more than {MAX_NESTING} deep")
    _unicode(json.dumps(metadata, ensure_ascii=False))
    return metadata


Visible: TypeAlias = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "pattern": _VISIBLE}), AfterValidator(_not_blank)
]
Text: TypeAlias = Annotated[Visible, Field(json_schema_extra=limits(maxLength="max_text_chars"))]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Embedding: TypeAlias = Annotated[
    list[
        Annotated[
            float,
            Field(
                strict=True,
                allow_inf_nan=False,
                json_schema_extra=limits(minimum="min_component", maximum="max_component"),
            ),
        ]
    ],
    Field(
        fail_fast=True,
        min_length=1,
        json_schema_extra=limits(minItems="dim", maxItems="dim"),
        description="The D space components of a point of this model, as /embed returns them.",
    ),
]
PointId: TypeAlias = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_unicode)]
CollectionName: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Letters, digits, dot, underscore and hyphen; at most 64.",
    ),
]
Metadata: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Schema(BaseModel):
    """Base of everything sent: unknown fields are refused, numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        # Each unknown field becomes an error of its own, a hundred times its size.
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise ValueError(f"an object of {len(value):,} fields; there are at most {len(cls.model_fields)}")
        return value


class TextItem(Schema):
    """A text. The model reads its first context window, 77 tokens in CLIP.

    A plain string is a text too, unless it is a data URI, or the base64 of a picture's file: then it is that picture.
    """

    text: Text = Field(examples=["a photo of a dog"])


class ImageItem(Schema):
    """A picture: PNG, JPEG, WebP, GIF or BMP. Of an animation the first frame is taken."""

    image: str = Field(
        description="Base64, or a data URI. A URL only of hosts that the server was told to fetch from; else refused.",
        examples=[_PICTURE],
        json_schema_extra={"format": "image"},
    )


@dataclass(frozen=True)
class Upload:
    """A picture that came as a file."""

    data: bytes


class EmbeddingItem(Schema):
    """A point by its coordinates."""

    embedding: Embedding


class IdItem(Schema):
    """A point stored in the request's collection."""

    id: PointId = Field(examples=["photo-1"])


def _one_key(*keys: str) -> Any:
    """Return the discriminator of objects told apart by which one of `keys` they have.

    Tags stand in parentheses, so that messages about a field can leave them out of its path.
    """

    def tag(value: Any) -> str | None:
        if isinstance(value, str):
            return "(string)"
        fields = value if isinstance(value, dict) else getattr(value, "__dict__", {})
        present = [key for key in keys if key in fields]
        return f"({present[0]})" if len(present) == 1 else None

    return tag


Item: TypeAlias = Annotated[
    Annotated[Text, Tag("(string)")]
    | Annotated[TextItem, Tag("(text)")]
    | Annotated[ImageItem, Tag("(image)")]
    | Annotated[EmbeddingItem, Tag("(embedding)")]
    | Annotated[IdItem, Tag("(id)")],
    Discriminator(
        _one_key("text", "image", "embedding", "id"),
        custom_error_type="one_of",
        custom_error_message="expected a string, or an object with exactly one of text, image, embedding, id",
    ),
]
JinaItem: TypeAlias = Annotated[
    Annotated[Visible, Tag("(string)")] | Annotated[TextItem, Tag("(text)")] | Annotated[ImageItem, Tag("(image)")],
    Discriminator(
        _one_key("text", "image"),
        custom_error_type="one_of",
        custom_error_message="expected a string, or an object with exactly one of text, image",
    ),
]
Items: TypeAlias = Annotated[
    list[Item], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_inputs"))
]
COLLECTION = Field("default", description="Where the items given by id are stored.")


class EmbedRequest(Schema):
    """Items to embed, and the coordinates to return them in."""

    inputs: Items = Field(examples=[["a photo of a dog", {"text": "an animal"}]])
    geometry: Coordinates = Field(
        "space",
        description="space: the D space components on the hyperboloid, which is what every other request takes back. "
        "lorentz: D + 1 numbers, the time component first. tangent: the logarithm at the origin, D numbers whose "
        "Euclidean norm is the radius. poincare: the point of the ball |p| < 1/√curv.",
    )
    collection: CollectionName = COLLECTION


class Embedded(BaseModel):
    """One embedding. `radius` is its distance from the origin: small is general, large is specific."""

    index: int
    modality: Modality
    embedding: list[float]
    radius: float


class EmbedResponse(BaseModel):
    """The embeddings in the order of the inputs. The space has curvature −curv."""

    model: str
    curv: float
    geometry: str
    data: list[Embedded]


Labels: TypeAlias = Annotated[
    list[Text],
    Field(fail_fast=True, min_length=1, json_schema_extra={"uniqueItems": True, **limits(maxItems="max_labels")}),
]
Edges: TypeAlias = Annotated[
    list[tuple[Text, Text]],
    Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_taxonomy_edges")),
]
Templates: TypeAlias = Annotated[
    list[Annotated[Text, Field(json_schema_extra={"pattern": r"^([^{]|\{(?!\}))*\{\}([^{]|\{(?!\}))*$"})]],
    Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_labels")),
]


class ClassifyRequest(Schema):
    """Items to classify by labels, or by the leaves of a taxonomy."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [field], "properties": {field: {"type": "array"}}} for field in ("labels", "taxonomy")
            ]
        }
    )

    inputs: Items = Field(examples=[[{"image": _PICTURE}]])
    labels: Labels | None = Field(None, examples=[["dog", "cat"]])
    taxonomy: Edges | None = Field(
        None,
        description="Edges [child, parent] of a tree, or of a directed graph without cycles. Its leaves are labels.",
        examples=[[["dog", "animal"], ["cat", "animal"]]],
    )
    templates: Templates = Field(
        ["a photo of a {}"],
        description="Texts with {} once, where the label goes. The embeddings of a label's texts are averaged in the "
        "tangent space.",
    )
    min_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        strict=True,
        description="How probable a node of the taxonomy has to be for the path to go down to it.",
    )
    collection: CollectionName = COLLECTION


class Classified(BaseModel):
    """Probabilities of one input: softmax(−logit_scale · distance) over the labels. `label` has the largest."""

    index: int
    modality: Modality
    label: str = Field(examples=["dog"])
    scores: dict[str, float] = Field(examples=[{"dog": 0.9, "cat": 0.1}])
    path: list[str] | None = Field(
        None,
        description="With a taxonomy: from its root down, at each node to the most probable child, for as long as that "
        "is at least min_probability probable; empty when no root is.",
        examples=[["animal", "dog"]],
    )
    path_scores: list[float] | None = Field(
        None,
        description="How probable each node of the path is: the sum over the leaves below it.",
        examples=[[1.0, 0.9]],
    )


class ClassifyResponse(BaseModel):
    """The classes in the order of the inputs."""

    model: str
    data: list[Classified]


class _PointFields(Schema):
    id: PointId = Field(examples=["photo-1"])
    metadata: Metadata = Field(default_factory=dict, examples=[{"caption": "a dog in the snow", "source": "camera"}])


class TextPoint(_PointFields, TextItem):
    """A text to embed and store."""


class ImagePoint(_PointFields, ImageItem):
    """A picture to embed and store; the picture itself is not kept."""


class EmbeddingPoint(_PointFields, EmbeddingItem):
    """A point to store as it is."""

    modality: Modality = Field("embedding", description="What it was made from, for searches of one modality.")


Point: TypeAlias = Annotated[
    Annotated[TextPoint, Tag("(text)")]
    | Annotated[ImagePoint, Tag("(image)")]
    | Annotated[EmbeddingPoint, Tag("(embedding)")],
    Discriminator(
        _one_key("text", "image", "embedding"),
        custom_error_type="one_of",
        custom_error_message="expected an object with an id and exactly one of text, image, embedding",
    ),
]


class PutPointsRequest(Schema):
    """Points to write; those whose id is stored already are replaced."""

    points: Annotated[list[Point], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_points"))]


class PutPointsResponse(BaseModel):
    """All points are on disk. `count` is what the collection now holds."""

    upserted: int
    count: int


class DeletePointsRequest(Schema):
    """Ids of points to remove; those that are not stored are passed over."""

    ids: Annotated[list[PointId], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_points"))]


class DeletePointsResponse(BaseModel):
    """How many of the ids were stored, and what the collection now holds."""

    deleted: int
    count: int


class ConeInfo(BaseModel):
    """A point entails what lies in its cone: at an angle of at most eta times the half aperture.

    The half aperture of x is asin(min(1, 2 · min_radius / (√curv · |x|))).
    """

    form: Literal["cone"]
    eta: float = Field(examples=[1.0])
    min_radius: float = Field(examples=[0.1])


class PlaneInfo(BaseModel):
    """A point entails what lies beyond it: threshold / √curv or more behind the plane through it across its ray."""

    form: Literal["plane"]
    threshold: float = Field(examples=[0.0])


def rule_info(rule: Entailment) -> ConeInfo | PlaneInfo:
    """Return a rule of entailment as responses have it."""
    if isinstance(rule, Plane):
        return PlaneInfo(form=rule.form, threshold=rule.threshold)
    return ConeInfo(form=rule.form, eta=rule.eta, min_radius=rule.min_radius)


class IndexInfo(BaseModel):
    """How the approximate search of a collection was built. `recall` was measured then, among stored points."""

    cells: int
    probes: int
    recall: float
    built_at: int


class CollectionInfo(BaseModel):
    """A collection and the model its points belong to. Without an `index` every search of it is exact."""

    name: str
    count: int
    model: str
    revision: str
    curv: float
    dim: int
    entailment: ConeInfo | PlaneInfo = Field(
        description="That of its model.", examples=[{"form": "plane", "threshold": 0.0}]
    )
    index: IndexInfo | None


class CollectionsResponse(BaseModel):
    """Every collection, by name."""

    collections: list[CollectionInfo]


class ModelInfo(BaseModel):
    """The model: its space has curvature −curv and points of dim space components."""

    model: str = Field(examples=["hypclip-0123456789ab"])
    revision: str = Field(description="Hash of the weights.")
    geometry: str = Field(examples=["lorentz"])
    curv: float = Field(examples=[0.5])
    dim: int = Field(examples=[512])
    logit_scale: float = Field(examples=[14.3])
    entailment: ConeInfo | PlaneInfo = Field(
        description="What makes one point more general than another, as the model was trained for: the routes of the "
        "hierarchy go by it unless a request has a `rule`.",
        examples=[{"form": "plane", "threshold": 0.0}, {"form": "cone", "eta": 1.0, "min_radius": 0.1}],
    )


class Health(BaseModel):
    """The server is there."""

    status: Literal["ok", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong. `type` is for programs, `message` for people, `request_id` for the log of the server."""

    type: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    """The shape of every error."""

    error: ErrorDetail
