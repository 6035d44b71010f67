"""A taxonomy over phrases: which phrase is more general than which, as is-a edges say.

Phrases are what captions and boxes say ("a red apple"), so that a batch can ask what stands above each of its phrases.
Case and spacing make no difference, as they make none to the tokenizer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import networkx as nx

from hypclip.data.quickstart.art import concepts
from hypclip.data.quickstart.scenes import article
from hypclip.errors import DataError, first_few
from hypclip.files import read_text, user_path

Edge = tuple[str, str]
"""Child and parent: the first is a kind of the second."""

NAMES = ("emoji", "emoji-held-out")
"""Taxonomies that come with the package; the second has the fifth of the emoji's names that the first leaves out."""

HELD_OUT_EVERY = 5
"""Every fifth name of the emoji is in no training term that knows the taxonomy, so that it can be asked for it."""


class Taxonomy:
    """Phrases and what stands above them; a phrase may have several parents.

    Args:
        edges: (child, parent).

    Raises:
        DataError: no edges, a phrase above itself, or a cycle; the message names the phrases.
    """

    def __init__(self, edges: Iterable[Sequence[str]]):
        self._graph = acyclic((same_phrase(child), same_phrase(parent)) for child, parent in edges)
        if not self._graph:
            raise DataError("a taxonomy needs at least one is-a edge [child, parent], got none")
        roots_first = reversed(list(nx.topological_sort(self._graph)))
        self._levels: dict[str, int] = {}
        for phrase in roots_first:
            self._levels[phrase] = max((self._levels[up] + 1 for up in self._graph.successors(phrase)), default=0)

    def __contains__(self, phrase: str) -> bool:
        return same_phrase(phrase) in self._graph

    def __len__(self) -> int:
        """Return the number of phrases."""
        return len(self._graph)

    @property
    def phrases(self) -> tuple[str, ...]:
        """Every phrase, the most general first, in a fixed order."""
        return tuple(sorted(self._graph, key=lambda phrase: (self._levels[phrase], phrase)))

    @property
    def general(self) -> tuple[str, ...]:
        """The phrases that stand above another, the most general first, in a fixed order."""
        return tuple(phrase for phrase in self.phrases if self._graph.in_degree(phrase))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The is-a edges (child, parent), as they were given."""
        return tuple(self._graph.edges)

    def level(self, phrase: str) -> int:
        """Return how many steps a phrase lies below its roots, by the longest way; 0 for a root.

        Raises:
            KeyError: the phrase is not in the taxonomy.
        """
        return self._levels[same_phrase(phrase)]

    def ancestors(self, phrase: str) -> tuple[str, ...]:
        """Return all that stands above a phrase, the nearest level first; nothing for one that is not in it."""
        return self._ancestors(same_phrase(phrase))

    @functools.cached_property
    def most_ancestors(self) -> int:
        """The most ancestors that a phrase has."""
        return max(len(self._ancestors(phrase)) for phrase in self._graph)

    @functools.cached_property
    def _above(self) -> dict[str, tuple[str, ...]]:
        return {}

    def _ancestors(self, phrase: str) -> tuple[str, ...]:
        if phrase not in self._above:
            above = nx.descendants(self._graph, phrase) if phrase in self._graph else ()
            self._above[phrase] = tuple(sorted(above, key=lambda up: (-self._levels[up], up)))
        return self._above[phrase]


def acyclic(edges: Iterable[Edge]) -> nx.DiGraph:
    """Return is-a edges as a directed graph child → parent, in which a node may have several parents.

    Raises:
        DataError: a cycle; the message names what is in it.
    """
    graph = nx.DiGraph(list(edges))
    if not nx.is_directed_acyclic_graph(graph):
        loop = nx.find_cycle(graph)
        path = " → ".join([child for child, _ in loop] + [loop[0][0]])
        raise DataError(f"the taxonomy has a cycle: {path}, in which each would be more general than itself")
    return graph


def same_phrase(phrase: str) -> str:
    """Return a phrase in lower case with single spaces."""
    return " ".join(phrase.lower().split())


def load_taxonomy(source: str | Path | Sequence[Sequence[str]]) -> Taxonomy:
    """Return a taxonomy by name, from a JSON file [["child", "parent"], ...], or from such edges.

    Raises:
        DataError: no such name or file, other content, or edges that `Taxonomy` refuses.
    """
    if not isinstance(source, str | Path):
        return Taxonomy(_checked(source, "the taxonomy"))
    if str(source) in NAMES:
        return Taxonomy(emoji_edges(held_out=str(source) == "emoji-held-out"))
    path = user_path(str(source))
    if not path.is_file():
        raise DataError(f"there is no taxonomy {str(source)!r}: expected a JSON file, or one of {', '.join(NAMES)}")
    try:
        edges = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    try:
        return Taxonomy(_checked(edges, str(path)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


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


def _checked(edges: object, where: str) -> list[Edge]:
    if not isinstance(edges, list | tuple):
        raise DataError(f'{where} must hold is-a edges [["child", "parent"], ...], got {type(edges).__name__}')
    wrong = [
        edge
        for edge in edges
        if not (
            isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(p, str) and p.strip() for p in edge)
        )
    ]
    if wrong:
        raise DataError(
            f'{where} must hold is-a edges [["child", "parent"], ...], got {first_few(list(map(repr, wrong)))}'
        )
    return [(child, parent) for child, parent in edges]
