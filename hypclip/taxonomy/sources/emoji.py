"""The taxonomy of the quickstart's drawings."""

from __future__ import annotations

from hypclip.data.quickstart.art import concepts
from hypclip.data.quickstart.scenes import article
from hypclip.taxonomy.graph import Edge

HELD_OUT_EVERY = 5
"""Every fifth name of the emoji is in no training term that knows the taxonomy, so that it can be asked for it."""


def emoji_edges(held_out: bool = False) -> list[Edge]:
    """Return the is-a edges of the quickstart's drawings as phrases: a red apple → a fruit → a food.

    Args:
        held_out: only the edges of names with index % 5 = 0, in place of all others.

    A name that is also that of a kind, such as a bird, stands at the place of the kind alone.
    """
    kinds = {concept.kind for concept in concepts()}
    edges: dict[Edge, None] = {}
    for concept in concepts():
        name, kind, family = (article(part) for part in (concept.name, concept.kind, concept.family))
        if not held_out:
            edges[kind, family] = None
        if concept.name not in kinds and (concept.index % HELD_OUT_EVERY == 0) == held_out:
            edges[name, kind] = None
    return list(edges)
