"""Trees placed without training: distances, directions, and the radius that a dtype can hold."""

import itertools
import math
import time

import networkx as nx
import pytest
import torch

from hypclip.errors import InputError
from hypclip.geometry import lorentz
from hypclip.geometry.analysis.distortion import (
    average_distortion,
    graph_distances,
    neighbour_map,
    worst_case_distortion,
)
from hypclip.taxonomy import Taxonomy, load
from hypclip.taxonomy.embedding import place
from hypclip.taxonomy.embedding.closed_form import first_parents, largest_radius, spherical_code


def distances(taxonomy, phrases, x):
    nodes, steps = graph_distances(nx.Graph([edge for edge in first_parents(taxonomy).items() if edge[1]]))
    x = x.double()[[phrases.index(node) for node in nodes]]
    embedded = torch.stack([lorentz.dist(row.expand_as(x), x, 1.0) for row in x])
    return (embedded + embedded.T) / 2, steps


def tree(children, depth):
    names = [["r"]]
    for _ in range(depth):
        names.append([f"{up}.{i}" for up in names[-1] for i in range(children)])
    return Taxonomy([(name, name.rpartition(".")[0]) for level in names[1:] for name in level])


@pytest.mark.parametrize(("dim", "tau", "dtype"), [(2, 3.0, torch.float64), (6, 1.0, torch.float32)])
def test_children_are_tau_away_and_siblings_alike(dim, tau, dtype):
    taxonomy = tree(3, 4)
    phrases, x = place(taxonomy, dim, tau, dtype)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    assert x.dtype == dtype
    assert x[row["r"]].abs().max() == 0
    x = x.double()
    for child, up in taxonomy.edges:
        assert float(lorentz.dist(x[row[child]], x[row[up]], 1.0)) == pytest.approx(tau, rel=1e-4)
    for up in {up for _, up in taxonomy.edges}:
        below = [x[row[child]] for child in taxonomy.children(up)]
        apart = [float(lorentz.dist(a, b, 1.0)) for a, b in itertools.combinations(below, 2)]
        if dim == 6:  # room for a simplex of the three and their parent
            assert apart == pytest.approx([apart[0]] * 3, rel=1e-3)


def test_neighbours_are_nearest_and_distortion_falls_with_tau():
    taxonomy = tree(3, 4)
    worst = []
    for tau in (1.0, 2.0, 4.0):
        embedded, steps = distances(taxonomy, *place(taxonomy, 6, tau, torch.float64))
        assert neighbour_map(embedded, steps == 1) == 1
        worst.append((average_distortion(embedded, steps, tau), worst_case_distortion(embedded, steps)))
    assert worst == sorted(worst, reverse=True)
    assert worst[-1][1] < 1.3


def test_mammals_in_32_bits():
    mammals = load("wordnet-mammals")
    embedded, steps = distances(mammals, *place(mammals, 40, 1.0))
    assert neighbour_map(embedded, steps == 1) >= 0.999


def test_far_out_a_child_is_still_tau_away():
    chain = Taxonomy([(f"p{i + 1}", f"p{i}") for i in range(15)])
    phrases, x = place(chain, 3, 2.0, torch.float64)
    row = {phrase: i for i, phrase in enumerate(phrases)}
    assert float(lorentz.radius(x, 1.0).max()) == pytest.approx(30, rel=0.2)
    for child, up in chain.edges:
        assert float(lorentz.dist(x[row[child]], x[row[up]], 1.0)) == pytest.approx(2, rel=0.02)


def test_a_radius_that_the_dtype_cannot_hold_is_refused_with_the_radius():
    with pytest.raises(
        InputError, match=r"radius 24\.\d, and float32 tells points 2 apart up to radius 15\.\d: take a smaller"
    ):
        place(Taxonomy([(f"p{i + 1}", f"p{i}") for i in range(12)]), 4, 2.0)
    assert largest_radius(2.0, torch.float64) == pytest.approx(35, abs=1)
    for wrong in ({"dim": 1}, {"tau": 0.0}, {"tau": math.nan}):
        with pytest.raises(InputError):
            place(Taxonomy([("b", "a")]), **{"dim": 3, **wrong})


def test_several_roots_and_parents():
    taxonomy = Taxonomy([("b", "a"), ("c", "x"), ("d", "b"), ("d", "c")])
    phrases, x = place(taxonomy, 3, 1.0)
    assert dict(zip(phrases, lorentz.radius(x, 1.0).tolist(), strict=True))["a"] == pytest.approx(1)
    assert first_parents(taxonomy) == {"a": None, "x": None, "b": "a", "c": "x", "d": "b"}


@pytest.mark.parametrize(("k", "dim", "least"), [(5, 2, 72), (7, 6, 99.5), (9, 5, 90), (37, 10, 65), (2, 8, 180)])
def test_directions_are_well_apart(k, dim, least):
    code = spherical_code(k, dim)
    assert code.shape == (k, dim)
    torch.testing.assert_close(code.norm(dim=1), torch.ones(k, dtype=torch.float64))
    cosine = (code @ code.T).fill_diagonal_(-1)
    assert math.degrees(math.acos(float(cosine.max()))) >= least - 0.1


@pytest.mark.slow
def test_the_labels_of_imagenet_are_given_back_in_float32_within_three_seconds():
    taxonomy = load("imagenet-1k")
    start = time.process_time()
    phrases, x = place(taxonomy, 32, 0.5)
    assert time.process_time() - start < 3
    assert x.dtype == torch.float32
    assert x.shape == (1860, 32)
    embedded, steps = distances(taxonomy, phrases, x)
    assert neighbour_map(embedded, steps == 1) == 1
