"""Requests and responses of maps of collections and views of them from one point."""

from __future__ import annotations

from pydantic import BaseModel, Field

from serve.schemas.fields import Flag, Schema
from serve.schemas.items import Item
from serve.schemas.search import RULE, Rule, Scale


class FocusRequest(Schema):
    """The point from which to look at a collection."""

    of: Item = Field(examples=["a photo of a dog"])
    target: Item | None = Field(
        None,
        description="Another point: places are then given in the plane of the two, as distance from the first and "
        "angle at it from the direction of the second. null, or one in the same "
        "place, is the plane with the root.",
        examples=["an animal"],
    )
    rule: Rule | None = RULE
    aperture_scale: Scale = 1.0
    reflexive: Flag = Field(False, description="Let a point be its own ancestor and descendant.")


class LayoutInfo(BaseModel):
    """The layout of a collection: which one of those it has had, and how many points there were when it was made."""

    layout: int
    built_at: int
