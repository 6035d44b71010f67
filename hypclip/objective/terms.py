"""The terms of a recipe: which roles they relate, and by what rule."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from hypclip.config import STRICT_KEYS
from hypclip.errors import ConfigError
from hypclip.roles import Role

LOGIT_SCALE = "logit_scale"
"""The name of the scale that a contrast takes when it names none."""


@dataclass(frozen=True, config=STRICT_KEYS)
class Contrast:
    """Cross-entropy of each query over all keys of the batch, its own sample's key being right.

    Args:
        query: role of the queries.
        key: role of the keys.
        weight: of the term.
        scale: name of the learned inverse temperature.
        soften: whether each query's logits are multiplied by exp(−u/2) of its uncertainty u = softplus(−|x|), which is
            not differentiated (arXiv:2603.22042).
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

    Args:
        general: role of the general points.
        specific: role of the specific ones.
        eta: η, the factor on the half aperture.
        weight: of the term.
        penalty: of a pair: max(0, φ − eta · ω) + angle_weight · φ for `cone`, φ for `angle`, and (1 − exp(−d)) φ for
            `adaptive_angle`; the latter two have no use for eta.
        angle_weight: see penalty.
        huber: β; a penalty p becomes p²/2 up to β, and β (p − β/2) then.
        calibration: how much, whatever `weight` is, of ½ sg(penalty) exp(−u) + ½ u, with u = softplus(−|x|) of the
            general point, and of the entropy of softmax(u) over the batch (arXiv:2603.22042).
    """

    general: Role
    specific: Role
    eta: PositiveFloat = 1.0
    weight: PositiveFloat = 1.0
    penalty: Literal["cone", "angle", "adaptive_angle"] = "cone"
    angle_weight: NonNegativeFloat = 0.0
    huber: PositiveFloat | None = None
    calibration: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        if self.general == self.specific:
            raise ConfigError(f"an edge needs two roles, got {self.general!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Entail:
    """`general` entails `specific` of its own sample, and those of other samples not; by the recipe's `entailment`.

    With z the score of a pair, how deep the specific point lies in the region of the general one (see
    `hypclip.geometry.entailment.pairwise_score`), a pair costs softplus(−scale · z), and all others of its general
    point together `negatives` times the mean of softplus(scale · z); of a large batch a part of them. Equal contents
    are no negatives of each other, nor is what the taxonomy puts below the general point. Without `negatives` a region
    is only asked to hold its own, which is right of parts, that other wholes have too.

    Args:
        general: role of the general points.
        specific: role of the specific ones.
        weight: of the term.
        scale: how steep the border is.
        negatives: how much the points of other samples count.
    """

    general: Role
    specific: Role
    weight: PositiveFloat = 1.0
    scale: PositiveFloat = 8.0
    negatives: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        if self.general == self.specific:
            raise ConfigError(f"an entail term needs two roles, got {self.general!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Order:
    """`general` lies nearer to the origin: max(0, ρ_general − ρ_specific + margin), ρ = √c · radius, pair by pair.

    Of the role `concept`, a phrase of the taxonomy with each of its parents. Source: He et al. 2024, arXiv:2401.11374.

    Args:
        general: role of the general points.
        specific: role of the specific ones.
        margin: by how much, at least.
        weight: of the term.
    """

    general: Role
    specific: Role
    margin: NonNegativeFloat = 0.1
    weight: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.general == self.specific and self.general != "concept":
            raise ConfigError(f"an order needs two roles, got {self.general!r} twice")


@dataclass(frozen=True, config=STRICT_KEYS)
class Anchor:
    """Mean of (ρ − radius)² over a role, ρ = √c · radius: it holds a level at one radius, whatever else pulls at it.

    Args:
        role: whose points.
        radius: their √c · radius.
        weight: of the term.
    """

    role: Role
    radius: PositiveFloat
    weight: PositiveFloat = 1.0


@dataclass(frozen=True, config=STRICT_KEYS)
class Lineage:
    """Phrases above another in the taxonomy entail `specific`: the phrase of a sample, its image, or a concept.

    For a point s and the phrases g of one level of the taxonomy, with z(g, s) as for `Entail`: the cross-entropy of
    contrast_scale · z over the level, its own ancestor being right and its other ancestors left out, times `contrast`;
    and the mean of softplus(−scale · z) of its ancestors, plus `negatives` times the sum of softplus(scale · z) of all
    others: with 1 the border lies where both are as likely. Levels weigh alike. An image also counts as entailed by
    its own phrase.

    Args:
        specific: role of the specific points.
        weight: of the term.
        scale: how steep the border is.
        contrast_scale: inverse temperature of the cross-entropy.
        contrast: how much the cross-entropy counts.
        negatives: how much phrases that are no ancestors count.
    """

    specific: Role
    weight: PositiveFloat = 1.0
    scale: PositiveFloat = 8.0
    contrast_scale: PositiveFloat = 16.0
    contrast: NonNegativeFloat = 1.0
    negatives: NonNegativeFloat = 0.3


@dataclass(frozen=True, config=STRICT_KEYS)
class Regulariser:
    """`norm`: mean of n² − ln n above its minimum at n = 1/√2, n = √c|x|; it keeps cones from opening or closing.

    Args:
        kind: which; there is one.
        role: whose points.
        weight: of the term.
    """

    kind: Literal["norm"]
    role: Role
    weight: PositiveFloat
