"""Points in two dimensions by radius and direction, and models whose phrases lie at such points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypclip.geometry.entailment import Plane
from tests.support.data import KnownModel

Place = tuple[float, float, float]
"""ρ, and a direction of any length."""

TREE = [
    ("a dog", "an animal"),
    ("a cat", "an animal"),
    ("a poodle", "a dog"),
    ("a pug", "a dog"),
    ("a lion", "a cat"),
    ("a rose", "a plant"),
    ("a tea rose", "a rose"),
]
"""Two roots, three kinds and four names."""

_AT_40 = (math.cos(math.radians(40)), math.sin(math.radians(40)))
PERFECT: dict[str, Place] = {
    "an animal": (0.5, 1, 0),
    "a plant": (0.5, -1, 0),
    "a dog": (1, *_AT_40),
    "a cat": (1, _AT_40[0], -_AT_40[1]),
    "a rose": (1, -1, 0),
    "a poodle": (2, *_AT_40),
    "a pug": (2.5, *_AT_40),
    "a lion": (2, _AT_40[0], -_AT_40[1]),
    "a tea rose": (3, -1, 0),
}
"""Places at which each half-space of the tree holds what is below it, and nothing else."""


def at(place: Place, curv: float = 1.0) -> tuple[float, float]:
    rho, x, y = place
    length = math.sinh(rho) / math.sqrt(curv) / math.hypot(x, y)
    return length * x, length * y


def model_at(
    texts: Mapping[str, Place],
    images: Mapping[tuple[int, int, int], Place] | None = None,
    curv: float = 1.0,
    **settings: Any,
) -> KnownModel:
    """Return a model whose texts and pictures are at given places, and that entails by half-spaces unless told."""
    places = ({key: at(place, curv) for key, place in given.items()} for given in (texts, images or {}))
    return KnownModel(*places, curv, **{"entailment": Plane(), **settings})
