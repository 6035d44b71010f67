"""Validation of texts and images from callers: taken where the meaning is plain, else refused by type and position."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypclip.client.rgb import from_array, to_rgb
from hypclip.errors import DataError, InputError

T = TypeVar("T")

ImageLike: TypeAlias = Image.Image | str | os.PathLike[str] | bytes | NDArray[Any]
"""A PIL image, the path of a file, the bytes of one, or an array (H, W, 3) of uint8; see `from_array` for others."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\-\s]{200,}")
_SHOWN = 60


def texts_of(texts: Iterable[Any]) -> Iterator[str]:
    """Yield the texts of a list, a generator, or an array or a column of one dimension.

    Raises:
        InputError: one string, what has no order or is no iterable, or something else than a string in it.
    """
    if isinstance(texts, str):
        raise InputError(f"embed_text takes a list of strings, got the string {texts[:40]!r}: put it in a list")
    for index, text in enumerate(_in_order(texts, "embed_text takes a list of strings")):
        if not isinstance(text, str):
            raise InputError(f"texts[{index}] must be a string, got {shown(text)}{_advice(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"texts[{index}] is not valid Unicode: {shown(text)}") from error
        yield str(text)


def images_of(images: ImageLike | Iterable[Any]) -> Iterator[Image.Image]:
    """Yield images in RGB: a single one, or the images of a list, a generator or an array (N, H, W, 3) of uint8.

    Raises:
        InputError: something that is no image, or whose meaning is not plain.
        DataError: a file, or the bytes of one, cannot be read.
    """
    if isinstance(images, Image.Image | str | os.PathLike | bytes | bytearray | memoryview | io.IOBase) or (
        isinstance(images, np.ndarray) and images.dtype != object and images.ndim in (2, 3)
    ):
        yield _image(images, "the image")
        return
    whole = "embed_image takes an image, or a list of images"
    for index, image in enumerate(_in_order(images, whole, most_dimensions=4)):
        yield _image(image, f"images[{index}]")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield `size` items at a time, the last time the rest.

    Raises:
        InputError: a size below 1.
    """
    if not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, got {size!r}")
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _in_order(items: Iterable[Any], expected: str, most_dimensions: int = 1) -> Iterable[Any]:
    """Refuse what would be gone through in another way than was meant, such as the column names of a table."""
    dimensions = getattr(items, "ndim", 1)
    if isinstance(items, bytes | Mapping | Set) or not isinstance(items, Iterable):
        raise InputError(f"{expected}, got {shown(items)}")
    if dimensions != 1 and not (dimensions == most_dimensions and isinstance(items, np.ndarray)):
        shape = tuple(getattr(items, "shape", ()))
        raise InputError(f"{expected}, got {type(items).__name__} of shape {shape}{_advice(items)}")
    return items


def _image(given: Any, place: str) -> Image.Image:
    match given:
        case Image.Image():
            return _of_pillow(given, place)
        case str() | os.PathLike():
            return _of_file(given, place)
        case bytes() | bytearray() | memoryview():
            return _opened(io.BytesIO(given), f"{place}, {len(given):,} bytes,")
        case io.TextIOBase():
            raise InputError(f"{place} is a file that is open for reading text: open it with mode 'rb'")
        case io.IOBase():
            return _opened(given, f"{place}, a file,")
        case np.ndarray():
            try:
                return from_array(given)
            except ValueError as error:
                raise InputError(f"{place}: {error}") from error
        case _:
            raise InputError(
                f"{place} must be a PIL image, a path, the bytes of a file or an array (H, W, 3) of uint8, "
                f"got {shown(given)}{_advice(given)}"
            )


def _of_pillow(image: Image.Image, place: str) -> Image.Image:
    try:
        return to_rgb(image)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from error
    except Exception as error:  # of its file, which is the caller's
        error.add_note(place)
        raise


def _of_file(path: str | os.PathLike[str], place: str) -> Image.Image:
    if isinstance(path, str) and _ADDRESS.match(path):
        raise InputError(f"{place} is an address, not a path: {shown(path)}; fetch it, and give the bytes")
    file = Path(os.path.expanduser(path))  # noqa: PTH111, since Path fails on ~tmp.jpg, which is a name
    if not os.path.isfile(file):  # noqa: PTH113, since Path fails on what is too long for a name, such as base64
        if _BASE64.fullmatch(str(path)):
            raise InputError(f"{place} is no path but base64, {shown(path)}: give the bytes, base64.b64decode(text)")
        raise DataError(f"{place}: there is no file {str(path)[:300]!r}")
    with file.open("rb") as stream:
        return _opened(stream, f"{place}, {str(path)!r},")


def _opened(stream: Any, named: str) -> Image.Image:
    try:
        with Image.open(stream) as image:
            return to_rgb(image)
    except Exception as error:  # damaged bytes make decoders raise almost anything, such as struct.error
        raise DataError(f"{named} cannot be read as an image: {error}") from error


def shown(value: object) -> str:
    """Return a value for a message: its type, and its beginning."""
    if value is None:
        return "None"
    written = repr(value)
    return f"{type(value).__name__} {written[:_SHOWN]}{'…' if len(written) > _SHOWN else ''}"


def _advice(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ": leave missing values out, or fill them"
    if isinstance(value, bytes):
        return ": decode it"
    if type(value).__module__.startswith("torch"):
        return ": of a tensor (3, H, W) of uint8 make an array by x.permute(1, 2, 0).numpy()"
    return ""
