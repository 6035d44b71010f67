"""Recipes as data: which pairs to contrast, which pairs to order, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, build
from hypclip.errors import ConfigError
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.similarity import Geometry
from hypclip.roles import Role


@dataclass(frozen=True, config=STRICT_KEYS)
class Contrast:
    """Cross-entropy of each query over all keys of the batch, its own sample's key being right."""

    query: Role
    key: Role
    weight: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.query == self.key:
            raise ConfigError(f"a contrast needs two roles, got {self.query!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Edge:
    """`general` entails `specific`: mean max(0, φ(general, specific) − eta · ω(general))."""

    general: Role
    specific: Role
    eta: PositiveFloat = 1.0
    weight: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.general == self.specific:
            raise ConfigError(f"an edge needs two roles, got {self.general!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Recipe:
    """A training objective.

    With `skip_duplicates`, rows that show or say the same as the right answer are no negatives of it: a batch of short
    phrases has many ("a dog" and "a dog"). The published recipes count them as negatives.
    """

    geometry: Geometry
    contrast: tuple[Contrast, ...]
    edges: tuple[Edge, ...] = ()
    min_radius: PositiveFloat = MIN_RADIUS
    skip_duplicates: bool = False

    def __post_init__(self) -> None:
        if not self.contrast:
            raise ConfigError("contrast is empty: a recipe must contrast at least one pair")
        if self.geometry == "sphere" and self.edges:
            raise ConfigError("edges need the lorentz geometry: the sphere has no cones")

    @property
    def roles(self) -> frozenset[Role]:
        """Every role that a batch must have."""
        return frozenset(r for c in self.contrast for r in (c.query, c.key)) | frozenset(
            r for e in self.edges for r in (e.general, e.specific)
        )


def _symmetric(a: Role, b: Role, weight: float) -> tuple[Contrast, Contrast]:
    return Contrast(a, b, weight), Contrast(b, a, weight)


RECIPES: Mapping[str, Recipe] = {
    # Radford et al. 2021, arXiv:2103.00020
    "clip": Recipe(geometry="sphere", contrast=_symmetric("image", "text", 0.5)),
    # Desai et al. 2023, arXiv:2304.09172
    "meru": Recipe(
        geometry="lorentz", contrast=_symmetric("image", "text", 0.5), edges=(Edge("text", "image", weight=0.2),)
    ),
    # Pal et al. 2024, arXiv:2410.06912; entailment weight 0.2 times the ½ of its released code
    "hycoclip": Recipe(
        geometry="lorentz",
        contrast=(
            *_symmetric("image", "text", 0.25),
            Contrast("box_image", "text", 0.25),
            Contrast("box_text", "image", 0.25),
        ),
        edges=(
            Edge("text", "image", eta=0.7, weight=0.1),
            Edge("box_text", "box_image", eta=0.7, weight=0.1),
            Edge("box_image", "image", eta=1.2, weight=0.1),
            Edge("box_text", "text", eta=1.2, weight=0.1),
        ),
    ),
}


def recipe_from(config: str | Mapping[str, Any]) -> Recipe:
    """Return a recipe by name or from plain data, as a YAML file holds it.

    Plain data may start from a published recipe (`base: hycoclip`) and replace its fields; `contrast` and `edges` are
    lists of mappings with the fields of `Contrast` and `Edge`.

    Raises:
        ConfigError: an unknown recipe, key, role or geometry, or a number out of range.
    """
    if isinstance(config, str):
        return _named(config)
    data = dict(config)
    if "base" in data:
        data = {**asdict(_named(data.pop("base"))), **data}
    return build(Recipe, data, "objective")


def _named(name: object) -> Recipe:
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"there is no recipe named {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]
