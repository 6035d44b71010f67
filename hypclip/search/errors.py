"""Errors of stores."""

from __future__ import annotations

from hypclip.errors import InputError, StoreError
from hypclip.search.space import Space


class UnknownCollection(StoreError):
    """There is no collection of this name."""

    def __init__(self, name: str):
        super().__init__(f"there is no collection {name!r}; the first upsert creates one")
        self.name = name


class UnknownPoint(StoreError):
    """The collection has no point with this id."""

    def __init__(self, name: str, point_id: str):
        super().__init__(f"collection {name!r} has no point {point_id!r}")
        self.name, self.point_id = name, point_id


class ModelMismatch(StoreError):
    """The points of a collection were made by another model, or by one that entails by another rule: see Space."""

    def __init__(self, name: str, stored: Space, asked: Space):
        super().__init__(
            f"collection {name!r} holds points of {stored.beside(asked)}, this is {asked.beside(stored)}: "
            "search it with the model that made it, or embed its contents again into a new collection"
        )
        self.name, self.stored, self.asked = name, stored, asked


class UnknownField(InputError):
    """A filter names a metadata field that no point of the collection has, usually by a typo."""

    def __init__(self, name: str, field: str):
        super().__init__(f"no point of collection {name!r} has a metadata field {field!r}, which the filter names")
        self.name, self.field = name, field


class Unavailable(StoreError):
    """The store cannot be reached, or does not answer in time; the same call may work later."""
