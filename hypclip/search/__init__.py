"""Vector stores: points of hyperbolic space with metadata, on disk, searched by distance, by cones, along geodesics."""

from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.search.errors import ModelMismatch, Unavailable, UnknownCollection, UnknownField, UnknownPoint
from hypclip.search.local import LocalStore
from hypclip.search.path import Path
from hypclip.search.store import Collection, Found, Hit, Index, Order, Points, Side, Space, VectorStore
from hypclip.search.where import ANYTHING, Modality, Where

__all__ = [
    "ANYTHING",
    "Collection",
    "Cone",
    "Entailment",
    "Found",
    "Hit",
    "Index",
    "LocalStore",
    "Modality",
    "ModelMismatch",
    "Order",
    "Path",
    "Plane",
    "Points",
    "Side",
    "Space",
    "Unavailable",
    "UnknownCollection",
    "UnknownField",
    "UnknownPoint",
    "VectorStore",
    "Where",
]
