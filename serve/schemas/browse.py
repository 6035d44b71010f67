"""Requests and responses of browsing: points in order, by id or key, and the fields of their metadata."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hypclip.search import Modality, Order, Where
from hypclip.search.where import Scalar
from serve.errors import InvalidRequest, describe
from serve.schemas.fields import WHOLE, PointId, Schema, limits
from serve.schemas.search import Filter

MAX_LOOKUP = 256
"""Most points of a request that names each of them."""

_MAX_INT = 2**53
_FILTER: TypeAdapter[dict[str, Any]] = TypeAdapter(Filter)

ListK: TypeAlias = Annotated[
    int, Field(ge=1, le=_MAX_INT, description="How many.", json_schema_extra=limits(maximum="max_k"))
]
ListRadius: TypeAlias = Annotated[float, Field(ge=0)]


class ListQuery(Schema):
    """Which points to list, and in what order."""

    order: Order = Field(
        "id",
        description="id: by id, in Qdrant by a hash of it. radius: the most general first, then by id.",
    )
    after: str | None = Field(None, max_length=4096, description="`next` of the page before; none for the first.")
    k: ListK = 100
    modality: Modality | None = None
    min_radius: ListRadius = 0.0
    max_radius: ListRadius | None = None
    filter: str | None = Field(
        None,
        max_length=16_384,
        description="JSON of a filter as /retrieve takes it.",
        examples=['{"source": "camera"}'],
        json_schema_extra={"contentMediaType": "application/json"},
    )

    def where(self) -> Where:
        """Return the conditions as stores take them.

        Raises:
            InvalidRequest: the filter is not JSON, or not an object.
            InputError: it is no filter, or the radii are the wrong way round.
        """
        conditions = None
        if self.filter is not None:
            try:
                conditions = _FILTER.validate_json(self.filter)
            except ValidationError as error:
                problems = [{**p, "loc": ("query", "filter", *p["loc"])} for p in error.errors()]
                raise InvalidRequest(describe(problems)) from error
        far = float("inf") if self.max_radius is None else self.max_radius
        return Where(conditions, self.modality, self.min_radius, far)


class PointQuery(Schema):
    """What to return of a point."""

    vector: bool = Field(False, description="Whether to return its embedding too.")


class PointInfo(BaseModel):
    """A stored point. `radius` is its distance from the origin; `key` is its number in /collections/{name}/map."""

    id: str
    key: int | None = Field(description="It stays the point's until the point is written again.")
    radius: float
    modality: Modality
    metadata: dict[str, Any]
    thumbnail: bool = Field(description="Whether the server has a thumbnail of it.")


class PointDetails(PointInfo):
    """A stored point, with its D space components if they were asked for."""

    embedding: list[float] | None = None


class PointsResponse(BaseModel):
    """A page of the points. `total` counts all that meet the conditions; `next` is null on the last page."""

    points: list[PointInfo]
    next: str | None
    total: int


class LookupRequest(Schema):
    """Points by their ids or by their keys; either, not both."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [field], "properties": {field: {"type": "array"}}} for field in ("ids", "keys")]
        }
    )

    ids: Annotated[list[PointId], Field(fail_fast=True, min_length=1, max_length=MAX_LOOKUP)] | None = Field(
        None, examples=[["photo-1"]]
    )
    keys: (
        Annotated[
            list[Annotated[int, Field(ge=0, le=_MAX_INT, strict=True), WHOLE]],
            Field(fail_fast=True, min_length=1, max_length=MAX_LOOKUP),
        ]
        | None
    ) = None


class ThumbnailsRequest(Schema):
    """Points whose thumbnails to return."""

    ids: Annotated[list[PointId], Field(fail_fast=True, min_length=1, max_length=MAX_LOOKUP)] = Field(
        examples=[["photo-1"]]
    )


class LookupResponse(BaseModel):
    """The points that exist, in the order asked for."""

    points: list[PointInfo]


class ValueCount(BaseModel):
    """A value, and how many points have it."""

    value: Scalar
    count: int


class FieldInfo(BaseModel):
    """A field of the metadata: how many points have it, its most frequent values, and the range of its numbers.

    Of a list every element counts. `distinct` is null and `values` is empty where there are over 10,000 values.
    """

    name: str
    count: int
    values: list[ValueCount]
    distinct: int | None
    min: float | None
    max: float | None


class FieldsResponse(BaseModel):
    """The fields of a collection's metadata, those of the most points first.

    `sampled` is how many points were looked at where that is not all of them; the counts of fields are then of these.
    """

    fields: list[FieldInfo]
    modalities: dict[Modality, int]
    sampled: int | None
