"""WordNet's morphology of nouns: what a plural is the plural of."""

from __future__ import annotations

import functools
import lzma
from importlib.resources import files
from typing import NamedTuple

_ENDINGS = (
    ("men", "man"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ies", "y"),
    ("s", ""),
)
"""WordNet's rules of detachment for nouns."""


class Words(NamedTuple):
    """What WordNet's files say of single words, from a table that `build` makes.

    Irregular plurals with what they are plurals of, nouns that are adjectives more often, or verbs more often, by the
    texts that WordNet's senses were counted in, nouns that are participles of verbs too ("riding", "painting"), and
    those of them that are hardly ever nouns.
    """

    irregular: dict[str, tuple[str, ...]]
    adjectives: frozenset[str]
    verbs: frozenset[str]
    participles: frozenset[str]
    gerunds: frozenset[str]

    def bases(self, word: str) -> tuple[str, ...]:
        """Return what a word in lower case may be the plural of, irregular ones first; some are no words."""
        regular = (
            word[: -len(end)] + base for end, base in _ENDINGS if word.endswith(end) and len(word) > len(end) + 1
        )
        return (*self.irregular.get(word, ()), *regular)


@functools.cache
def load() -> Words:
    """Return the words of WordNet 3.0; read once."""
    table = lzma.decompress((files(__package__) / "words.txt.xz").read_bytes()).decode("ascii")
    rows = [line.split("\t") for line in table.splitlines()]
    of_class = {mark: frozenset(word for word, marks, _ in rows if mark in marks) for mark in "avpg"}
    irregular = {word: tuple(bases.split(" ")) for word, _, bases in rows if bases}
    return Words(irregular, of_class["a"], of_class["v"], of_class["p"], of_class["g"])
