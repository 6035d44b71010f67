"""A taxonomy over phrases: which phrase is more general than which, as is-a edges say.

Phrases are what captions and boxes say ("a red apple"), so that a batch can ask what stands above each of its phrases.
Case and spacing make no difference, as they make none to the tokenizer.
"""

from hypclip.taxonomy.graph import Edge, Pairs, Taxonomy, acyclic, same_phrase
from hypclip.taxonomy.sources import load
from hypclip.taxonomy.sources.emoji import emoji_edges

__all__ = ["Edge", "Pairs", "Taxonomy", "acyclic", "emoji_edges", "load", "same_phrase"]
