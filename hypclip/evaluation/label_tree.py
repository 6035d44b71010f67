"""The tree over the classes of a task, as matrices: what probabilities of classes say of all that stands above them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import networkx as nx
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hypclip.errors import DataError, first_few
from hypclip.evaluation.hierarchy import require_classes


class LabelTree:
    """Classes and what stands above them; other nodes of the graph take no part.

    A class may stand above other classes, and a node may have several parents.

    Args:
        graph: is-a edges child → parent, as `hypclip.evaluation.hierarchy.read_taxonomy` returns them.
        classes: in the order of the columns of scores.

    Raises:
        DataError: a class comes twice, is not in the graph, or is not connected with another.
    """

    def __init__(self, graph: nx.DiGraph, classes: Sequence[str]):
        if len(set(classes)) < len(classes):
            twice = sorted({key for key in classes if classes.count(key) > 1})
            raise DataError(f"classes of a tree must be different, and these come twice: {first_few(twice)}")
        require_classes(graph, classes)
        self.classes = tuple(classes)
        above = {key: {key, *nx.descendants(graph, key)} for key in classes}
        part = graph.subgraph(set().union(*above.values()))
        levels = {
            node: level
            for level, nodes in enumerate(nx.topological_generations(part.reverse(copy=False)))
            for node in nodes
        }
        self.nodes = tuple(sorted(levels, key=lambda node: (levels[node], node)))
        """The classes and what stands above one, the most general first, in a fixed order."""
        self.rows = {node: row for row, node in enumerate(self.nodes)}
        """The place of each node."""
        self.levels: Int[Tensor, " nodes"] = torch.tensor([levels[node] for node in self.nodes])
        """Steps to the roots, by the longest way."""
        self.of_class: Int[Tensor, " classes"] = torch.tensor([self.rows[key] for key in classes])
        """The place of each class among the nodes."""
        below = torch.zeros(len(self.nodes), len(classes), dtype=torch.float64)
        for column, key in enumerate(classes):
            below[[self.rows[node] for node in above[key]], column] = 1
        self.below: Float[Tensor, "nodes classes"] = below
        """1 where a class is the node or stands below it."""
        self.information: Float[Tensor, " nodes"] = -(below.mean(1)).log2()
        """What an answer tells, in bits: 0 of a node above all classes, log₂ C of a class without others below it."""
        self._graph = graph

    @functools.cached_property
    def steps(self) -> Float[Tensor, "nodes classes"]:
        """Edges on the shortest path of the graph from each node to each class, as TIE counts them."""
        undirected = self._graph.to_undirected(as_view=True)
        rows = []
        for key in self.classes:
            length = nx.single_source_shortest_path_length(undirected, key)
            rows.append([length[node] for node in self.nodes])
        return torch.tensor(rows, dtype=torch.float64).T

    def posteriors(self, p: Float[Tensor, "n classes"]) -> Float[Tensor, "n nodes"]:
        """Return the probability of every node: of the classes that are it or stand below it, together."""
        return p.to(self.below) @ self.below.T
