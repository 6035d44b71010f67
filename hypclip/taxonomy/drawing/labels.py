"""Names on a picture: what they show, how wide they are, and where they do not touch each other."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from PIL import ImageFont

MOST_LETTERS = 26
_WIDER = 1.08
"""How much wider than that of Pillow the font of a viewer may be."""
_KEPT = frozenset("\u200c\u200d")
"""Characters that join or part others without a sign of their own, which scripts and emoji need."""


class Label(NamedTuple):
    """A name in a picture, in pixels.

    `x`, `y` is the middle of its height at its anchor; `turn` is in degrees, clockwise.
    """

    text: str
    x: float
    y: float
    size: float
    anchor: str
    turn: float = 0.0


def shown(name: str, most: int = MOST_LETTERS) -> str:
    """Return a name as one short line: what controls, hides or turns text, and what XML cannot hold, as U+FFFD."""
    plain = "".join("\ufffd" if _is_odd(letter) else letter for letter in " ".join(name.split()))
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def _is_odd(letter: str) -> bool:
    hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter not in _KEPT
    return hidden or letter in "\ufffe\uffff"


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(100)


@functools.lru_cache(maxsize=100_000)
def _units(text: str) -> float:
    return float(_font().getlength(text)) / 100 * _WIDER


def width(text: str, size: float) -> float:
    """Return how wide a text is, in pixels, about."""
    return _units(text) * size


class Room:
    """The picture as far as it is taken: labels, and dots that no label may cover.

    Args:
        side: of the picture, in pixels; its top left corner is (0, 0).
    """

    def __init__(self, side: int):
        self._side = side
        self._taken: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def take(self, x: float, y: float, radius: float) -> None:
        """Take a disk."""
        self._taken.setdefault((int(x // _CELL), int(y // _CELL)), []).append((x, y, radius))

    def first_free(self, labels: Iterable[Label]) -> Label | None:
        """Take the place of the first label that has room, and return it; None where none has."""
        for label in labels:
            disks = list(_disks(label))
            if all(self._is_free(*disk) for disk in disks):
                for disk in disks:
                    self.take(*disk)
                return label
        return None

    def _is_free(self, x: float, y: float, radius: float) -> bool:
        if not (radius <= x <= self._side - radius and radius <= y <= self._side - radius):
            return False
        column, row = int(x // _CELL), int(y // _CELL)
        near = (self._taken.get((column + i, row + j), ()) for i in (-1, 0, 1) for j in (-1, 0, 1))
        return all(math.hypot(x - a, y - b) >= radius + r for disks in near for a, b, r in disks)


_CELL = 40.0
"""Side of the squares by which disks are found: at least twice the largest radius."""


def _disks(label: Label) -> Iterator[tuple[float, float, float]]:
    """Yield disks along a label that cover it, so that one that is turned needs no other test."""
    radius = 0.52 * label.size
    length = max(0.0, width(label.text, label.size) - 2 * radius)
    start = {"start": radius, "middle": -length / 2, "end": -length - radius}[label.anchor]
    cos, sin = math.cos(math.radians(label.turn)), math.sin(math.radians(label.turn))
    count = max(1, math.ceil(length / (1.2 * radius)))
    for i in range(count + 1):
        along = start + length * i / count
        yield label.x + along * cos, label.y + along * sin, radius
