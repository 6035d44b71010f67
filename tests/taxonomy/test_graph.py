"""What a taxonomy tells of its graph: parents, descendants, common ancestors, the closure, parts of it."""

import networkx as nx
import pytest

from hypclip.errors import DataError
from hypclip.taxonomy import Taxonomy

EDGES = [
    ("a dog", "an animal"),
    ("a poodle", "a dog"),
    ("a poodle", "a pet"),
    ("a pet", "an animal"),
    ("a cat", "a pet"),
    ("a rose", "a plant"),
]


def test_neighbours_and_ends():
    taxonomy = Taxonomy(EDGES)
    assert taxonomy.parents("a POODLE") == ("a dog", "a pet")
    assert taxonomy.children("an animal") == ("a dog", "a pet")
    assert taxonomy.descendants("an animal") == ("a dog", "a pet", "a cat", "a poodle")
    assert taxonomy.roots == ("a plant", "an animal")
    assert taxonomy.leaves == ("a rose", "a cat", "a poodle")
    assert taxonomy.parents("a car") == taxonomy.children("a car") == taxonomy.descendants("a car") == ()


def test_lowest_common_ancestors():
    taxonomy = Taxonomy([*EDGES, ("a cat", "a dog")])
    assert taxonomy.lowest_common_ancestors("a poodle", "a dog") == ("a dog",)
    assert taxonomy.lowest_common_ancestors("a poodle", "a cat") == ("a dog", "a pet")
    assert taxonomy.lowest_common_ancestors("a poodle", "a cat", "an animal") == ("an animal",)
    assert taxonomy.lowest_common_ancestors("a poodle", "a rose") == ()
    assert taxonomy.lowest_common_ancestors("a rose") == ("a rose",)
    with pytest.raises(KeyError):
        taxonomy.lowest_common_ancestors("a poodle", "a car")


def test_the_closure_has_every_pair_of_a_phrase_and_an_ancestor_once():
    taxonomy = Taxonomy(EDGES)
    pairs = [(taxonomy.phrases[b], taxonomy.phrases[a]) for b, a in zip(*taxonomy.closure, strict=True)]
    closed = nx.transitive_closure(nx.DiGraph(EDGES)).edges
    assert len(pairs) == len(taxonomy.closure) == len(closed)
    assert set(pairs) == set(closed)


def test_the_reduction_leaves_out_what_follows():
    assert set(Taxonomy([*EDGES, ("a poodle", "an animal")]).reduced().edges) == set(EDGES)


def test_parts_by_root_and_by_labels():
    taxonomy = Taxonomy(EDGES)
    assert set(taxonomy.below("a pet").edges) == {("a poodle", "a pet"), ("a cat", "a pet")}
    assert set(taxonomy.pruned(["A cat", "a rose"]).edges) == {
        ("a cat", "a pet"), ("a pet", "an animal"), ("a rose", "a plant"),
    }  # fmt: skip
    with pytest.raises(DataError, match="not in the taxonomy: a car; a bus"):
        taxonomy.pruned(["a cat", "a car", "a bus"])
    with pytest.raises(DataError, match="'a car' is not in the taxonomy"):
        taxonomy.below("a car")
    with pytest.raises(DataError, match="at least one is-a edge"):
        taxonomy.below("a cat")


def test_one_root_above_several():
    rooted = Taxonomy(EDGES).rooted("a thing")
    assert rooted.roots == ("a thing",)
    assert rooted.children("a thing") == ("a plant", "an animal")
    assert rooted.rooted("other") is rooted
    with pytest.raises(DataError, match="'a dog' cannot be put above the 2 roots"):
        Taxonomy(EDGES).rooted("a dog")
