"""WordNet as a taxonomy over any phrase."""

from __future__ import annotations

import pickle

import pytest

from hypclip.data.batch import Example, collate, text_id
from hypclip.roles import MISSING
from hypclip.taxonomy import load, wordnet
from hypclip.taxonomy.wordnet.phrases import BEGINNERS, WordNetTaxonomy, too_general
from hypclip.towers.text import Tokenizer


@pytest.fixture(scope="module")
def taxonomy() -> WordNetTaxonomy:
    found = load("wordnet")
    assert isinstance(found, WordNetTaxonomy)
    return found


def test_above_a_phrase_stand_its_head_noun_and_all_above_that(taxonomy):
    above = taxonomy.ancestors("a small red sports car")
    assert above[:3] == ("sports car", "car", "motor vehicle")
    assert above[-1] == "artifact"
    assert taxonomy.ancestors("Sports  car") == above[1:]  # which is a name, and not above itself
    assert taxonomy.ancestors("automobiles") == taxonomy.ancestors("an automobile") == above[1:]
    assert taxonomy.ancestors("two") == taxonomy.ancestors("") == taxonomy.ancestors("qwertz") == ()


def test_ancestors_are_ordered_by_level_and_stand_above_each_other(taxonomy):
    for phrase in ("a wet dog", "slices of pizza", "the sky", "people", "London"):
        above = taxonomy.ancestors(phrase)
        levels = [taxonomy.level(up) for up in above]
        assert levels == sorted(levels, reverse=True)
        assert len(set(above)) == len(above) <= taxonomy.most_ancestors
        for up in above:
            assert set(taxonomy.ancestors(up)) <= set(above) - {up}, up


def test_a_name_is_read_as_its_synset_and_no_two_synsets_share_one(taxonomy):
    names = sorted({*taxonomy.phrases[::97], *taxonomy.roots})
    read = [taxonomy.head(name) for name in names]
    assert len({head.synset for head in read}) == len(names)
    for name in names:
        assert name not in taxonomy.ancestors(name)
        assert taxonomy.ancestors(name) == taxonomy._ancestors(name)


def test_an_ambiguous_word_names_one_synset_and_the_other_has_another_name(taxonomy):
    assert taxonomy.ancestors("plant")[0] == "building complex"  # the first sense of the word
    assert "flora" in taxonomy.ancestors("a fern")  # the second, by a word that is read so
    assert "plant" not in taxonomy.ancestors("a fern")


def test_what_stands_above_the_kinds_of_things_is_left_out(taxonomy):
    synsets = wordnet.load("noun").synsets
    general = too_general(synsets)
    assert {"entity.n.01", "physical_entity.n.01", "object.n.01", "whole.n.02", "organism.n.01"} <= general
    assert not general & set(BEGINNERS)
    assert not {taxonomy.head(root).synset for root in taxonomy.roots} & general
    assert not {"entity", "physical entity", "abstract entity", "living thing"} & set(taxonomy.ancestors("a dog"))
    assert {"animal", "person", "artifact", "food", "flora"} <= set(taxonomy.roots)


def test_names_of_persons_have_nothing_above_them_and_kinds_of_persons_have(taxonomy):
    assert taxonomy.ancestors("Crane") != taxonomy.ancestors("Watson") == ()
    assert taxonomy.ancestors("Mary") == taxonomy.ancestors("Isaac Newton") == ()
    assert "person" in taxonomy.ancestors("an American")


def test_the_depth_fits_the_levels_that_the_loss_tells_apart(taxonomy):
    assert max(taxonomy.level(phrase) for phrase in taxonomy.phrases) == 12
    assert taxonomy.most_ancestors == 19
    assert len(taxonomy) == len(taxonomy.phrases) > 65_000
    assert 10_000 < len(taxonomy.general) < 15_000


def test_a_loader_process_gets_the_one_that_it_has_made_itself(taxonomy):
    packed = pickle.dumps(taxonomy)
    assert len(packed) < 200
    assert pickle.loads(packed) is load("wordnet") is taxonomy


def test_a_batch_knows_what_stands_above_phrases_that_are_no_names(taxonomy):
    texts = ["a small dog", "two cats", "Barack Obama"]
    examples = [
        Example(
            {}, {"box_text": [text]}, {"box_text": [text_id(text)]}, [1.0], {"box_text": [taxonomy.ancestors(text)]}
        )
        for text in texts
    ]
    found = collate(examples, Tokenizer({}), taxonomy=taxonomy, concepts=20)
    above = found.ancestors["box_text"]
    assert above.shape == (3, 19)
    assert above[0, 0] == text_id("dog")
    assert text_id("carnivore") in above[0]
    assert text_id("carnivore") in above[1]
    assert (above[2] == MISSING).all()
    concepts = found.content["concept"].tolist()
    assert len(set(concepts)) == 20
    assert {text_id(up) for text in texts[:2] for up in taxonomy.ancestors(text)} <= set(concepts)
    assert found.levels.max() <= 12
    again = collate(examples, Tokenizer({}), taxonomy=taxonomy, concepts=20)
    assert again.content["concept"].tolist() == concepts
