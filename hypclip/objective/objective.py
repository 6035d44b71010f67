"""Evaluate a recipe on a batch of embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hypclip.errors import InputError
from hypclip.geometry.cones import half_aperture, oxy_angle
from hypclip.geometry.similarity import pairwise_similarity
from hypclip.objective.recipe import Contrast, Edge, Recipe, recipe_from
from hypclip.roles import MISSING


@dataclass(frozen=True)
class Loss:
    """The value to minimise, and each of its terms before weighting, detached."""

    loss: Tensor
    parts: dict[str, Tensor]


class Objective:
    """A recipe, ready to be evaluated.

    Args:
        recipe: see `Recipe`.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    @classmethod
    def from_recipe(cls, recipe: str | Mapping[str, object]) -> Objective:
        """Build from a published recipe's name ("clip", "meru", "hycoclip") or from plain data (see `recipe_from`)."""
        return cls(recipe_from(recipe))

    def __call__(
        self,
        features: Mapping[str, Tensor],
        *,
        curv: Tensor | float,
        logit_scale: Tensor | float,
        content: Mapping[str, Tensor] | None = None,
        local: slice | None = None,
    ) -> Loss:
        """Return the loss of a batch.

        Args:
            features: role → (B, D) float32 or float64 space components; row i of each role belongs to sample i. With
                several processes these are the rows of all processes.
            curv: c > 0.
            logit_scale: inverse temperature s; logits are −s · d, or s · cosine on the sphere.
            content: role → (B,) int64. Equal ids, across rows and across roles, mark equal content (the same phrase,
                the same picture): an edge between equal contents is skipped, and with `skip_duplicates` equal contents
                are no negatives of each other. MISSING marks a row that the sample does not have.
            local: the rows whose terms this process owns, by default all. The mean over processes of the returned
                losses, and of their gradients, is that of one process holding all rows.

        Raises:
            InputError: a role of the recipe is missing, or shapes differ.
        """
        self._check(features, content)
        content = content or {}
        size = next(iter(features.values())).shape[0]
        rows = torch.arange(size, device=next(iter(features.values())).device)[local or slice(None)]
        parts: dict[str, Tensor] = {}
        weighted: list[Tensor] = []
        for pair in self.recipe.contrast:
            value = self._contrast(pair, features, curv, logit_scale, content, rows)
            parts[f"contrast/{pair.query}-{pair.key}"] = value.detach()
            weighted.append(pair.weight * value)
        for edge in self.recipe.edges:
            value = self._entail(edge, features, curv, content, rows)
            parts[f"entail/{edge.general}-{edge.specific}"] = value.detach()
            weighted.append(edge.weight * value)
        return Loss(torch.stack(weighted).sum(), parts)

    def _contrast(
        self,
        term: Contrast,
        features: Mapping[str, Tensor],
        curv: Tensor | float,
        logit_scale: Tensor | float,
        content: Mapping[str, Tensor],
        rows: Tensor,
    ) -> Tensor:
        query, key = features[term.query][rows], features[term.key]
        logits = logit_scale * pairwise_similarity(query, key, curv, self.recipe.geometry)
        own = rows.unsqueeze(1) == torch.arange(key.shape[0], device=key.device)
        present = _present(content, key, term.query, term.key)
        barred = ~_present(content, key, term.key).unsqueeze(0) & ~own
        if self.recipe.skip_duplicates:
            for role in (term.query, term.key):
                if role in content:
                    barred = barred | ((content[role][rows].unsqueeze(1) == content[role]) & ~own)
        losses = cross_entropy(logits.masked_fill(barred, -torch.inf), rows, reduction="none")
        return _mean(losses, present, rows)

    def _entail(
        self,
        term: Edge,
        features: Mapping[str, Tensor],
        curv: Tensor | float,
        content: Mapping[str, Tensor],
        rows: Tensor,
    ) -> Tensor:
        general, specific = features[term.general][rows], features[term.specific][rows]
        angle = oxy_angle(general, specific, curv)
        aperture = half_aperture(general, curv, self.recipe.min_radius)
        excess = angle - term.eta * aperture
        valid = _present(content, features[term.general], term.general, term.specific)
        if term.general in content and term.specific in content:
            valid = valid & (content[term.general] != content[term.specific])
        return _mean(torch.where(excess > 0, excess, 0), valid, rows)

    def _check(self, features: Mapping[str, Tensor], content: Mapping[str, Tensor] | None) -> None:
        if missing := self.recipe.roles - features.keys():
            raise InputError(f"features lack {sorted(missing)}, which the recipe needs; got {sorted(features)}")
        shapes = {role: tuple(features[role].shape) for role in sorted(self.recipe.roles)}
        if len(set(shapes.values())) > 1 or any(len(s) != 2 for s in shapes.values()):
            raise InputError(f"features must be (B, D) of one shape for every role, got {shapes}")
        size = next(iter(shapes.values()))[0]
        for role, ids in (content or {}).items():
            if ids.shape != (size,):
                raise InputError(f"content[{role!r}] must have shape ({size},), got {tuple(ids.shape)}")


def _present(content: Mapping[str, Tensor], like: Tensor, *roles: str) -> Tensor:
    """Return which samples have all of these roles."""
    present = torch.ones(like.shape[0], dtype=torch.bool, device=like.device)
    for role in roles:
        if role in content:
            present = present & (content[role] != MISSING)
    return present


def _mean(values: Tensor, valid: Tensor, rows: Tensor) -> Tensor:
    """Return this process's share of the mean over all valid rows of all processes, times the number of processes."""
    processes = valid.shape[0] / rows.shape[0]
    return torch.where(valid[rows], values, 0).sum() * processes / valid.sum().clamp(min=1)
