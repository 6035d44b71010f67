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

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS, build, read
from hypclip.errors import ConfigError
from hypclip.files import expand_home
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.geometry.metric import Distance, Geometry, Metric
from hypclip.objective.terms import LOGIT_SCALE, Anchor, Contrast, Edge, Entail, Lineage, Order, Regulariser
from hypclip.roles import BOX_ROLES, CONCEPT, SPOKEN, Role


@dataclass(frozen=True, config=STRICT_KEYS)
class Recipe:
    """A training objective.

    Args:
        geometry: where the features live, see `Metric`.
        contrast: pairs of roles that are contrasted.
        edges: pairs of which one entails the other, by a hinge on true pairs.
        entail: the same by logistic terms, with negatives.
        order: pairs of which one lies nearer to the root.
        lineage: what a taxonomy puts above a phrase entails it.
        anchors: roles that lie at a radius.
        regularisers: of the norms of a role.
        distance: what similarities are made of, see `Metric`.
        factor_dim: dimensions of a factor, of a product.
        scales: initial value of every inverse temperature that a contrast names.
        max_boxes: how many boxes of an image take part: 1 is drawn by score, more are the best by score, and weigh in
            proportion to it.
        min_radius: K of the cones, see hypclip.geometry.cones.
        entailment: the rule that `entail` and `lineage` train, and the one the model answers by; absent, the cone of
            the `edges`.
        contrast_of: with directions, logits are −s · |u_query − u_key|, the chord between the directions from the
            origin, in place of the distance: the contrast turns points about the origin, and radii are left to the
            other terms.
        learn_curv: what the model does unless its config says otherwise.
        skip_duplicates: whether rows that show or say the same as the right answer are no negatives of it: a batch of
            short phrases has many ("a dog" and "a dog"). The published recipes count them as negatives.
        skip_related: whether neither are those that a taxonomy puts above or below it ("an animal" is no wrong name of
            a dog).
    """

    geometry: Geometry
    contrast: tuple[Contrast, ...]
    edges: tuple[Edge, ...] = ()
    entail: tuple[Entail, ...] = ()
    order: tuple[Order, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    regularisers: tuple[Regulariser, ...] = ()
    distance: Distance = "geodesic"
    factor_dim: PositiveInt | None = None
    scales: dict[str, PositiveFloat] = field(default_factory=lambda: {LOGIT_SCALE: 1 / 0.07})
    max_boxes: PositiveInt = 1
    min_radius: PositiveFloat = MIN_RADIUS
    entailment: Annotated[Cone | Plane, Field(discriminator="form")] | None = None
    contrast_of: Literal["points", "directions"] = "points"
    learn_curv: bool = True
    skip_duplicates: bool = False
    skip_related: bool = False

    def __post_init__(self) -> None:
        if not self.contrast:
            raise ConfigError("contrast is empty: a recipe must contrast at least one pair")
        if not self.metric.has_cones and (self.edges or self._of_radius or self.regularisers or self.entailment):
            raise ConfigError(
                "edges, entail, order, lineage, anchors and regularisers need another geometry than sphere, which has "
                "no cones or radii"
            )
        if self.metric.geometry == "product" and (self._of_radius or self.contrast_of == "directions"):
            raise ConfigError(
                "entail, order, lineage, anchors and contrast_of directions need geometry lorentz or euclidean, not a "
                "product"
            )
        if self.contrast_of == "directions" and not self.metric.has_cones:
            raise ConfigError("contrast_of directions needs another geometry than sphere, where directions are all")
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
        entailed = [(e.general, e.specific) for e in self.edges] + [(e.general, e.specific) for e in self.entail]
        for kind, names in (
            ("contrast", [f"{t.query}-{t.key}" for t in self.contrast]),
            ("edges and entail", [f"{general}-{specific}" for general, specific in entailed]),
            ("order", [f"{o.general}-{o.specific}" for o in self.order]),
            ("lineage", [str(term.specific) for term in self.lineage]),
            ("anchors", [str(anchor.role) for anchor in self.anchors]),
            ("regularisers", [f"{r.kind} {r.role}" for r in self.regularisers]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigError(f"{kind} lists {', '.join(twice)} twice")
        of_samples = [(c.query, c.key) for c in self.contrast] + entailed
        if any(CONCEPT in pair for pair in of_samples) or any(r.role == CONCEPT for r in self.regularisers):
            raise ConfigError("the role concept belongs to lineage, to anchors, and to order as what is general")
        if any(o.specific == CONCEPT != o.general for o in self.order):
            raise ConfigError(
                "order: what is more specific than a sample's parts is no concept: give concept as general"
            )
        if self.max_boxes > 1 and not self.roles & BOX_ROLES:
            raise ConfigError(f"max_boxes {self.max_boxes} needs a term with box_image or box_text")

    @property
    def roles(self) -> frozenset[Role]:
        """Every role that a batch must have."""
        pairs = [(c.query, c.key) for c in self.contrast] + [(e.general, e.specific) for e in self.edges] + self._pairs
        alone = [term.role for term in self.regularisers] + [term.role for term in self.anchors]
        alone += [role for term in self.lineage for role in (term.specific, SPOKEN.get(term.specific, term.specific))]
        return (frozenset(r for pair in pairs for r in pair) | frozenset(alone)) - {CONCEPT}

    @property
    def uses_taxonomy(self) -> bool:
        """True if phrases of a taxonomy take part, as the role `concept` of a batch."""
        named = {role for pair in self._pairs for role in pair} | {term.role for term in self.anchors}
        return bool(self.lineage) or CONCEPT in named

    @property
    def _pairs(self) -> list[tuple[Role, Role]]:
        return [(e.general, e.specific) for e in self.entail] + [(o.general, o.specific) for o in self.order]

    @property
    def rule(self) -> Entailment:
        """The rule of entailment of a model of this recipe."""
        return self.entailment or Cone(min_radius=self.min_radius)

    @property
    def _of_radius(self) -> bool:
        return bool(self.entail or self.order or self.lineage or self.anchors)

    @property
    def metric(self) -> Metric:
        """The space, and its distance."""
        return Metric(self.geometry, self.distance, self.factor_dim)


RECIPES = ("clip", "euclip", "meru", "hycoclip", "hce", "phyclip", "uncha", "argent", "hypclip")
"""Names of the recipes that come with the library."""


def recipe_from(config: str | Path | Mapping[str, Any]) -> Recipe:
    """Return a recipe by name, from a YAML file, or from plain data, as such a file holds it.

    Plain data may start from another recipe (`base: hycoclip`, or a file beside its own) and replace its fields;
    `contrast`, `edges`, `entail`, `order`, `lineage`, `anchors` and `regularisers` are lists of mappings with the
    fields of `Contrast`, `Edge`, `Entail`, `Order`, `Lineage`, `Anchor` and `Regulariser`.

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
