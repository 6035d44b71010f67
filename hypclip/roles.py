"""The roles of a sample's parts, as data makes them, towers embed them and objectives relate them."""

from __future__ import annotations

from typing import Literal

Role = Literal["image", "text", "box_image", "box_text"]
"""Whole picture, its caption, the crop of one box, the phrase of that box."""

BOX_ROLES: frozenset[Role] = frozenset({"box_image", "box_text"})
"""The roles of which a sample can have several."""

MISSING = -1
"""Content id of a part that a sample does not have, such as the box of a picture without boxes."""
