"""Items to ask about, and filters of a search."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, SupportsFloat, TypeAlias, TypedDict, runtime_checkable

Item: TypeAlias = str | Mapping[str, Any]
"""A text, or what `image`, `stored`, `point` or `root` returns."""

_ADDRESS = re.compile(r"\s*(?:https?://|data:)", re.IGNORECASE)
_OTHER_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\s]{200,}")


@runtime_checkable
class PILImage(Protocol):
    """A PIL image, recognised by a method that nothing else has."""

    def getexif(self) -> Any:
        """Return its EXIF data, which may say that it must be turned."""


@runtime_checkable
class Array(Protocol):
    """A numpy array, recognised by its array interface."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Return the address, shape and dtype of the data."""


@runtime_checkable
class File(Protocol):
    """An open file."""

    def read(self) -> bytes:
        """Return the content."""


def image(source: str | os.PathLike[str] | bytes | bytearray | memoryview | File | PILImage | Array) -> dict[str, str]:
    """Return an image as an item.

    Args:
        source: the path of a file, the bytes of one, or one that is open for reading bytes: the file goes as it is. Or
            a PIL image of any mode, or an array (H, W, 3) of uint8, which go as PNG, in RGB, without what else the
            image holds (EXIF, GPS); of a photograph that is several times its file. Or a URL, a data URI or base64, for
            the server to read.

    Raises:
        OSError: the file cannot be read.
        TypeError: it is something else.
        ValueError: an array of another shape, numbers that may mean anything, an address of another kind.
        ImportError: Pillow is not installed, which PIL images and arrays need.
    """
    if isinstance(source, str):
        if _ADDRESS.match(source) or _BASE64.fullmatch(source):
            return {"image": source}
        if not source or _OTHER_ADDRESS.match(source):
            raise ValueError(f"an image is a path, an http or https URL, a data URI or base64, not {source[:60]!r}")
    return {"image": base64.b64encode(_bytes(source)).decode()}


def _bytes(source: object) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(os.path.expanduser(source)).read_bytes()  # noqa: PTH111, since Path fails on ~tmp.jpg, a name
    if isinstance(source, PILImage | Array):  # a PIL image is both
        from .rgb import from_array, to_rgb  # which needs Pillow

        rgb = to_rgb(source) if isinstance(source, PILImage) else from_array(source)  # type: ignore[arg-type]
        buffer = io.BytesIO()
        rgb.save(buffer, "PNG")
        return buffer.getvalue()
    content = source.read() if isinstance(source, File) else None
    if not isinstance(content, bytes):
        opened = "; open it for reading bytes, 'rb'" if isinstance(content, str) else ""
        raise TypeError(
            "an image is a path, the bytes of a file, an open file, a PIL image or an array (H, W, 3) of uint8, not "
            f"{type(source).__name__}{opened}"
        )
    return content


def stored(id: str) -> dict[str, str]:
    """Return a stored point, of the collection of the request, as an item."""
    return {"id": id}


def root() -> dict[str, bool]:
    """Return the root as an item: the origin, which is more general than everything."""
    return {"root": True}


def point(embedding: Iterable[SupportsFloat]) -> dict[str, list[float]]:
    """Return a point as an item, by its space components: a list, an array or a tensor of them.

    Raises:
        TypeError: something else, such as several points, which `embed_text` returns.
    """
    shape = getattr(embedding, "shape", (1,))
    if isinstance(embedding, str | bytes | Mapping) or len(shape) != 1 or not isinstance(embedding, Iterable):
        came = f"shape {tuple(shape)}, of which x[0] is the first" if len(shape) > 1 else type(embedding).__name__
        raise TypeError(f"a point is one row of numbers, not {came}")
    return {"embedding": [float(x) for x in embedding]}


class Where(TypedDict, total=False):
    """Filters of a search; an absent field does not restrict it.

    `collection` is "default" if absent. Radii are distances from the origin. `filter` has a condition per metadata
    field: a value to equal, a list of values of which one must be equal, or bounds such as {"gte": 2020, "lt": 2024}.
    """

    collection: str
    modality: str | None
    filter: Mapping[str, Any] | None
    min_radius: float
    max_radius: float | None


class ConeRule(TypedDict):
    """A point entails what lies in its cone: at an angle of at most `eta` times its half aperture.

    The half aperture of x is asin(min(1, 2 · min_radius / (√curv · |x|))). `eta` is 1 if absent, `min_radius` 0.1.
    """

    form: Literal["cone"]
    eta: NotRequired[float]
    min_radius: NotRequired[float]


class PlaneRule(TypedDict):
    """A point entails what lies beyond it: `threshold` / √curv or more behind the plane through it across its ray.

    `threshold` is 0 if absent; more is stricter.
    """

    form: Literal["plane"]
    threshold: NotRequired[float]


Rule: TypeAlias = ConeRule | PlaneRule
"""The rule by which one point is more general than another."""


class Cone(Where, total=False):
    """Filters and order of a search for ancestors or descendants.

    `offset` is the number of hits to skip, for the next page. `rule` replaces the model's own, such as
    {"form": "plane", "threshold": 0.2} or {"form": "cone", "eta": 0.8}. `aperture_scale`, 1 if absent, multiplies the
    aperture of cones: below 1 is stricter. `reflexive` lets a point be its own ancestor. `order_by` puts the hits
    first that are deepest inside (the default), nearest, or most general.
    """

    offset: int
    rule: Rule | None
    aperture_scale: float
    reflexive: bool
    order_by: Literal["margin", "distance", "radius"]
