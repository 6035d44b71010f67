"""Cutting boxes out of images, and the random augmentation of training images."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from jaxtyping import UInt8
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from hypclip.config import STRICT_KEYS
from hypclip.data.record import Box

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, config=STRICT_KEYS)
class AugmentConfig:
    """Random changes to images; each is off by default but the crop of the published recipes.

    Args:
        crop_scale: bounds of the area of the crop, as a share of the image's.
        crop_ratio: bounds of its width over its height.
        colour_jitter: strength of changes to brightness, contrast and saturation; hue turns by up to a quarter of it,
            in turns.
        grey: probability of an image without colours.
        flip: probability of a mirrored one.
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    colour_jitter: float = 0.0
    grey: float = 0.0
    flip: float = 0.0


class TrainingTransform:
    """Pixels of an image → (3, S, S) of 0 to 255: randomly cropped, resized, flipped, recoloured.

    One resampling and one colour pass: cropping is a view, and all colour changes are one 3 × 4 matrix. Images stay
    uint8 and channels-last, which torch resizes fastest, with the anti-aliasing of Pillow. It replaces
    RandomResizedCrop, ColorJitter and RandomGrayscale of torchvision in a fraction of their time
    (tests/benchmarks/bench_data.py), which on the CPU is time taken from training.

    Args:
        image_size: S.
        config: see AugmentConfig.
    """

    def __init__(self, image_size: int, config: AugmentConfig):
        self.image_size, self.config = image_size, config

    def __call__(self, pixels: UInt8[Tensor, "3 height width"], rng: random.Random) -> UInt8[Tensor, "3 s s"]:
        """Return the changed pixels; a pure function of the image and the state of `rng`."""
        left, top, right, bottom = self._crop((pixels.shape[2], pixels.shape[1]), rng)
        size = (self.image_size, self.image_size)
        cut = pixels[:, top:bottom, left:right].permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        view = nn.functional.interpolate(cut, size, mode="bicubic", antialias=True)[0]
        if rng.random() < self.config.flip:
            view = view.flip(2)
        if self.config.colour_jitter or self.config.grey:
            matrix, offset = self._colours(rng)
            changed = nn.functional.conv2d(view[None].float(), matrix.view(3, 3, 1, 1), offset)[0]
            view = changed.round_().clamp_(0, 255).to(torch.uint8)
        return view

    def _crop(self, size: tuple[int, int], rng: random.Random) -> tuple[int, int, int, int]:
        """Draw area and aspect of a crop, and its place, in whole pixels; all of it when ten draws do not fit."""
        width, height = size
        low, high = (math.log(r) for r in self.config.crop_ratio)
        for _ in range(10):
            area = width * height * rng.uniform(*self.config.crop_scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if 1 <= w <= width and 1 <= h <= height:
                left, top = round(rng.uniform(0, width - w)), round(rng.uniform(0, height - h))
                return left, top, min(left + round(w), width), min(top + round(h), height)
        return 0, 0, width, height

    def _colours(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Draw a matrix (3, 3) and an offset (3,) that change brightness, contrast, saturation and hue at once."""
        strength = self.config.colour_jitter
        brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - strength), 1 + strength) for _ in range(3))
        turn = 2 * math.pi * rng.uniform(-strength / 4, strength / 4)
        if rng.random() < self.config.grey:
            saturation = 0.0
        rotation = np.eye(3)
        rotation[1:, 1:] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        rotation[1:] *= saturation
        matrix = brightness * contrast * (_FROM_YIQ @ rotation @ _TO_YIQ)
        return torch.tensor(matrix, dtype=torch.float32), torch.full((3,), brightness * (1 - contrast) * 127.5)


def crop_box(
    pixels: UInt8[Tensor, "3 height width"], box: Box, margin: float = 0.0
) -> UInt8[Tensor, "3 new_height new_width"]:
    """Cut a box out of an image: a square on its longer side, widened by `margin`, moved inside where it sticks out.

    A square keeps the proportions of what is in it; where the image itself is narrower, the cut is as wide as it is.
    """
    _, image_height, image_width = pixels.shape
    side = max(1, round(max((box.x1 - box.x0) * image_width, (box.y1 - box.y0) * image_height) * (1 + margin)))
    width, height = min(side, image_width), min(side, image_height)
    left = min(max(0, round((box.x0 + box.x1) / 2 * image_width - width / 2)), image_width - width)
    top = min(max(0, round((box.y0 + box.y1) / 2 * image_height - height / 2)), image_height - height)
    return pixels[:, top : top + height, left : left + width]
