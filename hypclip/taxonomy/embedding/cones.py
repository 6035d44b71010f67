"""Entailment cones of a taxonomy (Ganea et al. 2018, arXiv:1804.01882): a point lies in the cones of its ancestors.

With s(u, v) = ω(u) − φ(u, v) how deep v lies in the cone of u, the energy of a pair is max(0, −s). The loss is the
energy of pairs of an ancestor and its descendant, and max(0, margin − energy) of corrupted ones. Points are trained as
tangent vectors at the origin of the hyperboloid of curvature −1. They start where the closed form puts the tree of the
basic edges, which are always learned from: children lie beyond their parents there from the first step on, which a
Poincaré embedding, the start of the paper, does not bring about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry import entailment, lorentz, polar
from hypclip.geometry.cones import MIN_RADIUS
from hypclip.taxonomy.embedding.closed_form import place
from hypclip.taxonomy.embedding.prediction import Corruption, Found, Labelled, Split, best_threshold, found
from hypclip.taxonomy.graph import Pairs, Taxonomy

_CORRUPTIONS = 5
"""Corrupted pairs of a held-out one, on each side."""
_LEAST_RADIUS = 0.1
"""Radius that points start at, at the least: from there their directions can be told apart."""


@dataclass(frozen=True)
class ConeTraining:
    """How cones are trained.

    Args:
        steps: steps of Adam, each on `batch` pairs.
        rate: the learning rate.
        batch: pairs of a step; all where there are fewer.
        corruptions: wrong pairs of a right one in a step, on each side.
        margin: the energy that wrong pairs shall have, in radians.
        min_radius: K of the cones.
        seed: of corruptions and batches.

    Raises:
        InputError: a setting that cannot work, by name.
    """

    steps: int = 1000
    rate: float = 0.005
    batch: int = 8192
    corruptions: int = 5
    margin: float = 0.1
    min_radius: float = MIN_RADIUS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "corruptions"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, most in (("rate", math.inf), ("margin", math.pi), ("min_radius", math.inf)):
            if not 0 < getattr(self, name) <= most or math.isinf(getattr(self, name)):
                upper = "" if math.isinf(most) else f" and at most {most:.4g}"
                raise InputError(f"{name} must be positive{upper}, got {getattr(self, name)}")


class Prediction(NamedTuple):
    """How held-out pairs are told from corrupted ones, with thresholds of the best F1 on the pairs for choosing.

    `test` and `valid` go by the energy up to `threshold`; `rule` is what hypclip asks, φ ≤ η ω, and `by_rule` what it
    finds among the tested pairs. `wrong` is the number of corrupted pairs among these.
    """

    test: Found
    valid: Found
    threshold: float
    rule: entailment.Cone
    by_rule: Found
    wrong: int


def cone_start(taxonomy: Taxonomy, dim: int, tau: float = 0.5) -> Float[Tensor, "n d"]:
    """Return space components (N, D) to train cones from: the closed form of the basic edges.

    Args:
        taxonomy: gives the order of the points.
        dim: D, at least 2.
        tau: distance of a child and its parent.

    Raises:
        InputError: as `place` does.
    """
    phrases, x = place(taxonomy.reduced(), dim, tau, torch.float64)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    return x[[row[phrase] for phrase in taxonomy.phrases]]


def train_cones(start: Float[Tensor, "n d"], split: Split, training: ConeTraining) -> Float[Tensor, "n d"]:
    """Return the space components of points of which the learned pairs (point, ancestor) are entailed.

    A root that is left out of the pairs is the origin, which entails everything.

    Args:
        start: space components, as of `cone_start`.
        split: of which no other pair than those to learn from is taken as right.
        training: how.
    """
    pairs = split.learned
    generator = torch.Generator().manual_seed(training.seed)
    corruption = Corruption(pairs, len(start), split.first)
    # The angles of pairs are told apart far above the rounding of float32, which is twice as fast.
    v = lorentz.log_map0(start, 1.0)
    radius = v.norm(dim=1, keepdim=True).clamp(min=_LEAST_RADIUS)
    v = (radius * torch.nn.functional.normalize(v, dim=1)).float().requires_grad_()
    optimizer = torch.optim.Adam([v], lr=training.rate)
    rule = entailment.Cone(min_radius=training.min_radius)
    for _ in range(training.steps):
        rows = torch.randperm(len(pairs), generator=generator)[: training.batch].numpy()
        batch = Pairs(pairs.below[rows], pairs.above[rows])
        general, specific = corruption.draw(batch, training.corruptions, generator)
        wrong = corruption.wrong(general, specific)
        general = torch.cat([torch.from_numpy(batch.above), general[wrong]])
        specific = torch.cat([torch.from_numpy(batch.below), specific[wrong]])
        energy = -_depth(rule, v, general, specific)
        right, mistaken = energy[: len(rows)].clamp(min=0), energy[len(rows) :]
        loss = right.sum() + (training.margin - mistaken).clamp(min=0).sum()
        (v.grad,) = torch.autograd.grad(loss, [v])
        optimizer.step()
    x = lorentz.exp_map0(v.detach().double(), 1.0)
    x[: split.first] = 0
    return x


def predict(
    x: Float[Tensor, "n d"], taxonomy: Taxonomy, split: Split, min_radius: float = MIN_RADIUS, seed: int = 0
) -> Prediction:
    """Return how well the cones of points tell the pairs that are held out.

    Args:
        x: space components, by place in `taxonomy.phrases`.
        taxonomy: whose pairs are never taken as wrong.
        split: of the taxonomy.
        min_radius: K of the cones.
        seed: of the corrupted pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    corruption = Corruption(taxonomy.closure, len(x), split.first)
    valid, test = (corruption.labelled(pairs, _CORRUPTIONS, generator) for pairs in (split.valid, split.test))
    cone = entailment.Cone(min_radius=min_radius)
    energies = [(-depth(cone, x, pairs)).clamp(min=0) for pairs in (valid, test)]
    threshold = best_threshold(energies[0], valid.right)
    by_energy = [found(energy, pairs.right, threshold) for energy, pairs in zip(energies, (valid, test), strict=True)]
    ratios = [_angle_to_aperture(min_radius, x, pairs) for pairs in (valid, test)]
    rule = entailment.Cone(eta=best_threshold(ratios[0], valid.right), min_radius=min_radius)
    by_rule = found(ratios[1], test.right, rule.eta)
    return Prediction(by_energy[1], by_energy[0], threshold, rule, by_rule, len(test.general) - test.right)


def depth(cone: entailment.Cone, x: Float[Tensor, "n d"], pairs: Labelled) -> Float[Tensor, " p"]:
    """Return η ω − φ of each pair, ≥ 0 where the specific point lies in the cone of the general one.

    Args:
        cone: the rule.
        x: space components.
        pairs: by place.
    """
    return _depth(cone, lorentz.log_map0(x, 1.0), pairs.general, pairs.specific)


def _depth(cone: entailment.Cone, v: Tensor, general: Tensor, specific: Tensor) -> Tensor:
    radius = v.norm(dim=1, keepdim=True)
    unit, sinh = v / radius.clamp(min=torch.finfo(v.dtype).tiny), torch.sinh(radius)[:, 0]
    om = (unit[general] - unit[specific]).square().sum(1) / 2
    return entailment.score(cone, sinh[general], sinh[specific], om, hyperbolic=True)


def _angle_to_aperture(min_radius: float, x: Tensor, pairs: Labelled) -> Tensor:
    aperture = polar.half_aperture(x[pairs.general].norm(dim=1), min_radius)
    return 1 - depth(entailment.Cone(min_radius=min_radius), x, pairs) / aperture
