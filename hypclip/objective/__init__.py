"""Contrastive and entailment losses. A recipe is data; `Objective` evaluates it."""

from hypclip.objective.objective import Loss, Objective
from hypclip.objective.recipe import RECIPES, Recipe, recipe_from
from hypclip.objective.terms import Anchor, Contrast, Edge, Entail, Lineage, Order, Regulariser

__all__ = [
    "RECIPES",
    "Anchor",
    "Contrast",
    "Edge",
    "Entail",
    "Lineage",
    "Loss",
    "Objective",
    "Order",
    "Recipe",
    "Regulariser",
    "recipe_from",
]
