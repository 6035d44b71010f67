"""The nouns and verbs of WordNet 3.0 and their hypernyms, from tables that `build` makes.

WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. See LICENSE in this folder.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, NamedTuple, TypeAlias

Part: TypeAlias = Literal["noun", "verb"]
MAMMAL = "mammal.n.01"
_LETTER = {"noun": "n", "verb": "v"}
_LEFT_OUT = frozenset({"female_mammal.n.01", "tusker.n.01"})
"""Two leaves below `mammal` that the benchmark of mammals leaves out, so that it has 1,180 synsets and 6,540 pairs."""


class Synset(NamedTuple):
    """A set of words of one meaning: `dog.n.01`, its place in WordNet's file, its words, the names of its hypernyms."""

    name: str
    offset: int
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


@dataclass(frozen=True)
class WordNet:
    """The synsets of a part of speech by name, in the order of their offsets, and the senses of each word.

    Words are in lower case with underscores; a sense is the word as it is spelled in it ("Turkey"), and the synset's
    name.
    """

    synsets: Mapping[str, Synset]
    senses: Mapping[str, tuple[tuple[str, str], ...]]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """The is-a edges (synset, hypernym); those of instances, such as of a person, too."""
        return [(synset.name, up) for synset in self.synsets.values() for up in synset.hypernyms]

    def find(self, word: str) -> Synset | None:
        """Return the first sense of a word or compound, such as "guinea pig"; None where WordNet has none."""
        senses = self.senses.get("_".join(word.lower().split()))
        return None if senses is None else self.synsets[senses[0][1]]

    def at(self, offset: int) -> Synset:
        """Return the synset at an offset of WordNet's file: the number in an ImageNet id such as n02084071.

        Raises:
            KeyError: there is none.
        """
        return self._by_offset[offset]

    @functools.cached_property
    def _by_offset(self) -> dict[int, Synset]:
        return {synset.offset: synset for synset in self.synsets.values()}


@functools.cache
def load(part: Part = "noun") -> WordNet:
    """Return the nouns or verbs of WordNet 3.0: 82,115 or 13,767 synsets; read once, in about a second."""
    table = lzma.decompress((files(__package__) / f"{part}s.txt.xz").read_bytes()).decode("ascii")
    rows: list[tuple[int, list[tuple[str, int]], list[int]]] = []
    for line in table.splitlines():
        synset, _, up = line.partition("\t")
        offset, *words = synset.split(" ")
        senses = [(lemma, int(sense)) for lemma, _, sense in (word.rpartition(":") for word in words)]
        rows.append((int(offset), senses, [int(row) for row in up.split()]))
    names = [f"{senses[0][0].lower()}.{_LETTER[part]}.{senses[0][1]:02d}" for _, senses, _ in rows]
    synsets = {
        name: Synset(name, offset, tuple(lemma for lemma, _ in senses), tuple(names[row] for row in up))
        for name, (offset, senses, up) in zip(names, rows, strict=True)
    }
    found: dict[str, list[tuple[int, str, str]]] = {}
    for name, (_, senses, _) in zip(names, rows, strict=True):
        for lemma, sense in senses:
            found.setdefault(lemma.lower(), []).append((sense, lemma, name))
    ordered = {word: tuple((lemma, name) for _, lemma, name in sorted(some)) for word, some in found.items()}
    return WordNet(synsets, ordered)


def mammals() -> list[tuple[str, str]]:
    """Return the is-a edges below `mammal`, the benchmark of Nickel & Kiela (2017): 1,180 synsets."""
    edges = load("noun").edges
    children: dict[str, list[str]] = {}
    for child, parent in edges:
        children.setdefault(parent, []).append(child)
    below, stack = {MAMMAL}, [MAMMAL]
    while stack:
        found = [child for child in children.get(stack.pop(), ()) if child not in below]
        below.update(found)
        stack += found
    kept = below - _LEFT_OUT
    return [(child, parent) for child, parent in edges if child in kept and parent in kept]
