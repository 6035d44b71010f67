"""Images of any mode as a person sees them: the one place where it is said what their numbers mean.

The whole of hypclip reads images through here. It lies in this folder because the folder must work by itself: it
imports Pillow and nothing else.
"""

from __future__ import annotations

import array
import math
from typing import Any

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation. ImageOps.exif_transpose also rewrites the tags, which fails where it cannot."""

_EIGHT_BITS, _SIXTEEN_BITS = 2**8 - 1, 2**16 - 1
_SIXTEEN_BIT_FILES = {"PNG", "PPM"}
"""Formats whose readers give mode I for 16 bits."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as a person sees it, in RGB: turned by its EXIF tag, transparency on white.

    Of several frames it is the one that the image stands at, the first where it was just opened.

    Every mode of Pillow is read. 16 bits are scaled to 8. Mode I is 8 bits where no pixel is over 255 and its file does
    not say that it has 16, else 16 bits. Mode F is 0 to 1 where no pixel is over 2, else 0 to 255 where none is over
    510, else 0 to 65535; what resizing adds at both ends is cut off. Nothing of the file but its pixels is kept.

    Raises:
        ValueError: whole numbers or floats that are no image, such as heights: negative, NaN or too large. No pixels
            at all. Or the file was closed before its pixels were read.
        Exception: almost any, where the file is damaged.
    """
    if getattr(image, "tile", None) and getattr(image, "fp", image) is None:
        raise ValueError("the file of this image was closed before its pixels were read; call load() first")
    if 0 in image.size:
        raise ValueError(f"an image of {image.width} × {image.height} has no pixels")
    image.load()
    turn = _UPRIGHT.get(orientation(image))
    form = image.format
    if turn is not None:
        transparency = image.info.get("transparency")
        image = image.transpose(turn)
        image.info = {} if transparency is None else {"transparency": transparency}
    rgb = _opaque(image, form)
    rgb.info = {}  # or the tag would turn it again the next time
    return rgb


def from_array(pixels: Any) -> Image.Image:
    """Return an array of whole numbers as an image in RGB, as `to_rgb` does.

    Shapes are (H, W, 3) and (H, W, 4) with uint8, (H, W) and (H, W, 1) with uint8, uint16 or bool.

    Args:
        pixels: an array of numpy's, or anything with its `__array_interface__`.

    Raises:
        TypeError: no array.
        ValueError: other shapes or kinds of numbers, whose meaning is not plain.
    """
    try:
        interface = pixels.__array_interface__
        shape, kind = tuple(interface["shape"]), interface["typestr"][1:]
    except (AttributeError, KeyError, TypeError) as error:
        raise TypeError(f"expected an array, came {type(pixels).__name__}") from error
    if 0 in shape:
        raise ValueError(f"an array of shape {shape} has no pixels")
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
        raise ValueError(
            f"an array of shape {shape} has its colours first; bring it to (H, W, 3): x.transpose(1, 2, 0)"
        )
    if len(shape) == 3 and shape[2] == 1:
        pixels, shape = pixels[:, :, 0], shape[:2]
    grey = len(shape) == 2
    if not grey and not (len(shape) == 3 and shape[2] in (3, 4)):
        raise ValueError(f"an image is an array of shape (H, W), (H, W, 3) or (H, W, 4), not {shape}")
    if kind != "u1" and not (grey and kind in ("u2", "b1")):
        named = getattr(pixels, "dtype", kind)
        scaled = "; of floats from 0 to 1 make them by (255 * x).round().astype('uint8')" if kind[0] == "f" else ""
        raise ValueError(f"the numbers of an image are uint8, of a grey one also uint16, not {named}{scaled}")
    return to_rgb(Image.fromarray(pixels))


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where the tags cannot be read, as in viewers."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # SyntaxError, struct.error, …, by how the tags are damaged
        return 1
    if isinstance(found, bytes) and len(found) == 1:  # written as a byte, where the standard has a short
        found = found[0]
    return found if found in _UPRIGHT else 1


def _opaque(image: Image.Image, form: str | None) -> Image.Image:
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _eight_bits(image, form).convert("RGB")
    if mode in ("La", "RGBa"):  # multiplied by their alpha
        image = image.convert(f"{mode[:-1]}A")
    if image.has_transparency_data:
        if mode != "P" and isinstance(image.info.get("transparency"), bytes):  # left over from a palette
            image = image.copy()
            del image.info["transparency"]
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, (0, 0), image)
        return ground
    return image.convert("RGB")


def _eight_bits(image: Image.Image, form: str | None) -> Image.Image:
    """Return grey pixels of more than 8 bits in mode L."""
    if image.mode == "F":
        low, high = _range(image)
        full = next((one for one in (1, _EIGHT_BITS, _SIXTEEN_BITS) if high <= 2 * one), None)
        if full is None or low < -max(high, 1) / 4:
            raise ValueError(_no_image("F", low, high))
        if full < _SIXTEEN_BITS:
            scale = _EIGHT_BITS / full
            return image.point(lambda value: value * scale + 0.5).convert("L")
        image = image.convert("I")
    elif image.mode == "I":
        low, high = _range(image)
        if low < 0 or high > _SIXTEEN_BITS:
            raise ValueError(_no_image("I", low, high))
        if high <= _EIGHT_BITS and form not in _SIXTEEN_BIT_FILES:
            return image.convert("L")
    else:
        image = image.convert("I")
    return image.point(lambda value: value / 257).convert("L")


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = image.getextrema()
    # The extrema pass over NaN but where it comes first.
    if image.mode == "F" and not math.isfinite(sum(array.array("f", image.tobytes()))):
        raise ValueError("an image of mode F has pixels that are NaN or infinite")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    return float(low), float(high)


def _no_image(mode: str, low: float, high: float) -> str:
    return (
        f"the pixels of mode {mode} go from {low:g} to {high:g}, which may mean anything; bring them to 0 to 255, or "
        "whole numbers to 0 to 65535"
    )
