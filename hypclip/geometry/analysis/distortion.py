"""Distortion of the distances of a graph by an embedding.

All measures take an embedded distance matrix, such as `lorentz.pairwise_dist(x, x, curv)`, and the distance
matrix of a graph (see `graph_distances`) with the same nodes in the same order. They average over pairs of different
nodes, in float64 and O(n²) memory. Source: Sala et al. 2018, arXiv:1804.03329.
"""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hypclip.errors import InputError
from hypclip.geometry.analysis._check_matrix import checked_distances, first


def graph_distances(graph: nx.Graph, weight: str | None = None) -> tuple[list[Any], Float[Tensor, "n n"]]:
    """Return the nodes of a connected undirected graph and the lengths of the shortest paths between them.

    Args:
        graph: undirected; of a taxonomy, its `to_undirected()`.
        weight: the edge attribute that holds lengths above 0; every edge has length 1 when absent.

    Raises:
        InputError: directed, not connected, fewer than 2 nodes, or an edge without such a length.
    """
    if graph.is_directed():
        raise InputError("graph must be undirected, got a directed one: pass graph.to_undirected()")
    if len(graph) < 2:
        raise InputError(f"graph must have at least 2 nodes, got {len(graph)}")
    if weight is not None:
        for source, target, length in graph.edges(data=weight):
            if not isinstance(length, int | float) or not 0 < length < math.inf:
                raise InputError(
                    f"edge {source!r} – {target!r} must have a length above 0 as {weight!r}, got {length!r}"
                )
    nodes = list(graph)
    distances = torch.empty(len(nodes), len(nodes), dtype=torch.float64)
    for row, node in enumerate(nodes):
        if weight is None:
            reached = dict(nx.single_source_shortest_path_length(graph, node))
        else:
            reached = nx.single_source_dijkstra_path_length(graph, node, weight=weight)
        if len(reached) < len(nodes):
            apart = next(other for other in nodes if other not in reached)
            raise InputError(f"graph must be connected, but no path joins {node!r} and {apart!r}")
        distances[row] = torch.tensor([reached[other] for other in nodes], dtype=torch.float64)
    return nodes, distances


def average_distortion(embedded: Float[Tensor, "n n"], graph: Float[Tensor, "n n"], scale: float = 1.0) -> float:
    """Return the mean of |d_H/τ − d_G|/d_G over pairs, with τ = `scale`; 0 is perfect, a collapsed embedding has 1.

    Args:
        embedded: distances d_H of the embedding.
        graph: distances d_G of the graph.
        scale: the embedded length of a step in the graph, τ > 0: the one the embedding was built with, or
            `optimal_scale`.

    Raises:
        InputError: not two distance matrices of the same nodes, nodes of the graph that are not connected or at
            distance 0, or a scale that is not positive.
    """
    if not 0 < scale < math.inf:
        raise InputError(f"scale must be positive, got {scale}")
    return (_ratios(embedded, graph) / scale - 1).abs().mean().item()


def optimal_scale(embedded: Float[Tensor, "n n"], graph: Float[Tensor, "n n"]) -> float:
    """Return the τ of least average distortion: the median of the ratios d_H/d_G, weighted by themselves.

    The sum of |r/τ − 1| = r |1/τ − 1/r| over the ratios r is least where 1/τ is the median of 1/r with weights r.

    Raises:
        InputError: as `average_distortion`, or all nodes are embedded in one point.
    """
    ratios = _ratios(embedded, graph).sort().values
    weight = ratios.cumsum(0)
    if weight[-1] == 0:
        raise InputError("embedded must hold a distance above 0: all nodes are embedded in one point")
    return ratios[torch.searchsorted(weight, weight[-1] / 2)].item()


def worst_case_distortion(embedded: Float[Tensor, "n n"], graph: Float[Tensor, "n n"]) -> float:
    """Return max(d_H/d_G)/min(d_H/d_G) over pairs: 1 is perfect, and scale plays no part.

    Raises:
        InputError: as `average_distortion`, or two nodes are embedded in one point.
    """
    ratios = _ratios(embedded, graph)
    if ratios.min() == 0:
        i, j = first((embedded <= 0).fill_diagonal_(False)) or (0, 0)
        raise InputError(f"embedded must be above 0 between nodes, but nodes {i} and {j} are embedded in one point")
    return (ratios.max() / ratios.min()).item()


def neighbour_map(embedded: Float[Tensor, "n n"], adjacent: Bool[Tensor, "n n"]) -> float:
    """Return the mean average precision with which the nearest points of a node are its neighbours in the graph.

    Mean over nodes a, and over the neighbours b of a, of |N(a) ∩ R|/|R| with R the points that are at most as far from
    a as b is. 1 is perfect. Of points at the same distance none comes first, so that ties cost.

    Args:
        embedded: distances of the embedding.
        adjacent: true between neighbours, such as `graph == 1` for distances of edges of length 1.

    Raises:
        InputError: not a distance matrix, not a boolean matrix of its shape, or a node without a neighbour.
    """
    d = checked_distances(embedded, "embedded").fill_diagonal_(torch.inf)
    if adjacent.dtype != torch.bool or adjacent.shape != d.shape:
        raise InputError(
            f"adjacent must be boolean of shape {tuple(d.shape)}, got {adjacent.dtype} of {tuple(adjacent.shape)}"
        )
    neighbours = adjacent.clone().fill_diagonal_(False)
    if where := first(~neighbours.any(1)):
        raise InputError(f"every node needs a neighbour, but node {where[0]} has none")
    ordered, order = d.sort(1)
    relevant = neighbours.gather(1, order)
    within = torch.searchsorted(ordered, ordered, right=True)
    precision = relevant.cumsum(1).gather(1, within - 1) / within
    return ((precision * relevant).sum(1) / relevant.sum(1)).mean().item()


def _ratios(embedded: Tensor, graph: Tensor) -> Tensor:
    """Return d_H/d_G of every pair of different nodes, once."""
    if where := first(graph.isinf()):
        raise InputError(f"graph must be connected, but nodes {where[0]} and {where[1]} are at distance {graph[where]}")
    d_g, d_h = checked_distances(graph, "graph"), checked_distances(embedded, "embedded")
    if d_h.shape != d_g.shape:
        raise InputError(f"embedded and graph must have the same nodes, got {len(d_h)} and {len(d_g)}")
    if where := first((d_g == 0).fill_diagonal_(False)):
        raise InputError(f"graph must be above 0 between nodes, but nodes {where[0]} and {where[1]} are at distance 0")
    pairs = torch.ones_like(d_g, dtype=torch.bool).triu(1)
    return d_h[pairs] / d_g[pairs]
