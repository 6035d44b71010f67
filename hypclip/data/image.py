"""Images of any mode as a person sees them, and as numbers."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hypclip.client.rgb import orientation as exif_orientation
from hypclip.client.rgb import to_rgb


def to_pixels(image: Image.Image) -> UInt8[Tensor, "3 height width"]:
    """Return the pixels of an RGB image, channels-last, as decoders leave them."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def decode(data: bytes) -> UInt8[Tensor, "3 height width"]:
    """Return the pixels of a file as `to_rgb` shows its image, channels-last.

    A JPEG goes through torchcodec, which takes two thirds of Pillow's time to the same pixels and tells of slight
    damage on stderr; what it cannot decode, damaged or rare, is left to Pillow.

    Args:
        data: the file.

    Raises:
        Exception: almost any, as decoders meet damaged bytes.
    """
    with Image.open(io.BytesIO(data)) as image:  # which refuses one so large that it would fill the memory
        decode_jpeg = _jpeg_decoder()
        # What is turned is left to Pillow too: it alone looks into XMP, and reads an orientation of any type.
        if decode_jpeg is not None and image.format == "JPEG" and exif_orientation(image) == 1:
            with contextlib.suppress(RuntimeError):
                return decode_jpeg(data)
        return to_pixels(to_rgb(image))


def orientation(data: bytes) -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation of a file, 1 to 8, and the width and height of its pixels as they are stored.

    1 and (0, 0) where the file says nothing of an orientation or cannot be read.
    """
    # Few files have any, and to open one takes longer than to look for the marks of what may tell.
    if not any(mark in data for mark in _MARKS_OF_EXIF):
        return 1, (0, 0)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "PNG":
                image.load()  # it may stand behind the pixels
            turn, size = exif_orientation(image), image.size
    except Exception:  # damaged bytes make readers raise almost anything; decoding says what is wrong
        return 1, (0, 0)
    # Of a TIFF Pillow gives the size of the image as it is shown.
    return turn, size[::-1] if image.format == "TIFF" and turn >= 5 else size


_MARKS_OF_EXIF = (b"Exif", b"eXIf", b"EXIF", b"tiff:Orientation", b"II*\0", b"MM\0*")


def upright(turn: int, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    """Return a box of the image as it is stored as one of the image as it is shown.

    Args:
        turn: EXIF orientation, 1 to 8.
        x0, y0, x1, y1: corners as fractions of width and height, as the result.
    """
    if turn >= 5:  # the sides change places
        x0, y0, x1, y1 = y0, x0, y1, x1
    if turn in (2, 3, 6, 7):
        x0, x1 = 1 - x1, 1 - x0
    if turn in (3, 4, 7, 8):
        y0, y1 = 1 - y1, 1 - y0
    return x0, y0, x1, y1


@functools.cache
def _jpeg_decoder() -> Callable[[bytes], Tensor] | None:
    """Return torchcodec's, or None where its libraries are for another build of torch, such as one without CUDA."""
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError):
        return None
    found: Callable[[bytes], Tensor] = decode_jpeg
    return found


class Normaliser:
    """Pixels of 0 to 255 → float32 of mean 0 and standard deviation 1, in the same order in memory.

    Training does this on the device of the towers: an image is uint8 until there, which takes a quarter of the memory
    and of the transfer.

    Args:
        mean: pixel statistics in [0, 1].
        std: pixel statistics in [0, 1].
        device: of the pixels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | None = None):
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(3, 1, 1)

    def __call__(self, pixels: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
        """Return the normalised pixels."""
        numbers = pixels.float()
        return torch.addcmul(self._shift, numbers, self._scale, out=numbers)
