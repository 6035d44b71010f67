"""From the string a client sent to an image, without trusting anything about it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from hypclip.client.rgb import to_rgb
from serve.errors import InvalidImage, LimitExceeded
from serve.inputs.data_uri import base64_of, from_base64, kind_of
from serve.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The formats that are read. Pillow knows fifty more, some of which run other programs or have a history of holes."""

_NAMES = ", ".join(FORMATS)
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(value: str) -> bool:
    """Whether an image is given by its address."""
    return _URL.match(value) is not None


def open_images(values: Sequence[str | bytes], settings: Settings) -> list[Image.Image]:
    """Read the headers of images given as base64, data URIs or files; nothing is decoded yet.

    Raises:
        InvalidImage: not base64, a URL, or another format.
        LimitExceeded: too many bytes or pixels, or too elongated.
    """
    opened = [_open(_bytes(value, settings), settings) for value in values]
    pixels = sum(image.width * image.height for image in opened)
    if pixels > settings.max_request_pixels:
        raise LimitExceeded(
            "the number of pixels of all images together", pixels, settings.max_request_pixels, "max_request_pixels"
        )
    return opened


def decode(image: Image.Image) -> Image.Image:
    """Decode an image of `open_images`: RGB, first frame, turned upright, transparency on white.

    Raises:
        InvalidImage: it is damaged.
    """
    try:
        image.load()
        return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's readers raise a dozen kinds of errors on damaged files: OSError, SyntaxError, struct.error, ...
        raise _damaged(error) from error


def _bytes(value: str | bytes, settings: Settings) -> bytes:
    if isinstance(value, bytes):
        return _bounded(value, settings)
    if is_url(value):
        raise InvalidImage("this image is given by a URL, which is not fetched here")
    content = base64_of(value)
    if isinstance(content, bytes):
        return _bounded(content, settings)
    content = "".join(content.split())
    limit = settings.max_image_bytes
    if len(content) // 4 * 3 > limit + 2:
        raise LimitExceeded("the size of an image in bytes", len(content) // 4 * 3, limit, "max_image_bytes")
    return _bounded(from_base64(content), settings)


def _bounded(data: bytes, settings: Settings) -> bytes:
    if len(data) > settings.max_image_bytes:
        raise LimitExceeded("the size of an image in bytes", len(data), settings.max_image_bytes, "max_image_bytes")
    return data


def _open(data: bytes, settings: Settings) -> Image.Image:
    if not data:
        raise InvalidImage("an image is empty: it has 0 bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        kind = kind_of(data)
        begins = "" if kind in (None, "an image") else f" (it begins as {kind} does)"
        raise InvalidImage(f"an image is of an unknown format or damaged{begins}; {_NAMES} are read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limit, above any that ours can be set to.
        raise LimitExceeded(
            "the number of pixels of an image", None, settings.max_image_pixels, "max_image_pixels"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(error) from error
    pixels = image.width * image.height
    if pixels > settings.max_image_pixels:
        raise LimitExceeded("the number of pixels of an image", pixels, settings.max_image_pixels, "max_image_pixels")
    aspect = max(image.size) / max(1, min(image.size))
    if aspect > settings.max_image_aspect:
        raise LimitExceeded(
            "the longest side of an image over its shortest",
            round(aspect, 1),
            settings.max_image_aspect,
            "max_image_aspect",
        )
    return image


def _damaged(error: Exception) -> InvalidImage:
    return InvalidImage(f"an image is damaged or cut short: {error}")
