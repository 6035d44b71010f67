"""A taxonomy over phrases: which phrase is more general than which, as is-a edges say.

Phrases are what captions and boxes say ("a red apple"), so that a batch can ask what stands above each of its phrases.
Case and spacing make no difference, as they make none to the tokenizer.
"""

from hypclip.taxonomy.emoji import emoji_edges
from hypclip.taxonomy.graph import Edge, Taxonomy, acyclic, same_phrase
from hypclip.taxonomy.sources import load_taxonomy

__all__ = ["Edge", "Taxonomy", "acyclic", "emoji_edges", "load_taxonomy", "same_phrase"]
