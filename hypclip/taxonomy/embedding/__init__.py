"""Taxonomies in hyperbolic space: trained on their closure, or placed without training; and how good the result is."""

from hypclip.taxonomy.embedding.closed_form import place
from hypclip.taxonomy.embedding.poincare import Progress, Training, train
from hypclip.taxonomy.embedding.reconstruction import Reconstruction, reconstruction

__all__ = ["Progress", "Reconstruction", "Training", "place", "reconstruction", "train"]
