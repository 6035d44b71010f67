"""Recipes as data: which pairs to contrast, which pairs to order, and how much each counts.

The published ones are the YAML files in recipes/; a recipe of one's own is another such file, or the same written under
`objective:` in the config of a run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, build, read
from hypclip.errors import ConfigError
from hypclip.files import expand_home
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.metric import Distance, Geometry, Metric
from hypclip.roles import BOX_ROLES, Role

LOGIT_SCALE = "logit_scale"
"""The name of the scale that a contrast takes when it names none."""


@dataclass(frozen=True, config=STRICT_KEYS)
class Contrast:
    """Cross-entropy of each query over all keys of the batch, its own sample's key being right.

    `scale` names the learned inverse temperature. With `soften`, each query's logits are multiplied by exp(−u/2) of its
    uncertainty u = softplus(−|x|), which is not differentiated (arXiv:2603.22042).
    """

    query: Role
    key: Role
    weight: PositiveFloat = 1.0
    scale: Annotated[str, Len(1)] = LOGIT_SCALE
    soften: bool = False

    def __post_init__(self) -> None:
        if self.query == self.key:
            raise ConfigError(f"a contrast needs two roles, got {self.query!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Edge:
    """`general` entails `specific`, with φ the exterior angle at the general point and ω its half aperture.

    The penalty of a pair is max(0, φ − eta · ω) + angle_weight · φ for `cone`, φ for `angle`, and (1 − exp(−d)) φ for
    `adaptive_angle`; the latter two have no use for eta. `calibration`, which `weight` does not multiply, adds that
    much of ½ sg(penalty) exp(−u) + ½ u, with u = softplus(−|x|) of the general point, and of the entropy of softmax(u)
    over the batch (arXiv:2603.22042).
    """

    general: Role
    specific: Role
    eta: PositiveFloat = 1.0
    weight: PositiveFloat = 1.0
    penalty: Literal["cone", "angle", "adaptive_angle"] = "cone"
    angle_weight: NonNegativeFloat = 0.0
    calibration: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        if self.general == self.specific:
            raise ConfigError(f"an edge needs two roles, got {self.general!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Regulariser:
    """`norm`: mean of n² − ln n above its minimum at n = 1/√2, n = √c|x|; it keeps cones from opening or closing."""

    kind: Literal["norm"]
    role: Role
    weight: PositiveFloat


@dataclass(frozen=True, config=STRICT_KEYS)
class Recipe:
    """A training objective.

    With `skip_duplicates`, rows that show or say the same as the right answer are no negatives of it: a batch of short
    phrases has many ("a dog" and "a dog"). The published recipes count them as negatives.

    `max_boxes` is how many boxes of an image take part: 1 is drawn by score, more are the best by score, and weigh in
    proportion to it. `scales` has the initial value of every inverse temperature that a contrast names. For `geometry`,
    `distance` and `factor_dim` see `Metric`; for `min_radius`, the K of the cones, `hypclip.geometry.cones`.
    """

    geometry: Geometry
    contrast: tuple[Contrast, ...]
    edges: tuple[Edge, ...] = ()
    regularisers: tuple[Regulariser, ...] = ()
    distance: Distance = "geodesic"
    factor_dim: PositiveInt | None = None
    scales: dict[str, PositiveFloat] = field(default_factory=lambda: {LOGIT_SCALE: 1 / 0.07})
    max_boxes: PositiveInt = 1
    min_radius: PositiveFloat = MIN_RADIUS
    skip_duplicates: bool = False

    def __post_init__(self) -> None:
        if not self.contrast:
            raise ConfigError("contrast is empty: a recipe must contrast at least one pair")
        if not self.metric.has_cones and (self.edges or self.regularisers):
            raise ConfigError("edges and regularisers need another geometry than sphere, which has no cones or radii")
        for term in self.contrast:
            if term.scale not in self.scales:
                raise ConfigError(
                    f"contrast {term.query}-{term.key} names the scale {term.scale!r}, which scales lacks; "
                    f"known: {', '.join(self.scales)}"
                )
            if term.soften and not self.metric.has_cones:
                raise ConfigError("soften needs another geometry than sphere, where every point has length 1")
        if unused := sorted(self.scales.keys() - {term.scale for term in self.contrast}):
            raise ConfigError(f"no contrast names the scale {', '.join(unused)}: remove it from scales")
        for kind, names in (
            ("contrast", [f"{t.query}-{t.key}" for t in self.contrast]),
            ("edges", [f"{e.general}-{e.specific}" for e in self.edges]),
            ("regularisers", [f"{r.kind} {r.role}" for r in self.regularisers]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"{kind} lists {', '.join(twice)} twice")
        if self.max_boxes > 1 and not self.roles & BOX_ROLES:
            raise ConfigError(f"max_boxes {self.max_boxes} needs a term with box_image or box_text")

    @property
    def roles(self) -> frozenset[Role]:
        """Every role that a batch must have."""
        pairs = [(c.query, c.key) for c in self.contrast] + [(e.general, e.specific) for e in self.edges]
        return frozenset(r for pair in pairs for r in pair) | frozenset(r.role for r in self.regularisers)

    @property
    def metric(self) -> Metric:
        """The space, and its distance."""
        return Metric(self.geometry, self.distance, self.factor_dim)


RECIPES = ("clip", "euclip", "meru", "hycoclip", "hce", "phyclip", "uncha", "argent")
"""Names of the recipes that come with the library."""


def recipe_from(config: str | Path | Mapping[str, Any]) -> Recipe:
    """Return a recipe by name, from a YAML file, or from plain data, as such a file holds it.

    Plain data may start from another recipe (`base: hycoclip`, or a file beside its own) and replace its fields;
    `contrast`, `edges` and `regularisers` are lists of mappings with the fields of `Contrast`, `Edge` and
    `Regulariser`.

    Raises:
        ConfigError: an unknown recipe, key, role, geometry or scale, a number out of range, or files that are each
            other's base.
    """
    return _recipe_from(config, Path(), ())


def _recipe_from(config: object, folder: Path, bases: tuple[Path, ...]) -> Recipe:
    """Return a recipe; a file is looked for in `folder`, and may not be one of those that start from it."""
    if isinstance(config, Path) or (isinstance(config, str) and config.endswith((".yaml", ".yml"))):
        path = (folder / expand_home(str(config))).resolve()
        if path in bases:
            raise ConfigError(f"base: {path} starts from itself, by way of {', '.join(str(base) for base in bases)}")
        return _built(read(path), path.parent, (*bases, path))
    if isinstance(config, str):
        return _named(config)
    if isinstance(config, Mapping):
        return _built(config, folder, bases)
    raise ConfigError(f"a recipe is a name, a YAML file or a mapping, got {config!r}")


def _built(config: Mapping[str, Any], folder: Path, bases: tuple[Path, ...]) -> Recipe:
    data = dict(config)
    if "base" in data:
        if not isinstance(data["base"], str | Path):
            raise ConfigError(f"base must be the name of a recipe or a YAML file, got {data['base']!r}")
        data = {**asdict(_recipe_from(data.pop("base"), folder, bases)), **data}
    return build(Recipe, data, "objective")


@functools.cache
def _named(name: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe named {name!r}; known: {', '.join(RECIPES)}")
    with resources.as_file(resources.files("hypclip.objective") / "recipes" / f"{name}.yaml") as path:
        return build(Recipe, read(path), name)
