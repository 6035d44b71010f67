"""Contrastive and entailment losses. A recipe is data; `Objective` evaluates it."""

from hypclip.objective.objective import Loss, Objective
from hypclip.objective.recipe import RECIPES, Contrast, Edge, Recipe, recipe_from

__all__ = ["RECIPES", "Contrast", "Edge", "Loss", "Objective", "Recipe", "recipe_from"]
