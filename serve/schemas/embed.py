"""Requests and responses of embedding and classification."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from hypclip.search import Modality
from serve.coordinates import Coordinates
from serve.schemas.fields import CollectionName, Schema, Text, limits
from serve.schemas.items import COLLECTION, EXAMPLE_IMAGE, Items


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

    inputs: Items = Field(examples=[[{"image": EXAMPLE_IMAGE}]])
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
