"""Requests and responses about stored points and their collections."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
)

from hypclip.search import Modality
from serve.schemas.fields import Metadata, PointId, Schema, limits
from serve.schemas.items import EmbeddingItem, ImageItem, TextItem, one_key
from serve.schemas.operations import ConeInfo, PlaneInfo


class _PointFields(Schema):
    id: PointId = Field(examples=["photo-1"])
    metadata: Metadata = Field(default_factory=dict, examples=[{"caption": "a dog in the snow", "source": "camera"}])


class TextPoint(_PointFields, TextItem):
    """A text to embed and store."""


class ImagePoint(_PointFields, ImageItem):
    """An image to embed and store; the image itself is not kept."""


class EmbeddingPoint(_PointFields, EmbeddingItem):
    """A point to store as it is."""

    modality: Modality = Field("embedding", description="What it was made from, for searches of one modality.")


Point: TypeAlias = Annotated[
    Annotated[TextPoint, Tag("(text)")]
    | Annotated[ImagePoint, Tag("(image)")]
    | Annotated[EmbeddingPoint, Tag("(embedding)")],
    Discriminator(
        one_key("text", "image", "embedding"),
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
    """Ids of points to remove; unknown ids are skipped."""

    ids: Annotated[list[PointId], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_points"))]


class DeletePointsResponse(BaseModel):
    """Numbers of deleted points, and of points that the collection now has."""

    deleted: int
    count: int


class IndexInfo(BaseModel):
    """The approximate index of a collection. `recall` was measured when it was built, among stored points."""

    cells: int
    probes: int
    recall: float
    built_at: int


class CollectionInfo(BaseModel):
    """A collection and the model its points belong to. Without an `index` every search of it is exact."""

    name: str
    count: int
    counts: dict[Modality, int] = Field(description="By modality.", examples=[{"text": 2, "image": 1, "embedding": 0}])
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
