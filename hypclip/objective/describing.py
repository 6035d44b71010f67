"""Statistics of a batch that show the health of a hierarchy, cheap enough for every line of the log."""

from __future__ import annotations

import torch
from torch import Tensor

from hypclip.geometry.entailment import Cone
from hypclip.objective.inputs import Inputs
from hypclip.objective.lineage import MAX_LEVELS
from hypclip.objective.recipe import Recipe
from hypclip.objective.relations import Relations
from hypclip.roles import Role

_QUANTILES = (5, 50, 95)


def describe(recipe: Recipe, batch: Inputs, relations: Relations | None) -> dict[str, Tensor]:
    """Return the statistics of `Objective.describe`."""
    seen: dict[str, Tensor] = {}
    if relations is None:
        return seen
    if recipe.edges:
        both = zip(relations.angles(), relations.apertures(recipe.min_radius), strict=True)
        for edge, (angle, aperture) in zip(recipe.edges, both, strict=True):
            margin = edge.eta * aperture - angle
            clamped = (aperture >= torch.pi / 2).double()
            seen |= _pair(batch, relations, edge.general, edge.specific, margin, clamped)
    for term in recipe.entail:
        margin = relations.score(recipe.rule, term.general, term.specific)
        opening = None
        if isinstance(recipe.rule, Cone):
            opening = (relations.lengths(term.general) <= 2 * recipe.rule.min_radius).double()
        seen |= _pair(batch, relations, term.general, term.specific, margin, opening)
    for role, x in batch.points.items():
        radii = recipe.metric.radius(x, batch.curv)[batch.present(role)].double()
        for percent in _QUANTILES:
            seen[f"radius/{role}/q{percent:02}"] = _quantile(radii, percent)
    if batch.concepts is not None:
        radii = recipe.metric.radius(batch.concepts.points, batch.curv).double()
        level = batch.concepts.levels.clamp(0, MAX_LEVELS - 1)
        for one in sorted(set(level[batch.concepts.counts].tolist())):
            seen[f"radius/level{one}/q50"] = _quantile(radii[batch.concepts.counts & (level == one)], 50)
    return seen


def _pair(
    batch: Inputs, relations: Relations, general: Role, specific: Role, margin: Tensor, clamped: Tensor | None
) -> dict[str, Tensor]:
    share = batch.shares(general, specific, distinct=True)
    gap = relations.radii(specific)[:, batch.local] - relations.radii(general)[:, batch.local]
    found = {
        "violation": (margin < 0).double(),
        "margin": margin,
        "cosine": relations.cosine(general, specific),
        "gap": gap.expand_as(margin),
    }
    found |= {} if clamped is None else {"clamped": clamped}
    nothing = torch.full((), torch.nan)
    return {
        f"{name}/{general}-{specific}": batch.total(value, share) if share.any() else nothing
        for name, value in found.items()
    }


def _quantile(values: Tensor, percent: int) -> Tensor:
    return torch.quantile(values, percent / 100) if values.numel() else torch.full((), torch.nan)
