import pytest

from serve.classify import prompts, taxonomy
from serve.errors import InvalidRequest


def paths_to_leaves(edges):
    tree = taxonomy(edges)
    return {leaf: tree.path(leaf) for leaf in tree.leaves}


def test_templates_are_filled_by_replacement_only():
    filled = ["x a", "{y} a", "x {0.__class__}", "{y} {0.__class__}"]
    assert prompts(["a", "{0.__class__}"], ["x {}", "{y} {}"]) == filled


def test_paths_of_a_forest():
    edges = [("b", "a"), ("c", "b"), ("d", "a"), ("y", "x")]
    assert paths_to_leaves(edges) == {"c": ["a", "b", "c"], "d": ["a", "d"], "y": ["x", "y"]}


def test_with_several_parents_the_shortest_way_is_taken():
    edges = [("b", "a"), ("c", "b"), ("leaf", "c"), ("leaf", "b")]
    assert paths_to_leaves(edges) == {"leaf": ["a", "b", "leaf"]}


def test_an_edge_may_come_twice():
    assert paths_to_leaves([("b", "a"), ("b", "a")]) == {"b": ["a", "b"]}


def test_a_cycle_below_a_root_is_named():
    with pytest.raises(InvalidRequest, match=r"b → c|c → b"):
        paths_to_leaves([("b", "a"), ("c", "b"), ("b", "c")])


def test_a_chain_may_be_long():
    edges = [(str(i + 1), str(i)) for i in range(3000)]
    assert paths_to_leaves(edges) == {"3000": [str(i) for i in range(3001)]}
