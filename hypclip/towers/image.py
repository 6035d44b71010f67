"""The image side: open_clip's evaluation transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor


def resize_and_crop(image_size: int) -> Callable[[Image.Image], Image.Image]:
    """Return the part of `evaluation_transform` that maps RGB images to RGB images: resize, then centre crop."""
    resize, crop, *_ = image_transform(image_size, is_train=False).transforms
    return lambda image: crop(resize(image))


def evaluation_transform(
    image_size: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """Return RGB image → (3, image_size, image_size) float32: shortest side resized, centre cropped, normalised."""
    transform: Callable[[Image.Image], Tensor] = image_transform(
        image_size, is_train=False, mean=tuple(mean), std=tuple(std)
    )
    return transform
