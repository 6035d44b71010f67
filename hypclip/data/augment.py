"""Cutting boxes out of pictures, and the random changes that training makes to what it sees."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from pydantic.dataclasses import dataclass
from torch import Tensor

from hypclip.config import STRICT_KEYS
from hypclip.data.record import Box

_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True, config=STRICT_KEYS)
class AugmentConfig:
    """Random changes to pictures; each is off by default but the crop of the published recipes.

    `crop_scale` and `crop_ratio` bound the area and the aspect of the random crop, `colour_jitter` is the strength of
    changes to brightness, contrast and saturation (hue turns by up to a quarter of it, in turns), `grey` and `flip` are
    probabilities.
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    colour_jitter: float = 0.0
    grey: float = 0.0
    flip: float = 0.0


class TrainingTransform:
    """RGB picture → (3, S, S) float32: randomly cropped, resized, flipped, recoloured, normalised.

    One resampling and one colour pass: cropping is part of resizing, and all colour changes are one 3 × 4 matrix. It
    does what RandomResizedCrop, ColorJitter and RandomGrayscale of torchvision do in a fraction of their time
    (tests/benchmarks/bench_data.py), which on the CPU is time taken from training.

    Args:
        image_size: S.
        config: see AugmentConfig.
        mean: pixel statistics in [0, 1].
        std: pixel statistics in [0, 1].
    """

    def __init__(self, image_size: int, config: AugmentConfig, mean: Sequence[float], std: Sequence[float]):
        self.image_size, self.config = image_size, config
        self._scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1)

    def __call__(self, image: Image.Image, rng: random.Random) -> Tensor:
        """Return the pixels; a pure function of the picture and the state of `rng`."""
        size = (self.image_size, self.image_size)
        view = image.resize(size, Image.Resampling.BICUBIC, box=self._crop(image.size, rng), reducing_gap=2.0)
        if rng.random() < self.config.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.config.colour_jitter or self.config.grey:
            view = view.convert("RGB", self._colours(rng))
        pixels = torch.from_numpy(np.asarray(view).copy()).permute(2, 0, 1)
        return torch.addcmul(self._shift, pixels.float(), self._scale)

    def _crop(self, size: tuple[int, int], rng: random.Random) -> tuple[float, float, float, float]:
        """Draw area and aspect of a crop, and its place; the whole picture when ten draws do not fit."""
        width, height = size
        low, high = (math.log(r) for r in self.config.crop_ratio)
        for _ in range(10):
            area = width * height * rng.uniform(*self.config.crop_scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if 1 <= w <= width and 1 <= h <= height:
                left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return left, top, left + w, top + h
        return 0.0, 0.0, float(width), float(height)

    def _colours(self, rng: random.Random) -> tuple[float, ...]:
        """Draw a matrix (3 × 4, row by row) that changes brightness, contrast, saturation and hue at once."""
        strength = self.config.colour_jitter
        brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - strength), 1 + strength) for _ in range(3))
        turn = 2 * math.pi * rng.uniform(-strength / 4, strength / 4)
        if rng.random() < self.config.grey:
            saturation = 0.0
        rotation = np.eye(3)
        rotation[1:, 1:] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        rotation[1:] *= saturation
        matrix = brightness * contrast * (_FROM_YIQ @ rotation @ _TO_YIQ)
        offset = np.full((3, 1), brightness * (1 - contrast) * 127.5)
        return tuple(np.hstack([matrix, offset]).ravel().tolist())


def crop_box(image: Image.Image, box: Box, margin: float = 0.0) -> Image.Image:
    """Cut a box out of a picture: a square on its longer side, widened by `margin`, moved inside where it sticks out.

    A square keeps the proportions of what is in it; where the picture itself is narrower, the cut is as wide as it is.
    """
    side = max(1, round(max((box.x1 - box.x0) * image.width, (box.y1 - box.y0) * image.height) * (1 + margin)))
    width, height = min(side, image.width), min(side, image.height)
    left = min(max(0, round((box.x0 + box.x1) / 2 * image.width - width / 2)), image.width - width)
    top = min(max(0, round((box.y0 + box.y1) / 2 * image.height - height / 2)), image.height - height)
    return image.crop((left, top, left + width, top + height))
