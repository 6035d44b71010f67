"""Cutting boxes out of pictures, and the random changes that training makes to what it sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from hypclip.config import STRICT_KEYS
from hypclip.data.record import Box


@dataclass(frozen=True, config=STRICT_KEYS)
class AugmentConfig:
    """Random changes to pictures; each is off by default but the crop of the published recipes.

    `crop_scale` and `crop_ratio` bound the area and the aspect of the random crop, `colour_jitter` is the strength of
    changes to brightness, contrast and saturation (hue takes a quarter of it), `grey` and `flip` are probabilities.
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    colour_jitter: float = 0.0
    grey: float = 0.0
    flip: float = 0.0


def training_transform(
    image_size: int, config: AugmentConfig, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image], Tensor]:
    """Return RGB picture → (3, image_size, image_size) float32, randomly cropped, changed and normalised.

    Draws from torch's global generator, which the caller seeds.
    """
    steps: list[Callable[..., object]] = [
        v2.RandomResizedCrop(
            image_size, scale=config.crop_scale, ratio=config.crop_ratio, interpolation=InterpolationMode.BICUBIC
        )
    ]
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if strength := config.colour_jitter:
        steps.append(v2.ColorJitter(strength, strength, strength, strength / 4))
    if config.grey:
        steps.append(v2.RandomGrayscale(config.grey))
    steps += [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std), inplace=True),
    ]
    transform: Callable[[Image.Image], Tensor] = v2.Compose(steps)
    return transform


def crop_box(image: Image.Image, box: Box, margin: float = 0.0) -> Image.Image:
    """Cut a box out of a picture: a square on its longer side, widened by `margin`, moved inside where it sticks out.

    A square keeps the proportions of what is in it; where the picture itself is narrower, the cut is as wide as it is.
    """
    side = max((box.x1 - box.x0) * image.width, (box.y1 - box.y0) * image.height) * (1 + margin)
    width, height = min(side, image.width), min(side, image.height)
    left = min(max(0.0, (box.x0 + box.x1) / 2 * image.width - width / 2), image.width - width)
    top = min(max(0.0, (box.y0 + box.y1) / 2 * image.height - height / 2), image.height - height)
    right, bottom = max(left + width, left + 1), max(top + height, top + 1)
    return image.crop((round(left), round(top), max(round(right), round(left) + 1), max(round(bottom), round(top) + 1)))
