"""Distortion against its definition, closed forms and the published construction of trees."""

import cmath
import itertools
import math

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from hypclip.errors import InputError
from hypclip.geometry import lorentz, poincare
from hypclip.geometry.analysis.distortion import (
    average_distortion,
    graph_distances,
    neighbour_map,
    optimal_scale,
    worst_case_distortion,
)


def random_distances(n, seed=0):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x[:, None] - x).norm(dim=-1)


def nearest(d, k):
    return d <= d.kthvalue(k + 1, dim=1, keepdim=True).values


@st.composite
def two_metrics(draw):
    n = draw(st.integers(2, 8))
    return tuple(random_distances(n, draw(st.integers(0, 2**32))) for _ in range(2))


def tree_in_the_disk(branching, depth, length):
    """Place a complete tree by Sarkar's construction: the ball coordinates of its nodes and its graph.

    The children of a node spread evenly on the circle of the given radius around it; a Möbius map moves the node to
    the origin and back.
    """
    radius, places, edges = math.tanh(length / 2), [0j], []

    def grow(node, parent, level):
        here = places[node]
        children = branching if level < depth else 0
        ring = children + (parent is not None)
        towards = 0.0 if parent is None else cmath.phase((parent - here) / (1 - here.conjugate() * parent))
        for k in range(ring - children, ring):
            z = cmath.rect(radius, towards + 2 * math.pi * k / ring)
            places.append((z + here) / (1 + here.conjugate() * z))
            edges.append((node, len(places) - 1))
            grow(len(places) - 1, here, level + 1)

    grow(0, None, 0)
    graph = nx.Graph(edges)
    points = torch.tensor([[places[node].real, places[node].imag] for node in graph], dtype=torch.float64)
    return points, graph


# By definition --------------------------------------------------------------------------------------------------------


@given(two_metrics(), st.floats(0.1, 10))
def test_the_measures_are_their_definitions(pair, scale):
    embedded, graph = pair
    ratios = [(embedded[i, j] / graph[i, j]).item() for i, j in itertools.combinations(range(len(graph)), 2)]
    average = sum(abs(ratio / scale - 1) for ratio in ratios) / len(ratios)
    assert average_distortion(embedded, graph, scale) == pytest.approx(average)
    assert worst_case_distortion(embedded, graph) == pytest.approx(max(ratios) / min(ratios))


@given(two_metrics())
def test_no_scale_does_better_than_the_optimal_one(pair):
    embedded, graph = pair
    scale = optimal_scale(embedded, graph)
    best = average_distortion(embedded, graph, scale)
    ratios = (embedded / graph)[graph > 0].tolist()
    for other in [*ratios, *(scale * factor for factor in (0.1, 0.9, 0.99, 1.01, 1.1, 10))]:
        assert best <= average_distortion(embedded, graph, other) + 1e-12


def test_a_scaled_copy_is_perfect():
    graph = random_distances(20)
    for scale in (0.25, 1.0, 3.0):
        assert optimal_scale(scale * graph, graph) == pytest.approx(scale)
        assert average_distortion(scale * graph, graph, scale) == pytest.approx(0, abs=1e-15)
        assert worst_case_distortion(scale * graph, graph) == pytest.approx(1)
    assert neighbour_map(graph, nearest(graph, 3)) == 1


def test_a_collapsed_embedding_has_distortion_1():
    assert average_distortion(torch.zeros(5, 5), random_distances(5)) == 1


def test_one_pair_at_one_place_does_not_hide_in_the_average():
    graph = torch.ones(3, 3, dtype=torch.float64).fill_diagonal_(0)
    embedded = torch.tensor([[0.0, 0, 2], [0, 0, 2], [2, 2, 0]])
    assert average_distortion(embedded, graph, 2.0) == pytest.approx(1 / 3)
    assert optimal_scale(embedded, graph) == 2


@pytest.mark.parametrize("tau", [0.5, 2.0, 6.0])
def test_a_star_on_the_simplex_has_the_distortion_of_its_closed_form(tau):
    # k leaves at distance τ of the hub, all at the same angle to each other: cos = −1/(k−1).
    k = 5
    nodes, graph = graph_distances(nx.star_graph(k))
    assert nodes[0] == 0
    leaves = torch.eye(k, dtype=torch.float64) - 1 / k
    v = torch.cat([torch.zeros(1, k), leaves / leaves.norm(dim=1, keepdim=True)]) * tau
    x = lorentz.exp_map0(v, 1.0)
    apart = math.acosh(math.cosh(tau) ** 2 + math.sinh(tau) ** 2 / (k - 1))
    ratio = apart / (2 * tau)
    embedded = lorentz.pairwise_dist(x, x, 1.0)
    pairs = k * (k - 1) / 2
    assert average_distortion(embedded, graph, tau) == pytest.approx((1 - ratio) * pairs / (pairs + k))
    assert worst_case_distortion(embedded, graph) == pytest.approx(1 / ratio)
    assert neighbour_map(embedded, graph == 1) == 1


def test_a_complete_tree_in_the_plane_has_its_reference_distortion():
    points, tree = tree_in_the_disk(branching=3, depth=6, length=2.0)
    nodes, graph = graph_distances(tree)
    assert len(nodes) == 1093
    x = poincare.to_lorentz(points, 1.0)
    embedded = lorentz.pairwise_dist(x, x, 1.0).fill_diagonal_(0)
    assert average_distortion(embedded, graph, 2.0) == pytest.approx(0.202, abs=0.005)
    # The reference is the worst of 30 rows, this of all.
    assert 1.83 <= worst_case_distortion(embedded, graph) <= 1.92
    assert neighbour_map(embedded, graph == 1) == 1


# Neighbours -----------------------------------------------------------------------------------------------------------


def map_by_definition(d, adjacent):
    total = 0.0
    for a in range(len(d)):
        near = [b for b in range(len(d)) if b != a and adjacent[a, b]]
        reach = [[c for c in range(len(d)) if c != a and d[a, c] <= d[a, b]] for b in near]
        total += sum(len(set(near) & set(r)) / len(r) for r in reach) / len(near)
    return total / len(d)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_neighbour_map_is_its_definition(seed, ties):
    d = random_distances(30, seed)
    d = d.round() if ties else d
    adjacent = nearest(random_distances(30, seed + 100), 1 + seed)
    assert neighbour_map(d, adjacent) == pytest.approx(map_by_definition(d, adjacent))


def test_ties_cost():
    _, graph = graph_distances(nx.path_graph(5))
    assert neighbour_map(graph, graph == 1) == 1
    # All at one distance: of 4 others, 1 is a neighbour of each end and 2 of the rest.
    assert neighbour_map(torch.ones(5, 5).fill_diagonal_(0), graph == 1) == pytest.approx((2 * 1 / 4 + 3 * 2 / 4) / 5)


# Graphs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, "km"])
def test_graph_distances_are_the_shortest_paths(weight):
    graph = nx.connected_watts_strogatz_graph(30, 4, 0.3, seed=0)
    for index, (one, other) in enumerate(graph.edges):
        graph.edges[one, other]["km"] = 0.5 + index % 7
    nodes, distances = graph_distances(graph, weight)
    want = torch.from_numpy(nx.floyd_warshall_numpy(graph, nodes, weight=weight or "hops"))
    assert nodes == list(graph)
    assert distances.dtype == torch.float64
    torch.testing.assert_close(distances, want)


def with_lengths(*lengths):
    graph = nx.path_graph(["cat", "dog", "owl"])
    for edge, length in zip(graph.edges, lengths, strict=False):
        graph.edges[edge]["km"] = length
    return graph


@pytest.mark.parametrize(
    "graph, weight, message",
    [
        (nx.Graph([("cat", "dog"), ("owl", "jay")]), None, "connected, but no path joins 'cat' and 'owl'"),
        (nx.DiGraph([("cat", "dog")]), None, "pass graph.to_undirected()"),
        (nx.Graph(), None, "at least 2 nodes, got 0"),
        (nx.empty_graph(1), None, "at least 2 nodes, got 1"),
        (with_lengths(1), "km", "'dog' – 'owl' must have a length above 0 as 'km', got None"),
        (with_lengths(1, 0), "km", "'dog' – 'owl' must have a length above 0 as 'km', got 0"),
        (with_lengths(-1.0, 1), "km", "'cat' – 'dog' must have a length above 0 as 'km', got -1.0"),
        (with_lengths(1, math.nan), "km", "got nan"),
        (with_lengths(1, "2"), "km", "got '2'"),
    ],
)
def test_a_graph_without_distances_is_refused(graph, weight, message):
    with pytest.raises(InputError, match=message.replace("()", r"\(\)")):
        graph_distances(graph, weight)


# Errors ---------------------------------------------------------------------------------------------------------------

MEASURES = [average_distortion, optimal_scale, worst_case_distortion]


def changed(value, entries=((1, 2), (2, 1))):
    d = random_distances(4)
    for entry in entries:
        d[entry] = value
    return d


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "embedded, graph, message",
    [
        (random_distances(4), changed(torch.inf), "connected, but nodes 1 and 2 are at distance inf"),
        (random_distances(4), changed(0.0), "above 0 between nodes, but nodes 1 and 2 are at distance 0"),
        (random_distances(4), changed(torch.nan), r"graph must be finite, got nan at \(1, 2\)"),
        (changed(torch.nan), random_distances(4), r"embedded must be finite, got nan at \(1, 2\)"),
        (changed(-1.0), random_distances(4), r"embedded must not be negative"),
        (changed(9.0, [(1, 2)]), random_distances(4), "embedded must be symmetric"),
        (random_distances(4).half(), random_distances(4), "embedded must be float32 or float64"),
        (random_distances(4), random_distances(4).bfloat16(), "graph must be float32 or float64"),
        (torch.zeros(1, 1), torch.zeros(1, 1), "at least 2 points, got 1"),
    ],
)
def test_bad_distances_are_refused(measure, embedded, graph, message):
    with pytest.raises(InputError, match=message):
        measure(embedded, graph)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_matrices_must_have_one_shape(measure):
    with pytest.raises(TypeCheckError):
        measure(random_distances(4), random_distances(5))
    with pytest.raises(InputError, match="the same nodes, got 4 and 5"):
        measure.__wrapped__(random_distances(4), random_distances(5))


def test_nodes_in_one_point_are_named():
    with pytest.raises(InputError, match="nodes 1 and 2 are embedded in one point"):
        worst_case_distortion(changed(0.0), random_distances(4))
    with pytest.raises(InputError, match="all nodes are embedded in one point"):
        optimal_scale(torch.zeros(4, 4), random_distances(4))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_must_be_positive(scale):
    with pytest.raises(InputError, match="scale must be positive"):
        average_distortion(random_distances(4), random_distances(4), scale)


def test_neighbours_must_be_a_matrix_of_truths_with_one_in_every_row():
    d = random_distances(4)
    with pytest.raises(InputError, match="node 0 has none"):
        neighbour_map(d, torch.eye(4, dtype=torch.bool))
    with pytest.raises(InputError, match="float32 or float64"):
        neighbour_map(d.half(), d > 0)
    for wrong in (d, d[:2] > 0):
        with pytest.raises(InputError, match=r"adjacent must be boolean of shape \(4, 4\)"):
            neighbour_map.__wrapped__(d, wrong)
