"""Requests and responses of searches: retrieval, ancestors and descendants, traversal, means and order."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Discriminator, Field, JsonValue, Tag, WithJsonSchema

from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.entailment import Cone, Plane
from hypclip.search import Modality, OrderBy, Where
from hypclip.search.route import MAX_STEPS
from hypclip.search.types import nesting
from hypclip.search.where import BOUNDS, MAX_FIELDS, MAX_INTEGER, MAX_VALUES
from serve.schemas.fields import MAX_NESTING, WHOLE, CollectionName, Flag, Schema, limits
from serve.schemas.items import COLLECTION, Item, Items

_MAX_INT = 2**53  # what JSON can be trusted with; the settings bound it further


def _filter(filter: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is nested absurdly, and leave out values that come again, of which a database takes only so many."""
    if nesting(filter, MAX_NESTING + 1) > MAX_NESTING:
        raise ValueError(f"the filter is nested more than {MAX_NESTING} deep")
    return {name: _distinct(wanted) if isinstance(wanted, list) else wanted for name, wanted in filter.items()}


def _distinct(values: list[Any]) -> list[Any]:
    if any(isinstance(value, list | dict) for value in values):
        return values  # refused later
    return list({(type(value), value): value for value in values}.values())


_NUMBER = {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
_SCALAR = {"anyOf": [{"type": "string", "pattern": r"^[^\x00]*$"}, _NUMBER, {"type": "boolean"}, {"type": "null"}]}
_VALUES = {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": MAX_VALUES}
_RANGE = {
    "type": "object",
    "properties": dict.fromkeys(BOUNDS, _NUMBER),
    "additionalProperties": False,
    "minProperties": 1,
}
Filter: TypeAlias = Annotated[
    dict[str, Any],  # checked by Where, whose messages say what a filter is
    AfterValidator(_filter),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_FIELDS,
            "propertyNames": {"minLength": 1, "pattern": r'^[^"\\\x00-\x1f\x7f-\x9f]+$'},
            "additionalProperties": {"anyOf": [_SCALAR, _VALUES, _RANGE]},
        }
    ),
]
K: TypeAlias = Annotated[
    int,
    Field(ge=1, le=_MAX_INT, strict=True, description="How many.", json_schema_extra=limits(maximum="max_k")),
    WHOLE,
]
Offset: TypeAlias = Annotated[
    int,
    Field(
        ge=0,
        le=_MAX_INT,
        strict=True,
        description="How many to skip: the next page starts at offset + k.",
        json_schema_extra=limits(maximum="max_depth"),
    ),
    WHOLE,
]
Weight: TypeAlias = Annotated[float, Field(strict=True, json_schema_extra={"minimum": 0})]
Radius: TypeAlias = Annotated[float, Field(ge=0, strict=True)]
Scale: TypeAlias = Annotated[
    float,
    Field(
        gt=0,
        le=1e6,
        strict=True,
        description="A factor on how wide the cones are: a point is inside where the angle is at most aperture_scale · "
        "eta · the half aperture. Below 1 is stricter. A half-space has no width: with a plane anything but 1 is "
        "refused, and a `rule` with a larger threshold is stricter.",
    ),
]
_LIMIT = 1e6  # of numbers that could be infinite otherwise; far beyond all that makes a difference


class ConeRule(Schema):
    """A point entails what lies in its cone: at an angle of at most eta times the half aperture.

    The half aperture of x is asin(min(1, 2 · min_radius / (√curv · |x|))).
    """

    form: Literal["cone"]
    eta: Annotated[float, Field(gt=0, le=_LIMIT, strict=True, description="Below 1 is stricter.")] = 1.0
    min_radius: Annotated[float, Field(gt=0, le=_LIMIT, strict=True, description="Smaller is stricter.")] = MIN_RADIUS

    def entailment(self) -> Cone:
        """Return the rule as stores take it."""
        return Cone(self.eta, self.min_radius)


class PlaneRule(Schema):
    """A point entails what lies beyond it: threshold / √curv or more behind the plane through it across its ray."""

    form: Literal["plane"]
    threshold: Annotated[
        float, Field(ge=-_LIMIT, le=_LIMIT, strict=True, description="More is stricter, below 0 is laxer.")
    ] = 0.0

    def entailment(self) -> Plane:
        """Return the rule as stores take it."""
        return Plane(self.threshold)


def _form(value: Any) -> str | None:
    form = value.get("form") if isinstance(value, dict) else getattr(value, "form", None)
    return f"({form})" if form in ("cone", "plane") else None


Rule: TypeAlias = Annotated[
    Annotated[ConeRule, Tag("(cone)")] | Annotated[PlaneRule, Tag("(plane)")],
    Discriminator(
        _form,
        custom_error_type="one_of",
        custom_error_message="expected an object of form 'cone', with eta and min_radius, or 'plane', with threshold",
    ),
]
RULE = Field(
    None,
    description="What makes one point more general than another, in place of the rule that the model was trained for, "
    "which is the default and which /model tells.",
    examples=[{"form": "plane", "threshold": 0.2}, {"form": "cone", "eta": 0.8, "min_radius": 0.1}],
)


class _Restricted(Schema):
    collection: CollectionName = "default"
    modality: Modality | None = Field(None, description="Only points of this modality.")
    filter: Filter | None = Field(
        None,
        description="Only points whose metadata meets every condition: a value to equal, a list of values of which one "
        'is equalled, or bounds such as {"gte": 2020, "lt": 2024}. Of metadata that holds a list, one element is '
        "enough.",
        examples=[{"source": ["camera", "phone"]}],
    )
    min_radius: Radius = Field(0.0, description="Only points at least this far from the origin: nothing more general.")
    max_radius: Radius | None = Field(None, description="Only points at most this far from the origin.")

    def where(self) -> Where:
        """Return the conditions, checked."""
        radius = {} if self.max_radius is None else {"max_radius": self.max_radius}
        return Where(self.filter, self.modality, self.min_radius, **radius)


class RetrieveRequest(_Restricted):
    """A query and what to search."""

    query: Item = Field(examples=["a photo of a dog"])
    k: K = 10
    offset: Offset = 0
    max_distance: Radius | None = Field(
        None, description="Only points at most this far from the query; `total` then counts all of them."
    )
    exact: Flag | None = Field(
        None, description="true to be sure, at any size; null lets a large collection use its index."
    )


class Hit(BaseModel):
    """A point found, with its geodesic distance to the query, and its radius, the distance to the origin."""

    id: str
    distance: float
    radius: float
    modality: Modality
    metadata: dict[str, JsonValue]


class RetrieveResponse(BaseModel):
    """The nearest points, nearest first. `exact` is false when the index may have missed one.

    `total` says how many there are in all, of which `hits` is a page; null when the search did not count them.
    """

    hits: list[Hit]
    exact: bool
    total: int | None


class ConeRequest(_Restricted):
    """A point, and what of its ancestors or descendants to return."""

    of: Item = Field(examples=["a photo of a dog"])
    k: K = 10
    offset: Offset = 0
    rule: Rule | None = RULE
    aperture_scale: Scale = 1.0
    reflexive: Flag = Field(False, description="Let a point be its own ancestor and descendant.")
    order_by: OrderBy = Field(
        "margin",
        description="margin: deepest inside first. distance: nearest first. radius: most general first.",
    )


class Related(Hit):
    """An ancestor or descendant: inside where `margin` ≤ 0, the deeper the smaller.

    `angle` is the exterior angle at the more general of the two points, `aperture` the half aperture of its cone, in
    radians, and `margin` = angle − aperture_scale · eta · aperture. By planes `aperture` is π/2, and `margin` =
    threshold − height, where height is √curv times the distance from the hyperplane of the more general point, negative
    before it.
    """

    angle: float
    aperture: float
    margin: float


class ConeResponse(BaseModel):
    """A page of the ancestors or descendants; `total` counts them all."""

    hits: list[Related]
    exact: bool
    total: int


class CommonRequest(_Restricted):
    """Points whose common ancestors to find."""

    of: Items = Field(examples=[["a photo of a dog", "a photo of a cat"]])
    k: K = 10
    offset: Offset = 0
    rule: Rule | None = RULE
    aperture_scale: Scale = 1.0


class TraverseRequest(_Restricted):
    """From where to where, and among which points."""

    source: Item = Field(examples=["a photo of a dog"])
    target: Item | None = Field(None, description="Where to go; null is the root, the origin of the space.")
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS, strict=True), WHOLE] | None = Field(
        50,
        description="How many places to look at, evenly spaced in the tangent space at the origin, as MERU does. "
        "null looks at every place of the geodesic: no stop is missed, and `t` is where it begins.",
    )
    entailment: Flag = Field(
        True,
        description="Only points that entail the place; else simply the nearest, for which no `rule` can be given.",
    )
    rule: Rule | None = RULE
    aperture_scale: Scale = 1.0


class Stop(BaseModel):
    """A point that is the nearest from the fraction `t` of the route on, and its distance from that place.

    The root has the id "[ROOT]", and null as its modality.
    """

    t: float
    id: str
    distance: float
    radius: float
    modality: Modality | None
    metadata: dict[str, JsonValue]


class TraverseResponse(BaseModel):
    """The stops in the order of the route, each once."""

    path: list[Stop]
    exact: bool


class MeanRequest(Schema):
    """Points to average."""

    inputs: Items = Field(examples=[["a photo of a dog", "a photo of a cat"]])
    weights: Annotated[list[Weight], Field(min_length=1, json_schema_extra=limits(maxItems="max_inputs"))] | None = (
        Field(None, description="One per input, 0 or more, not all 0; equal when absent.")
    )
    collection: CollectionName = COLLECTION


class MeanResponse(BaseModel):
    """The Lorentz centroid: its space components, to be used as an embedding, and its radius."""

    model: str
    curv: float
    embedding: list[float]
    radius: float


class OrderRequest(Schema):
    """Two points to order."""

    first: Item = Field(examples=["an animal"])
    second: Item = Field(examples=["a photo of a dog"])
    rule: Rule | None = RULE
    aperture_scale: Scale = 1.0
    collection: CollectionName = COLLECTION


class OrderResponse(BaseModel):
    """The relation of the first to the second; a point is inside the region of the other where a margin ≤ 0.

    The margins are those of a search: radians by cones, √curv times a distance by planes.
    """

    relation: Literal["general", "specific", "neither", "same"]
    first_over_second: float
    second_over_first: float
    distance: float
