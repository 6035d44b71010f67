"""Vector stores: points of hyperbolic space with metadata, kept on disk, searched by distance."""

from hypclip.search.errors import ModelMismatch, UnknownCollection, UnknownPoint
from hypclip.search.local import LocalStore
from hypclip.search.store import Collection, Hit, Modality, Neighbours, Points, Space, VectorStore

__all__ = [
    "Collection",
    "Hit",
    "LocalStore",
    "Modality",
    "ModelMismatch",
    "Neighbours",
    "Points",
    "Space",
    "UnknownCollection",
    "UnknownPoint",
    "VectorStore",
]
