"""WordNet as a taxonomy over phrases: `data.taxonomy=wordnet`.

Its phrases are names of synsets, such as "motor vehicle"; what stands above any other phrase is what its head noun
means (`head_nouns`), and all that is above that. A name is the first word of a synset that is read as this very synset,
so that no text stands for two; a synset without such a word is left out, and its parents take its place.

What is above one of the 25 kinds of things that WordNet's nouns began with (Miller 1990, "Nouns in WordNet: a lexical
inheritance system", table 1: animal, artifact, food, person, plant, …) is left out: "whole", "object" or "entity" was
put there later, to join them. Most of it holds 14 to 100 % of all nouns, which tells 0 to 3 bits of a picture, and as a
caption no one would write it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from hypclip.taxonomy.graph import Taxonomy, same_phrase
from hypclip.taxonomy.wordnet import Synset, load, morphology
from hypclip.taxonomy.wordnet.head_nouns import Head, HeadNouns

BEGINNERS = (
    "act.n.02", "animal.n.01", "artifact.n.01", "attribute.n.02", "body_part.n.01", "cognition.n.01",
    "communication.n.02", "event.n.01", "feeling.n.01", "food.n.01", "group.n.01", "location.n.01", "measure.n.02",
    "motivation.n.01", "natural_object.n.01", "natural_phenomenon.n.01", "person.n.01", "plant.n.02", "possession.n.02",
    "process.n.06", "relation.n.01", "shape.n.02", "state.n.02", "substance.n.01", "time_period.n.01",
)  # fmt: skip
"""Miller's unique beginners, by their synsets in WordNet 3.0."""
KEPT_PHRASES = 100_000
"""Phrases whose ancestors are kept; captions come once each, phrases of boxes again and again."""


class WordNetTaxonomy(Taxonomy):
    """The nouns of WordNet, and above any phrase what its head noun says.

    It is made again where it is unpickled, from the table of the package, once in a process.
    """

    def __init__(self) -> None:
        synsets = load("noun").synsets
        self._heads = HeadNouns(load("noun"), morphology.load())
        general = too_general(synsets)
        self._names = {
            synset.name: name
            for synset in synsets.values()
            if synset.name not in general and (name := _name(synset, self._heads))
        }
        self._nearest: dict[str, frozenset[str]] = {}
        super().__init__((name, up) for synset, name in self._names.items() for up in self._above_synset(synset))
        self._above_phrase = functools.lru_cache(maxsize=KEPT_PHRASES)(self._above_any)

    def __reduce__(self) -> tuple[Callable[[], Taxonomy], tuple[()]]:
        return taxonomy, ()

    def head(self, phrase: str) -> Head | None:
        """Return the head noun of a phrase and its synset; None where it has none that WordNet knows."""
        return self._heads.find(phrase)

    def ancestors(self, phrase: str) -> tuple[str, ...]:
        """Return what stands above a phrase, the nearest level first: what its head noun is called, and all above that.

        Capital letters tell a country from porcelain, and the names of persons, above which nothing stands.
        """
        return self._above_phrase(phrase)

    @functools.cached_property
    def most_ancestors(self) -> int:
        """The most ancestors that a phrase has, its own head among them."""
        above: dict[str, frozenset[str]] = {}
        for phrase in self.phrases:  # the most general first
            parents = self.parents(phrase)
            above[phrase] = frozenset(parents).union(*(above[parent] for parent in parents))
        return 1 + max(map(len, above.values()))

    def _above_any(self, phrase: str) -> tuple[str, ...]:
        head = self._heads.find(phrase)
        if head is None:
            return ()
        name = self._names.get(head.synset)
        if name is not None and name == same_phrase(phrase):
            return self._ancestors(name)
        nearest = {name} if name is not None else self._above_synset(head.synset)
        above = {up for near in nearest for up in (near, *self._ancestors(near)) if up in self._levels}
        return tuple(sorted(above, key=lambda up: (-self._levels[up], up)))

    def _above_synset(self, synset: str) -> frozenset[str]:
        """Return the names of the nearest synsets above one that have a name."""
        if synset not in self._nearest:
            found: set[str] = set()
            for up in load("noun").synsets[synset].hypernyms:
                name = self._names.get(up)
                found |= self._above_synset(up) if name is None else {name}
            self._nearest[synset] = frozenset(found)
        return self._nearest[synset]


@functools.cache
def taxonomy() -> WordNetTaxonomy:
    """Return WordNet over phrases; made once in a process, in some seconds."""
    return WordNetTaxonomy()


def too_general(synsets: Mapping[str, Synset]) -> frozenset[str]:
    """Return the synsets above the `BEGINNERS` that are none of them."""
    found: set[str] = set()
    stack = list(BEGINNERS)
    while stack:
        up = [name for name in synsets[stack.pop()].hypernyms if name not in found]
        found.update(up)
        stack += up
    return frozenset(found - set(BEGINNERS))


def _name(synset: Synset, heads: HeadNouns) -> str | None:
    for lemma in synset.lemmas:
        text = lemma.lower().replace("_", " ")
        head = heads.find(text)
        if head is not None and head.synset == synset.name:
            return text
    return None
