"""Names and what stands above them, as a directed graph without cycles."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hypclip.errors import DataError, first_few

Edge = tuple[str, str]
"""Child and parent: the first is a kind of the second."""


class Pairs(NamedTuple):
    """Pairs of names by their places in `Taxonomy.phrases`: `below[i]` is a kind of `above[i]`."""

    below: NDArray[np.int64]
    above: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of pairs, not of arrays."""
        return len(self.below)


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

    @functools.cached_property
    def phrases(self) -> tuple[str, ...]:
        """Every phrase, the most general first, in a fixed order."""
        return tuple(sorted(self._graph, key=lambda phrase: (self._levels[phrase], phrase)))

    @functools.cached_property
    def general(self) -> tuple[str, ...]:
        """The phrases that stand above another, the most general first, in a fixed order."""
        return tuple(phrase for phrase in self.phrases if self._graph.in_degree(phrase))

    @property
    def roots(self) -> tuple[str, ...]:
        """The phrases that have no parent, in a fixed order."""
        return tuple(phrase for phrase in self.phrases if not self._levels[phrase])

    @property
    def leaves(self) -> tuple[str, ...]:
        """The phrases that stand above no other, in a fixed order."""
        return tuple(phrase for phrase in self.phrases if not self._graph.in_degree(phrase))

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

    def parents(self, phrase: str) -> tuple[str, ...]:
        """Return the parents of a phrase, in a fixed order; none for a phrase that is not in the taxonomy."""
        return self._beside(phrase, "successors")

    def children(self, phrase: str) -> tuple[str, ...]:
        """Return the children of a phrase, in a fixed order; none for a phrase that is not in the taxonomy."""
        return self._beside(phrase, "predecessors")

    def ancestors(self, phrase: str) -> tuple[str, ...]:
        """Return all ancestors of a phrase, the nearest level first; none for a phrase that is not in the taxonomy."""
        return self._ancestors(same_phrase(phrase))

    def descendants(self, phrase: str) -> tuple[str, ...]:
        """Return all that is below a phrase, the most general first; none for a phrase that is not in the taxonomy."""
        phrase = same_phrase(phrase)
        below = nx.ancestors(self._graph, phrase) if phrase in self._graph else ()
        return tuple(sorted(below, key=lambda down: (self._levels[down], down)))

    def lowest_common_ancestors(self, *phrases: str) -> tuple[str, ...]:
        """Return what stands above (or is) all of the phrases, and above no other such: one in a tree, none if apart.

        Raises:
            KeyError: a phrase is not in the taxonomy.
        """
        shared: set[str] | None = None
        for phrase in phrases:
            self.level(phrase)
            own = {same_phrase(phrase), *self.ancestors(phrase)}
            shared = own if shared is None else shared & own
        shared = shared or set()
        over = {up for phrase in shared for up in self.ancestors(phrase)}
        return tuple(sorted(shared - over, key=lambda phrase: (-self._levels[phrase], phrase)))

    @functools.cached_property
    def closure(self) -> Pairs:
        """Every pair of a phrase and an ancestor, by place in `phrases`; the pairs of a phrase stand together."""
        place = {phrase: i for i, phrase in enumerate(self.phrases)}
        above: list[set[int]] = []
        for phrase in self.phrases:  # parents have been gone through before: they are on a level above
            up = [place[parent] for parent in self._graph.successors(phrase)]
            above.append(set(up).union(*(above[parent] for parent in up)))
        counts = [len(found) for found in above]
        return Pairs(
            np.repeat(np.arange(len(above)), counts),
            np.fromiter((i for found in above for i in sorted(found)), np.int64, sum(counts)),
        )

    def reduced(self) -> Taxonomy:
        """Return the taxonomy without the edges that follow from others: its transitive reduction."""
        return Taxonomy(nx.transitive_reduction(self._graph).edges)

    def below(self, phrase: str) -> Taxonomy:
        """Return the part of the taxonomy that a phrase is the root of.

        Raises:
            DataError: the phrase is not in the taxonomy, or nothing is below it.
        """
        if phrase not in self:
            raise DataError(f"{phrase!r} is not in the taxonomy")
        return self._part({same_phrase(phrase), *self.descendants(phrase)})

    def pruned(self, labels: Iterable[str]) -> Taxonomy:
        """Return the part of the taxonomy that leads from labels up to the roots.

        Raises:
            DataError: a label is not in the taxonomy; the message names the first few.
        """
        labels = list(labels)
        if unknown := [label for label in labels if label not in self]:
            raise DataError(f"not in the taxonomy: {first_few(unknown)}")
        return self._part({same_phrase(label) for label in labels}.union(*map(self.ancestors, labels)))

    def rooted(self, root: str = "root") -> Taxonomy:
        """Return the taxonomy with one root: itself where it has one, else with a phrase above all of its roots.

        Raises:
            DataError: the phrase stands in it already.
        """
        if len(self.roots) == 1:
            return self
        if root in self:
            raise DataError(f"{root!r} cannot be put above the {len(self.roots)} roots: it is in the taxonomy already")
        return Taxonomy([*self.edges, *((top, root) for top in self.roots)])

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

    def _beside(self, phrase: str, side: str) -> tuple[str, ...]:
        phrase = same_phrase(phrase)
        found = getattr(self._graph, side)(phrase) if phrase in self._graph else ()
        return tuple(sorted(found, key=lambda other: (self._levels[other], other)))

    def _part(self, phrases: set[str]) -> Taxonomy:
        return Taxonomy((child, parent) for child, parent in self.edges if child in phrases and parent in phrases)


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
