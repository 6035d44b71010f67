"""Rules of entailment calibrated on a taxonomy: the threshold that tells what stands above what from what does not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hypclip.geometry import cones
from hypclip.geometry.entailment import Cone, Entailment, Plane, pairwise_score
from hypclip.geometry.metric import Metric
from hypclip.taxonomy.graph import Taxonomy

MOST_PHRASES = 2_000
"""How many phrases of a taxonomy a threshold is calibrated on."""


class Pairing(NamedTuple):
    """Pairs of a phrase and one that stands above another, and which of them are true.

    Args:
        phrases: of the pairs.
        above: rows of those that stand above another, (A,).
        true: (A, N), whether the first stands above the second.
        other: (A, N), whether the two are different.
    """

    phrases: list[str]
    above: list[int]
    true: Bool[Tensor, "a n"]
    other: Bool[Tensor, "a n"]

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Pairing:
        """Return the pairs of a taxonomy; of more than `MOST_PHRASES` a fixed sample takes part, with all above it."""
        phrases = list(taxonomy.phrases)
        if len(phrases) > MOST_PHRASES:
            drawn = random.Random(0).sample(phrases, MOST_PHRASES)
            phrases = sorted({up for phrase in drawn for up in (phrase, *taxonomy.ancestors(phrase))})
        place = {phrase: row for row, phrase in enumerate(phrases)}
        above = sorted({place[up] for phrase in phrases for up in taxonomy.ancestors(phrase)})
        column = {row: at for at, row in enumerate(above)}
        true = torch.zeros(len(above), len(phrases), dtype=torch.bool)
        for phrase, row in place.items():
            for up in taxonomy.ancestors(phrase):
                true[column[place[up]], row] = True
        return cls(phrases, above, true, torch.tensor(above).unsqueeze(1) != torch.arange(len(phrases)))


@dataclass(frozen=True)
class Calibrated:
    """A rule, and how well it tells the ancestors of phrases: shares of the pairs it finds, and of those there are."""

    rule: Entailment
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 0 where nothing is right."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@torch.no_grad()
def best_rule(x: Float[Tensor, "n d"], pairing: Pairing, curv: float) -> Calibrated:
    """Return the rule of the best F1 on the pairs of a taxonomy, for points that no rule was trained with.

    The two forms are half-spaces of any threshold, and cones of the usual min_radius and any factor on their width.

    Args:
        x: space components, a row per phrase of the pairs.
        pairing: the pairs.
        curv: c > 0.
    """
    points, metric = x.double(), Metric()
    general = points[pairing.above]
    height = pairwise_score(Plane(), general, points, metric, curv)
    plane = Plane(best_threshold(height[pairing.other], pairing.true[pairing.other]))
    # η ω − φ with η = 0 is −φ; of a cone of half aperture ω the factor that just holds a point is φ / ω.
    aperture = cones.half_aperture(general, curv).unsqueeze(1)
    angle = aperture - pairwise_score(Cone(), general, points, metric, curv)
    narrow = -angle / aperture
    eta = -best_threshold(narrow[pairing.other], pairing.true[pairing.other])
    found = [measured(plane, height - plane.threshold, pairing)]
    if eta > 0:
        cone = Cone(eta)
        found.append(measured(cone, narrow + eta, pairing))
    return max(found, key=lambda each: each.f1)


def measured(rule: Entailment, score: Float[Tensor, "a n"], pairing: Pairing) -> Calibrated:
    """Return the precision and recall of a rule, given its scores of the pairs: ≥ 0 where it holds."""
    held = (score >= 0) & pairing.other
    right = int((held & pairing.true).sum())
    return Calibrated(rule, right / max(1, int(held.sum())), right / max(1, int(pairing.true.sum())))


def best_threshold(score: Float[Tensor, " n"], true: Bool[Tensor, " n"], slack: float = 0.0) -> float:
    """Return the lowest threshold t for which score ≥ t has the best F1 but for `slack`, halfway between two scores.

    Phrases that training knew lie deeper in their regions than phrases it did not know. Among thresholds that are as
    good as equal for the former the lowest is the best for the latter.
    """
    ranked, order = score.double().sort(descending=True)
    hits = true[order].cumsum(0)
    found = torch.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (found + hits[-1])
    apart = torch.cat([ranked[1:] < ranked[:-1], torch.ones(1, dtype=torch.bool)])  # ties stand or fall together
    f1 = f1.where(apart, -1)
    last = int((f1 >= f1.max() - slack).nonzero().max())
    return float(ranked[last : last + 2].mean())
