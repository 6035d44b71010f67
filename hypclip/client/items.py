"""What can be asked about, and what to search."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, Protocol, SupportsFloat, TypeAlias, TypedDict, runtime_checkable

Item: TypeAlias = str | Mapping[str, Any]
"""A text, or what `image`, `stored` or `point` returns."""

_MODES_OF_PNG = {"1", "L", "LA", "I", "P", "RGB", "RGBA"}


@runtime_checkable
class Picture(Protocol):
    """What is used of a PIL image."""

    @property
    def mode(self) -> str:
        """Return what a pixel consists of."""

    def convert(self, mode: str) -> Any:
        """Return it in another mode."""

    def getexif(self) -> Any:
        """Return its EXIF data, which may say that it must be turned."""

    def save(self, fp: IO[bytes], format: str, **params: Any) -> Any:
        """Write it."""


def image(source: str | os.PathLike[str] | bytes | Picture) -> dict[str, str]:
    """Return a picture as an item.

    Args:
        source: the path of a file, the bytes of one, or a PIL image. A file goes as it is; an image goes as PNG, which
            of a photograph is several times its file.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str | os.PathLike):
        data = Path(source).read_bytes()
    else:
        buffer = io.BytesIO()
        picture = source if source.mode in _MODES_OF_PNG else source.convert("RGB")
        picture.save(buffer, "PNG", exif=source.getexif())
        data = buffer.getvalue()
    return {"image": base64.b64encode(data).decode()}


def stored(id: str) -> dict[str, str]:
    """Return a stored point, of the collection of the request, as an item."""
    return {"id": id}


def point(embedding: Iterable[SupportsFloat]) -> dict[str, list[float]]:
    """Return a point as an item, by its space components: a list, an array or a tensor of them."""
    return {"embedding": [float(x) for x in embedding]}


class Where(TypedDict, total=False):
    """What to search; what is absent does not restrict.

    `collection` is "default" if absent. Radii are distances from the root. `filter` has a condition a metadata field: a
    value to equal, a list of values of which one is equalled, or bounds such as {"gte": 2020, "lt": 2024}.
    """

    collection: str
    modality: str | None
    filter: Mapping[str, Any] | None
    min_radius: float
    max_radius: float | None


class Cone(Where, total=False):
    """Which ancestors or descendants to return.

    `offset` is how many to pass over, for the next page. A point is inside a cone where the angle is at most
    `aperture_scale`, 1 if absent, times the half aperture: below 1 is stricter. `reflexive` lets a point be its own
    ancestor. `order_by` puts first what is deepest inside its cone (the default), nearest, or most general.
    """

    offset: int
    aperture_scale: float
    reflexive: bool
    order_by: Literal["margin", "distance", "radius"]
