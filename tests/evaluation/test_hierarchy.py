"""Hierarchy measures against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypclip.errors import DataError
from hypclip.evaluation.hierarchy import build_taxonomy, hierarchy_scores, read_taxonomy, require_classes, same_ancestor

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
]
LEAVES = ["dog", "bat", "owl", "car"]


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        # A(dog) = {dog, mammal, animal, root}; A(bat) = {bat, mammal, flyer, animal, root}; common 3 of 6
        ("dog", "bat", {"tie": 2, "lca": 2, "jaccard": 3 / 6, "precision": 3 / 4, "recall": 3 / 5}),
        # A(car) = {car, vehicle, root}; common with A(dog) 1 of 6
        ("car", "dog", {"tie": 5, "lca": 3, "jaccard": 1 / 6, "precision": 1 / 3, "recall": 1 / 4}),
        ("owl", "dog", {"tie": 4, "lca": 3, "jaccard": 2 / 6, "precision": 2 / 4, "recall": 2 / 4}),
    ],
)
def test_measures_by_hand(predicted: str, true: str, expected: dict[str, float]) -> None:
    scores = dict(hierarchy_scores(build_taxonomy(EDGES), [predicted], [true]))
    assert scores == pytest.approx(
        {
            "tie": expected["tie"],
            "lca": expected["lca"],
            "jaccard": expected["jaccard"],
            "hierarchical_precision": expected["precision"],
            "hierarchical_recall": expected["recall"],
        }
    )


def test_measures_are_means_over_pictures() -> None:
    graph = build_taxonomy(EDGES)
    one = dict(hierarchy_scores(graph, ["dog"], ["bat"]))
    two = dict(hierarchy_scores(graph, ["owl"], ["owl"]))
    both = dict(hierarchy_scores(graph, ["dog", "owl"], ["bat", "owl"]))
    assert both == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})


@given(st.lists(st.sampled_from(LEAVES), min_size=1, max_size=8))
def test_right_answers_are_perfect(true: list[str]) -> None:
    scores = dict(hierarchy_scores(build_taxonomy(EDGES), true, true))
    assert scores == {"tie": 0, "lca": 1, "jaccard": 1, "hierarchical_precision": 1, "hierarchical_recall": 1}


@given(st.sampled_from(LEAVES), st.sampled_from(LEAVES))
def test_precision_and_recall_swap_with_the_answers(a: str, b: str) -> None:
    there = dict(hierarchy_scores(build_taxonomy(EDGES), [a], [b]))
    back = dict(hierarchy_scores(build_taxonomy(EDGES), [b], [a]))
    assert there["hierarchical_precision"] == back["hierarchical_recall"]
    assert there["tie"] == back["tie"]


@pytest.mark.parametrize(
    ("predicted", "true", "depth", "expected"),
    [("dog", "bat", 1, 1), ("dog", "car", 1, 0), ("dog", "bat", 2, 1), ("dog", "owl", 2, 0), ("dog", "car", 0, 1)],
)
def test_same_ancestor_at_a_depth(predicted: str, true: str, depth: int, expected: float) -> None:
    assert same_ancestor(build_taxonomy(EDGES), [predicted], [true], depth) == expected


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cycle"):
        build_taxonomy([("a", "b"), ("b", "c"), ("c", "a")])
    with pytest.raises(DataError, match="no edges"):
        build_taxonomy([])
    with pytest.raises(DataError, match="'cat' is not in the taxonomy"):
        dict(hierarchy_scores(build_taxonomy(EDGES), ["cat"], ["dog"]))
    with pytest.raises(DataError, match="does not connect"):
        dict(hierarchy_scores(build_taxonomy([("a", "x"), ("b", "y")]), ["a"], ["b"]))
    for content in ("{", "{}", '[["a"]]', '[["a", 1]]'):
        (tmp_path / "edges.json").write_text(content)
        with pytest.raises(DataError, match=r"edges\.json"):
            read_taxonomy(tmp_path / "edges.json")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "edges.json").write_text(json.dumps(EDGES))
    assert set(read_taxonomy(tmp_path / "edges.json").edges) == set(EDGES)


def test_every_class_must_be_in_the_taxonomy_and_connected_before_any_is_predicted() -> None:
    graph = build_taxonomy(EDGES)
    require_classes(graph, LEAVES)
    with pytest.raises(DataError, match=r"class 'cat' is not in the taxonomy \(2 such classes\)"):
        require_classes(graph, [*LEAVES, "cat", "cow"])
    with pytest.raises(DataError, match="does not connect 'ship' with 'bat'"):
        require_classes(build_taxonomy([*EDGES, ("ship", "boat")]), [*LEAVES, "ship"])


def test_a_node_may_be_its_own_parent_only_by_mistake() -> None:
    with pytest.raises(DataError, match="cycle: a"):
        build_taxonomy([("a", "a"), ("a", "b")])


@given(st.dictionaries(st.integers(1, 14), st.lists(st.integers(0, 13), min_size=1, max_size=2), min_size=1), st.data())
def test_measures_keep_their_bounds_on_any_graph_with_several_parents(parents: dict, data: st.DataObject) -> None:
    """Every node's parents have smaller numbers, and 0 is the root: a connected graph without cycles."""
    graph = build_taxonomy([(str(n), str(p % n)) for n, above in parents.items() for p in above] + [
        (str(n), "0") for n in range(1, 14)
    ])  # fmt: skip
    names = st.sampled_from([str(n) for n in range(14)])
    guess, truth = data.draw(names), data.draw(names)
    scores = dict(hierarchy_scores(graph, [guess], [truth]))
    mine, its = (nx.descendants(graph, n) | {n} for n in (guess, truth))
    assert scores["jaccard"] == pytest.approx(len(mine & its) / len(mine | its))
    assert scores["lca"] == len(mine - its) + 1
    assert scores["hierarchical_precision"] == pytest.approx(len(mine & its) / len(mine))
    assert scores["hierarchical_recall"] == pytest.approx(len(mine & its) / len(its))
    assert scores["tie"] == len(nx.bidirectional_shortest_path(graph.to_undirected(), guess, truth)) - 1
    assert (scores["tie"] == 0) == (guess == truth) == (scores["jaccard"] == 1)
