import numpy as np
import pytest

from serve.classify import prompts, taxonomy
from serve.errors import InvalidRequest


def paths_to_leaves(edges):
    """Follow the evidence down when all of it is for one leaf."""
    tree = taxonomy(edges)
    paths = tree.paths(np.eye(len(tree.leaves)), 0.5)
    assert all(probability == 1 for path in paths for _, probability in path)
    return {leaf: [node for node, _ in path] for leaf, path in zip(tree.leaves, paths, strict=True)}


def test_a_path_stops_where_the_evidence_stops():
    tree = taxonomy([("dog", "animal"), ("cat", "animal"), ("animal", "thing"), ("car", "thing")])
    scores = [{"dog": 0.4, "cat": 0.35, "car": 0.25}[leaf] for leaf in tree.leaves]

    def path(min_probability):
        return [(node, round(p, 9)) for node, p in tree.paths(np.array([scores]), min_probability)[0]]

    assert path(0.0) == path(0.4) == [("thing", 1.0), ("animal", 0.75), ("dog", 0.4)]
    assert path(0.41) == path(0.75) == [("thing", 1.0), ("animal", 0.75)]
    assert path(0.76) == path(1.0) == [("thing", 1.0)]


def test_a_forest_without_a_probable_root_has_no_path():
    tree = taxonomy([("b", "a"), ("y", "x")])
    assert tree.paths(np.array([[0.5, 0.5], [0.7, 0.3]]), 0.6) == [[], [("a", 0.7), ("b", 0.7)]]


def test_a_leaf_with_several_parents_counts_once():
    tree = taxonomy([("left", "top"), ("right", "top"), ("leaf", "left"), ("leaf", "right"), ("other", "right")])
    ((top, probability), *_) = tree.paths(np.array([[0.8, 0.2]]), 0.5)[0]
    assert (top, probability) == ("top", pytest.approx(1.0))


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
