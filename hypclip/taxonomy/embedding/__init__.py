"""Taxonomies in hyperbolic space: trained on their closure, or placed without training; and how good the result is."""

from hypclip.taxonomy.embedding.closed_form import place
from hypclip.taxonomy.embedding.cones import ConeTraining, Prediction, cone_start, predict, train_cones
from hypclip.taxonomy.embedding.poincare import Progress, Training, train
from hypclip.taxonomy.embedding.prediction import Split, split
from hypclip.taxonomy.embedding.reconstruction import Reconstruction, reconstruction

__all__ = [
    "ConeTraining",
    "Prediction",
    "Progress",
    "Reconstruction",
    "Split",
    "Training",
    "cone_start",
    "place",
    "predict",
    "reconstruction",
    "split",
    "train",
    "train_cones",
]
