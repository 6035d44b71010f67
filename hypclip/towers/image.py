"""The image side: turning pictures of any mode into pixels, and the evaluation transform of open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from open_clip.transform import image_transform
from PIL import Image, ImageOps
from torch import Tensor


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a person sees it, in RGB: turned by its EXIF tag, first frame, transparency on white.

    CMYK, palette, grey and 16-bit pictures are converted.
    """
    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, (0, 0), image)
        return ground
    if image.mode.startswith("I;16") or image.mode == "I":
        return image.point(lambda value: value / 257).convert("L").convert("RGB")
    return image.convert("RGB")


def evaluation_transform(
    image_size: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """Return RGB picture → (3, image_size, image_size) float32: shortest side resized, centre cropped, normalised."""
    transform: Callable[[Image.Image], Tensor] = image_transform(
        image_size, is_train=False, mean=tuple(mean), std=tuple(std)
    )
    return transform
