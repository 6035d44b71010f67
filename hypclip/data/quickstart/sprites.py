"""Drawings ready to be pasted at any size, turned and mirrored: cut to their outline and premultiplied."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypclip.data.quickstart.art import tiles

_FAINT = 8
"""Alpha up to this is invisible fringe: it is no part of a drawing's outline."""


class Sprite:
    """One drawing.

    Args:
        tile: RGBA.
    """

    def __init__(self, tile: Image.Image):
        seen = np.asarray(tile.getchannel("A")) > _FAINT
        rows = np.flatnonzero(seen.any(1))
        left = seen.argmax(1)[rows]
        right = seen.shape[1] - seen[:, ::-1].argmax(1)[rows]
        box = int(left.min()), int(rows[0]), int(right.max()), int(rows[-1]) + 1
        self.image = tile.convert("RGBa").crop(box)
        # The outermost corners of each row of pixels, seen from the centre: turning them turns the bounding box.
        xs = np.concatenate((left, left, right, right)) - (box[0] + box[2]) / 2
        ys = np.concatenate((rows, rows + 1, rows, rows + 1)) - (box[1] + box[3]) / 2
        self._corners: NDArray[np.float64] = np.stack((xs, ys))
        self._levels: dict[int, Image.Image] = {}

    def draw(self, longest: float, angle: float, mirrored: bool) -> Image.Image:
        """Return the drawing in mode RGBa, cut to its outline.

        Args:
            longest: the longer of width and height in pixels; neither gets below 4.
            angle: clockwise turn in degrees, after mirroring.
            mirrored: swap left and right.
        """
        if not angle:
            width, height = _fit(float(self.image.width), float(self.image.height), longest)
            upright = self.image.resize((width, height), Image.Resampling.BILINEAR)
            return upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else upright
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        flip = -1 if mirrored else 1
        turned = np.array(((flip * cos, -sin), (flip * sin, cos))) @ self._corners
        left, top = turned.min(1).tolist()
        right, bottom = turned.max(1).tolist()
        width, height = _fit(right - left, bottom - top, longest)
        # From pixels of the result back to those of a level so little larger that nothing is left out in between.
        x_step, y_step = (right - left) / width, (bottom - top) / height
        level, x_size, y_size = self._level(max(x_step, y_step))
        x_centre, y_centre = level.width / 2, level.height / 2
        return level.transform(
            (width, height),
            Image.Transform.AFFINE,
            (
                flip * x_size * cos * x_step, flip * x_size * sin * y_step,
                x_centre + flip * x_size * (left * cos + top * sin),
                -y_size * sin * x_step, y_size * cos * y_step,
                y_centre + y_size * (top * cos - left * sin),
            ),
            Image.Resampling.BILINEAR,
        )  # fmt: skip

    def _level(self, step: float) -> tuple[Image.Image, float, float]:
        """Return the drawing at 1/`step` of its size, or up to √2 times that, in a clear border; and its scale."""
        power = max(0, math.floor(2 * math.log2(step)))
        width, height = (max(1, round(s * 2 ** (-power / 2))) for s in self.image.size)
        if power not in self._levels:
            self._levels[power] = Image.new("RGBa", (width + 2, height + 2))
            self._levels[power].paste(self.image.resize((width, height), Image.Resampling.HAMMING), (1, 1))
        return self._levels[power], width / self.image.width, height / self.image.height


def _fit(width: float, height: float, longest: float) -> tuple[int, int]:
    scale = longest / max(width, height)
    return max(4, round(width * scale)), max(4, round(height * scale))


@functools.cache
def sprites(style: str) -> tuple[Sprite | None, ...]:
    """Return the drawings of a style, one per concept, None where the style lacks it."""
    return tuple(None if tile is None else Sprite(tile) for tile in tiles(style))
