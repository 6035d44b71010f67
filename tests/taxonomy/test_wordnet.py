"""WordNet's nouns and verbs, whose counts are published."""

import pytest

from hypclip.taxonomy import Taxonomy, load, wordnet


def test_mammals_are_the_published_benchmark():
    mammals = load("wordnet-mammals")
    assert (len(mammals), len(mammals.closure)) == (1180, 6540)
    assert mammals.roots == ("mammal.n.01",)
    assert mammals.lowest_common_ancestors("wolf.n.01", "lion.n.01") == ("carnivore.n.01",)


def test_words_senses_and_offsets():
    nouns = wordnet.load("noun")
    assert len(nouns.synsets) == 82_115
    assert nouns.find("Dog") == nouns.at(2084071) == nouns.synsets["dog.n.01"]  # ImageNet's n02084071
    assert nouns.synsets["dog.n.01"].lemmas == ("dog", "domestic_dog", "Canis_familiaris")
    assert set(nouns.synsets["dog.n.01"].hypernyms) == {"canine.n.02", "domestic_animal.n.01"}
    assert nouns.find("dining  table").name == "dining_table.n.01"
    assert nouns.find("no such word") is None
    with pytest.raises(KeyError):
        nouns.at(1)


def test_verbs_have_many_roots():
    verbs = load("wordnet-verbs")
    assert len(wordnet.load("verb").synsets) == 13_767
    assert len(verbs.rooted("act").roots) == 1
    assert "move.v.02" in verbs.ancestors("walk.v.01") or "travel.v.01" in verbs.ancestors("walk.v.01")


@pytest.mark.slow
def test_nouns_have_the_published_closure():
    nouns = load("wordnet-nouns")
    assert (len(nouns), len(nouns.closure)) == (82_115, 743_241)  # Nickel & Kiela 2017, section 4.1
    assert nouns.roots == ("entity.n.01",)
    assert isinstance(nouns, Taxonomy)
