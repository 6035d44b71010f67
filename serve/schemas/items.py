"""Items: texts, images, coordinates and ids of stored points, as requests hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
)

from serve.schemas.fields import Embedding, Flag, PointId, Schema, Text, Visible, limits

EXAMPLE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJ"
    "RU5ErkJggg=="
)


class TextItem(Schema):
    """A text. The model reads its first context window, 77 tokens in CLIP.

    A plain string is a text too, unless it is a data URI, or the base64 of an image's file: then it is that image.
    """

    text: Text = Field(examples=["a photo of a dog"])


class ImageItem(Schema):
    """An image: PNG, JPEG, WebP, GIF or BMP. Of an animation the first frame is taken."""

    image: str = Field(
        description="Base64, or a data URI. A URL only of hosts that the server was told to fetch from; else refused.",
        examples=[EXAMPLE_IMAGE],
        json_schema_extra={"format": "image"},
    )


@dataclass(frozen=True)
class Upload:
    """An image that came as a file."""

    data: bytes


class EmbeddingItem(Schema):
    """A point by its coordinates."""

    embedding: Embedding


class IdItem(Schema):
    """A point stored in the request's collection."""

    id: PointId = Field(examples=["photo-1"])


def _true(value: bool) -> bool:
    if not value:
        raise ValueError("the root is given as true")
    return value


class RootItem(Schema):
    """The root: the origin of the space, which is more general than everything."""

    root: Annotated[Flag, AfterValidator(_true), Field(json_schema_extra={"const": True})]


def one_key(*keys: str) -> Any:
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
    | Annotated[IdItem, Tag("(id)")]
    | Annotated[RootItem, Tag("(root)")],
    Discriminator(
        one_key("text", "image", "embedding", "id", "root"),
        custom_error_type="one_of",
        custom_error_message="expected a string, or an object with exactly one of text, image, embedding, id, root",
    ),
]

JinaItem: TypeAlias = Annotated[
    Annotated[Visible, Tag("(string)")] | Annotated[TextItem, Tag("(text)")] | Annotated[ImageItem, Tag("(image)")],
    Discriminator(
        one_key("text", "image"),
        custom_error_type="one_of",
        custom_error_message="expected a string, or an object with exactly one of text, image",
    ),
]

Items: TypeAlias = Annotated[
    list[Item], Field(fail_fast=True, min_length=1, json_schema_extra=limits(maxItems="max_inputs"))
]

COLLECTION = Field("default", description="Where the items given by id are stored.")
