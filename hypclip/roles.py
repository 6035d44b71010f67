"""The roles of a sample's parts, as data makes them, towers embed them and objectives relate them."""

from __future__ import annotations

from typing import Literal

Role = Literal["image", "text", "box_image", "box_text", "concept"]
"""Whole image, its caption, the crop of one box, the phrase of that box; a phrase of a taxonomy, of no sample."""

CONCEPT: Role = "concept"
"""The role whose rows belong to no sample: C phrases of a taxonomy beside the B samples of a batch."""

SPOKEN: dict[Role, Role] = {"image": "text", "box_image": "box_text"}
"""The text that says what an image shows."""

BOX_ROLES: frozenset[Role] = frozenset({"box_image", "box_text"})
"""The roles of which a sample can have several."""

MISSING = -1
"""Content id of a part that a sample does not have, such as the box of an image without boxes."""
