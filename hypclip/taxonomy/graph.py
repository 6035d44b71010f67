"""Phrases and what stands above them, as a directed graph without cycles."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import networkx as nx

from hypclip.errors import DataError

Edge = tuple[str, str]
"""Child and parent: the first is a kind of the second."""


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
        """Return the number of steps from a phrase up to its roots, by the longest way; 0 for a root.

        Raises:
            KeyError: the phrase is not in the taxonomy.
        """
        return self._levels[same_phrase(phrase)]

    def ancestors(self, phrase: str) -> tuple[str, ...]:
        """Return all ancestors of a phrase, the nearest level first; none for a phrase that is not in the taxonomy."""
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
