"""The loss of entailment by the phrases of a taxonomy, over the texts and images of a batch, level by level."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from hypclip.geometry.entailment import pairwise_score
from hypclip.objective.inputs import Concepts, Inputs
from hypclip.objective.recipe import Recipe
from hypclip.objective.terms import Lineage
from hypclip.roles import CONCEPT, MISSING, SPOKEN

MAX_LEVELS = 16
"""Levels of a taxonomy that are told apart; deeper ones count as the last."""


def lineage(term: Lineage, recipe: Recipe, batch: Inputs) -> Tensor:
    """Return the value of one term, see `Lineage`; 0 where no phrase of the batch is in the taxonomy."""
    concepts = batch.concepts
    if concepts is None:
        return batch.curv.new_zeros(())
    if term.specific == CONCEPT:
        held, own = _related(concepts.ids, concepts.ancestors, concepts)
        among = concepts.counts & held.any(1)
        weight = among.to(concepts.points) / among.sum().clamp(min=1)
        cost = _cost(term, recipe, batch, concepts, concepts.points, held, own)
        return (cost * weight).sum()
    spoken = SPOKEN.get(term.specific, term.specific)
    if spoken not in batch.ancestors:
        return batch.curv.new_zeros(())
    ids, above = batch.content[spoken], batch.ancestors[spoken]
    held, own = _related(ids.flatten(), above.flatten(0, 1), concepts)
    if spoken != term.specific:  # an image is an instance of what is said of it
        held, own = held | own, torch.zeros_like(own)
    shares = batch.shares(term.specific, spoken, among=held.any(1).view(ids.shape))
    boxes = ids.shape[1]
    rows = batch.rows(boxes)
    points = batch.points[term.specific].flatten(0, 1)[rows]
    cost = _cost(term, recipe, batch, concepts, points, held[rows], own[rows])
    return (cost * shares.flatten()).sum()


def _related(ids: Tensor, above: Tensor, concepts: Concepts) -> tuple[Tensor, Tensor]:
    """Return masks (n, C) of the phrases that are ancestors of each text, and of those that are the text itself."""
    held = (above.unsqueeze(2) == concepts.ids).any(1)
    own = (ids.unsqueeze(1) == concepts.ids) & (ids != MISSING).unsqueeze(1)
    return held & concepts.counts, own & concepts.counts


def _cost(
    term: Lineage, recipe: Recipe, batch: Inputs, concepts: Concepts, points: Tensor, held: Tensor, own: Tensor
) -> Tensor:
    """Return the cost of each point, (n,): the mean over the levels of the phrases that entail it."""
    score = pairwise_score(recipe.rule, concepts.points, points, recipe.metric, batch.curv).T.double()
    level = concepts.levels.clamp(0, MAX_LEVELS - 1)
    of_level = one_hot(level, MAX_LEVELS).double()  # (C, L)
    number = held.double() @ of_level  # (n, L): how many of its ancestors a point has at each level
    # What is entailed at a level says which phrases of that level are wrong; of other levels nothing is known.
    wrong = concepts.counts & ~held & ~own & (number > 0)[:, level]
    logits = term.contrast_scale * score
    top = logits.detach().masked_fill(~(wrong | held), -torch.inf).amax(1, keepdim=True).clamp(min=-1e9)
    total = torch.exp(torch.where(wrong, logits - top, -torch.inf)) @ of_level  # (n, L)
    rivals = (torch.log(total.clamp(min=1e-300)) + top)[:, level]  # log Σ exp over the wrong phrases of its level
    contrast = softplus(rivals - logits) * (total > 0)[:, level]
    right = (term.contrast * contrast + softplus(-term.scale * score)) / number.clamp(min=1)[:, level]
    cost = torch.where(held, right, 0) + torch.where(wrong, term.negatives * softplus(term.scale * score), 0)
    return (cost.sum(1) / (number > 0).sum(1).clamp(min=1)).to(points.dtype)
