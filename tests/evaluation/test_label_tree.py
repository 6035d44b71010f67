"""The tree over classes as matrices, on trees whose numbers are known."""

from __future__ import annotations

import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypclip.errors import DataError
from hypclip.evaluation.hierarchy import build_taxonomy, hierarchy_scores
from hypclip.evaluation.label_tree import LabelTree

# A bat is both a mammal and a flyer.
EDGES = [
    ("dog", "mammal"),
    ("bat", "mammal"),
    ("bat", "flyer"),
    ("owl", "flyer"),
    ("mammal", "animal"),
    ("flyer", "animal"),
    ("car", "vehicle"),
    ("animal", "root"),
    ("vehicle", "root"),
    ("plane", "machine"),
    ("machine", "root"),
]
CLASSES = ["dog", "bat", "owl", "car"]


def tree(classes=CLASSES, edges=EDGES) -> LabelTree:
    return LabelTree(build_taxonomy(edges), classes)


def test_nodes_are_the_classes_and_what_is_above_them_the_most_general_first() -> None:
    assert tree().nodes == ("root", "animal", "vehicle", "car", "flyer", "mammal", "bat", "dog", "owl")
    assert tree().levels.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [tree().nodes[row] for row in tree().of_class] == CLASSES


def test_a_node_has_what_is_below_it_whichever_way() -> None:
    below = {node: row.tolist() for node, row in zip(tree().nodes, tree().below, strict=True)}
    assert below["root"] == [1, 1, 1, 1]
    assert below["mammal"] == [1, 1, 0, 0]
    assert below["flyer"] == [0, 1, 1, 0]
    assert below["owl"] == [0, 0, 1, 0]


def test_information_is_in_bits() -> None:
    bits = dict(zip(tree().nodes, tree().information.tolist(), strict=True))
    assert bits["root"] == 0
    assert bits["animal"] == pytest.approx(math.log2(4 / 3))
    assert bits["mammal"] == 1
    assert bits["vehicle"] == bits["car"] == bits["dog"] == 2


def test_posteriors_are_sums_over_the_classes_below() -> None:
    p = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.0, 0.0, 0.0, 1.0]])
    found = dict(zip(tree().nodes, tree().posteriors(p).T.tolist(), strict=True))
    assert found["root"] == pytest.approx([1, 1])
    assert found["animal"] == pytest.approx([0.9, 0])
    assert found["mammal"] == pytest.approx([0.7, 0])
    assert found["flyer"] == pytest.approx([0.4, 0])
    assert found["car"] == found["vehicle"] == pytest.approx([0.1, 1])


def test_a_class_may_stand_above_another() -> None:
    birds = tree(["bird", "owl"], [("owl", "bird"), ("bird", "root")])
    assert birds.posteriors(torch.tensor([[0.75, 0.25]])).tolist() == [[1, 1, 0.25]]
    assert birds.steps.tolist() == [[1, 2], [0, 1], [1, 0]]
    assert birds.information.tolist() == [0, 0, 1]


def test_steps_go_through_nodes_that_stand_above_no_class() -> None:
    """Two roots are connected by a plane that is both, and is no class here."""
    both = tree(["bird", "car"], [("bird", "flyer"), ("car", "machine"), ("plane", "flyer"), ("plane", "machine")])
    assert both.nodes == ("flyer", "machine", "bird", "car")
    assert both.steps[both.of_class].tolist() == [[0, 4], [4, 0]]


@settings(max_examples=10)
@given(st.lists(st.sets(st.integers(0, 8), min_size=1, max_size=2), min_size=1, max_size=9))
def test_steps_are_those_of_the_scores(parents: list[set[int]]) -> None:
    """Every node's parents have smaller numbers, and 0 is the root."""
    edges = [(str(n), str(up % n)) for n, above in enumerate(parents, 1) for up in above]
    graph = build_taxonomy(edges)
    classes = [node for node in graph if not graph.in_degree(node)]
    found = LabelTree(graph, classes)
    for truth, key in enumerate(classes):
        for node in found.nodes:
            assert found.steps[found.rows[node], truth] == dict(hierarchy_scores(graph, [node], [key]))["tie"]
            assert bool(found.below[found.rows[node], truth]) == (node == key or node in nx.descendants(graph, key))


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="come twice: dog"):
        tree(["dog", "owl", "dog"])
    with pytest.raises(DataError, match="class 'cow' is not in the taxonomy"):
        tree(["dog", "cow"])
    with pytest.raises(DataError, match="does not connect 'ship' with 'dog'"):
        tree(["dog", "ship"], [*EDGES, ("ship", "boat")])
