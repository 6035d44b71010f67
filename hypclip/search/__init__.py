"""Vector stores: points of hyperbolic space with metadata, on disk, searched by distance, by cones, along geodesics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypclip.geometry.entailment import Cone, Entailment, Plane
from hypclip.search.browse import Browser, Fields, FieldSummary, Listed, Listing, Order
from hypclip.search.contents import Contents
from hypclip.search.errors import ModelMismatch, Unavailable, UnknownCollection, UnknownField, UnknownPoint
from hypclip.search.hierarchy.relations import Ordering, common_ancestors, mean, order
from hypclip.search.hierarchy.traverse import Traversal, traverse
from hypclip.search.local.store import LocalStore
from hypclip.search.route import Route
from hypclip.search.space import Space
from hypclip.search.store import VectorStore
from hypclip.search.types import Collection, Hit, Index, OrderBy, Page, Points, Side
from hypclip.search.where import ANYTHING, Modality, Where

if TYPE_CHECKING:
    from hypclip.search.qdrant.store import QdrantStore as QdrantStore

__all__ = [
    "ANYTHING",
    "Browser",
    "Collection",
    "Cone",
    "Contents",
    "Entailment",
    "FieldSummary",
    "Fields",
    "Hit",
    "Index",
    "Listed",
    "Listing",
    "LocalStore",
    "Modality",
    "ModelMismatch",
    "Order",
    "OrderBy",
    "Ordering",
    "Page",
    "Plane",
    "Points",
    "Route",
    "Side",
    "Space",
    "Traversal",
    "Unavailable",
    "UnknownCollection",
    "UnknownField",
    "UnknownPoint",
    "VectorStore",
    "Where",
    "common_ancestors",
    "mean",
    "order",
    "traverse",
]


def __getattr__(name: str) -> Any:
    if name == "QdrantStore":  # only on demand, for it needs an extra
        from hypclip.search.qdrant.store import QdrantStore

        return QdrantStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
