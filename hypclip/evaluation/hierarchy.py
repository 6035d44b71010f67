"""Severity of wrong answers, by a taxonomy of the classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import networkx as nx

from hypclip.errors import DataError
from hypclip.evaluation.folders import same_form
from hypclip.files import read_text
from hypclip.taxonomy import acyclic


def read_taxonomy(path: Path) -> nx.DiGraph:
    """Read is-a edges [["child", "parent"], ...] from a JSON file; see `build_taxonomy`.

    Raises:
        DataError: unreadable, or not such a list.
    """
    try:
        edges = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read a taxonomy from {path}: {error}") from error
    if not isinstance(edges, list) or not all(
        isinstance(e, list) and len(e) == 2 and all(isinstance(n, str) for n in e) for e in edges
    ):
        raise DataError(f'{path} must hold [["child", "parent"], ...]')
    return build_taxonomy([[same_form(node) for node in edge] for edge in edges])  # as class keys are


def build_taxonomy(edges: Iterable[Sequence[str]]) -> nx.DiGraph:
    """Return the directed graph child → parent; a node may have several parents.

    Raises:
        DataError: no edges, or a cycle.
    """
    graph = acyclic((child, parent) for child, parent in edges)
    if not graph:
        raise DataError("the taxonomy has no edges")
    return graph


def require_classes(graph: nx.DiGraph, classes: Iterable[str]) -> None:
    """Check that classes can be scored against each other, whichever is predicted.

    Raises:
        DataError: a class is not in the taxonomy, or two of them are not connected.
    """
    wanted = sorted(set(classes))
    if lost := [name for name in wanted if name not in graph]:
        raise DataError(f"class {lost[0]!r} is not in the taxonomy ({len(lost)} such classes)")
    connected = nx.node_connected_component(graph.to_undirected(as_view=True), wanted[0])
    if apart := [name for name in wanted if name not in connected]:
        raise DataError(f"the taxonomy does not connect {apart[0]!r} with {wanted[0]!r}")


def hierarchy_scores(graph: nx.DiGraph, predicted: Sequence[str], true: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield tie, lca, jaccard, hierarchical_precision and hierarchical_recall, averaged over images.

    With A(y) the ancestors of y and y itself: tie = edges on the shortest path from prediction to truth,
    lca = |A(ŷ)| − |A(ŷ)∩A(y)| + 1, jaccard = |A(ŷ)∩A(y)|/|A(ŷ)∪A(y)|, precision = |A(ŷ)∩A(y)|/|A(ŷ)|, recall the same
    over |A(y)|.

    Source: Pal et al. 2024, arXiv:2410.06912.

    Raises:
        DataError: a class is not in the taxonomy, or two of them are not connected.
    """
    require_classes(graph, {*predicted, *true})
    undirected = graph.to_undirected(as_view=True)

    @functools.cache
    def up(node: str) -> frozenset[str]:
        return frozenset(nx.descendants(graph, node)) | {node}

    @functools.cache
    def steps(node: str) -> dict[str, int]:
        return dict(nx.single_source_shortest_path_length(undirected, node))

    tie = lca = jaccard = precision = recall = 0.0
    for guess, truth in zip(predicted, true, strict=True):
        common = len(up(guess) & up(truth))
        tie += steps(truth)[guess]
        lca += len(up(guess)) - common + 1
        jaccard += common / len(up(guess) | up(truth))
        precision += common / len(up(guess))
        recall += common / len(up(truth))
    n = len(true)
    yield "tie", tie / n
    yield "lca", lca / n
    yield "jaccard", jaccard / n
    yield "hierarchical_precision", precision / n
    yield "hierarchical_recall", recall / n


def same_ancestor(graph: nx.DiGraph, predicted: Sequence[str], true: Sequence[str], depth: int) -> float:
    """Return the fraction of images whose prediction and truth share an ancestor `depth` steps below the root."""
    at_depth = ancestors_at(graph, {*predicted, *true}, depth)
    return sum(bool(at_depth[p] & at_depth[t]) for p, t in zip(predicted, true, strict=True)) / len(true)


def ancestors_at(graph: nx.DiGraph, nodes: Iterable[str], depth: int) -> dict[str, frozenset[str]]:
    """Return for each node what of it and its ancestors lies `depth` steps below the root."""
    levels = {
        node: level for level, some in enumerate(nx.topological_generations(graph.reverse(copy=False))) for node in some
    }
    return {
        node: frozenset(up for up in (nx.descendants(graph, node) | {node}) if levels[up] == depth) for node in nodes
    }
