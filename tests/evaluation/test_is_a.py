"""Which pairs a model is asked about, and which of them are true."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypclip.errors import DataError
from hypclip.evaluation import is_a
from hypclip.evaluation.is_a import EdgeSet, Instances, Phrases, call
from hypclip.evaluation.zero_shot import LabelledImages
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy import load as load_taxonomy
from tests.support.hierarchy import TREE

DAG = [
    ("a dog", "an animal"),
    ("a dog", "a pet"),
    ("a cat", "a pet"),
    ("a poodle", "a dog"),
    ("a poodle", "an animal"),
    ("a pet", "a thing"),
    ("a fish", "an animal"),
]
"""A dog has two parents of different levels; an animal is a root and a pet is not."""


def told(one: EdgeSet, phrases: Phrases, below: list[str] | None = None) -> dict[str, list[str]]:
    """Return what each general phrase of a set truly holds."""
    below = below or list(phrases.all)
    specific = [below[row] for row in one.specific.tolist()]
    true = one.truth()
    return {
        phrases.all[row]: [name for name, held in zip(specific, true[i].tolist(), strict=True) if held]
        for i, row in enumerate(one.general.tolist())
    }


def sets_of(phrases: Phrases) -> dict[str, EdgeSet]:
    return {one.name: one for one in phrases.text_sets()}


def test_the_sets_of_three_levels():
    phrases = Phrases(Taxonomy(TREE))
    sets = sets_of(phrases)
    assert list(sets) == ["0-1", "0-2", "1-2", "all"]
    assert told(sets["0-1"], phrases) == {"a plant": ["a rose"], "an animal": ["a cat", "a dog"]}
    assert told(sets["0-2"], phrases) == {"a plant": ["a tea rose"], "an animal": ["a lion", "a poodle", "a pug"]}
    assert told(sets["1-2"], phrases) == {"a cat": ["a lion"], "a dog": ["a poodle", "a pug"], "a rose": ["a tea rose"]}
    assert told(sets["all"], phrases) == {
        "a plant": ["a rose", "a tea rose"],
        "an animal": ["a cat", "a dog", "a lion", "a poodle", "a pug"],
        "a cat": ["a lion"],
        "a dog": ["a poodle", "a pug"],
        "a rose": ["a tea rose"],
    }
    assert [sets[name].of_one_level for name in sets] == [True, True, True, False]
    # 5 general phrases over 9, and none of the five over itself.
    assert sets["all"].asked().shape == (5, 9)
    assert sets["all"].asked().sum() == 5 * 9 - 5
    assert not (sets["all"].truth() & ~sets["all"].asked()).any()


def test_one_level_of_edges_and_one_parent():
    phrases = Phrases(Taxonomy([("a dog", "an animal")]))
    sets = sets_of(phrases)
    assert list(sets) == ["0-1", "all"]
    assert told(sets["0-1"], phrases) == {"an animal": ["a dog"]}


def test_several_parents_of_several_levels():
    phrases = Phrases(Taxonomy(DAG))
    sets = sets_of(phrases)
    assert list(sets) == ["0-1", "0-2", "0-3", "1-2", "1-3", "2-3", "all"]
    assert told(sets["0-1"], phrases) == {"a thing": ["a pet"], "an animal": ["a fish"]}
    assert told(sets["0-2"], phrases) == {"a thing": ["a cat", "a dog"], "an animal": ["a dog"]}
    assert told(sets["0-3"], phrases) == {"a thing": ["a poodle"], "an animal": ["a poodle"]}
    assert told(sets["1-2"], phrases) == {"a pet": ["a cat", "a dog"]}  # a fish stands above nothing
    assert phrases.edges().shape == (2, len(DAG))


def test_of_a_deep_taxonomy_adjacent_levels_alone():
    chain = Taxonomy([(str(i + 1), str(i)) for i in range(5)])
    assert list(sets_of(Phrases(chain))) == ["0-1", "1-2", "2-3", "3-4", "4-5", "all"]


# Held out -------------------------------------------------------------------------------------------------------------

HELD_OUT = [("a tiger", "a cat"), ("a fern", "a plant"), ("a white tiger", "a tiger")]


def test_what_is_held_out_takes_part_and_is_apart_too():
    phrases = Phrases(Taxonomy(TREE), Taxonomy(HELD_OUT))
    sets = sets_of(phrases)
    assert phrases.held_out == {"a tiger", "a fern", "a white tiger"}
    assert told(sets["0-1"], phrases)["a plant"] == ["a fern", "a rose"]
    assert told(sets["0-1_held_out"], phrases) == {"a plant": ["a fern"], "an animal": []}
    assert told(sets["1-2_held_out"], phrases) == {"a cat": ["a tiger"], "a dog": [], "a rose": []}
    assert told(sets["2-3_held_out"], phrases) == {"a tiger": ["a white tiger"]}
    assert told(sets["held_out"], phrases) == {
        "a plant": ["a fern"], "an animal": ["a tiger", "a white tiger"], "a cat": ["a tiger", "a white tiger"],
        "a dog": [], "a rose": [], "a tiger": ["a white tiger"],
    }  # fmt: skip
    assert not {"0-1_held_out", "held_out"} & sets_of(Phrases(Taxonomy(TREE))).keys()


def test_the_emoji_are_measured_on_all_names_and_on_those_held_out():
    phrases = Phrases(load_taxonomy("emoji"), load_taxonomy("emoji-held-out"))
    sets = sets_of(phrases)
    assert list(sets) == ["0-1", "0-2", "0-2_held_out", "1-2", "1-2_held_out", "all", "held_out"]
    assert [len(sets[name].general) for name in ("0-1", "0-2", "1-2", "all")] == [11, 11, 66, 77]
    names = len(sets["0-2_held_out"].specific)
    assert names == len(phrases.held_out) == len(load_taxonomy("emoji-held-out").edges)
    assert sets["0-2_held_out"].truth().sum() == sets["1-2_held_out"].truth().sum() == names


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([("a dog", "a cat")], "must not be in the taxonomy, which has 1 of its phrases: 'a dog'"),
        ([("an animal", "a thing")], "must not be in the taxonomy"),
        ([("a wolf", "a dog"), ("a  DOG", "a cat"), ("a rose", "a plant")], "has 2 of its phrases: 'a dog'; 'a rose'"),
        ([("a wolf", "a beast")], "must be in the taxonomy, as those of 1 are not: 'a beast' of 'a wolf'"),
    ],
)
def test_held_out_edges_that_do_not_fit_the_taxonomy_are_named(held_out, message):
    with pytest.raises(DataError, match=message):
        Phrases(Taxonomy(TREE), Taxonomy(held_out))


# Pictures -------------------------------------------------------------------------------------------------------------


def labelled(names: list[list[str]], labels: list[int]) -> LabelledImages:
    files = [Path(f"{i}.png") for i in range(len(labels))]
    return LabelledImages(Path("pictures"), files, labels, [f"k{i}" for i in range(len(names))], names)


def test_classes_are_called_by_phrases_in_any_form():
    taxonomy = Taxonomy([("an owl", "a bird"), ("gloves", "clothing"), ("a photo of a lynx", "a photo"), ("Ice", "it")])
    names = [["owl"], ["gloves"], ["lynx"], ["ICE"], ["a  Bird"], ["unknown", "hoot owl", "owl", "an owl"], ["sofa"]]
    found = call(labelled(names, [0, 1, 2, 3, 4, 5, 6, 6]), taxonomy, ["a photo of a {}"])
    assert found.phrases == [("an owl",), ("gloves",), ("a photo of a lynx",), ("ice",), ("a bird",), ("an owl",)]
    assert [file.stem for file in found.files] == ["0", "1", "2", "3", "4", "5"]
    assert found.left_out == ["sofa"]
    assert found.candidates == {"an owl", "gloves", "a photo of a lynx", "ice", "a bird"}


def test_a_name_as_it_stands_goes_before_one_with_an_article():
    taxonomy = Taxonomy([("glass", "a material"), ("a glass", "tableware")])
    assert call(labelled([["glass"]], [0]), taxonomy, ["a {}"]).phrases == [("glass",)]


def test_every_class_of_the_emoji_is_called_by_a_phrase():
    from hypclip.data.quickstart.art import concepts

    names = [[c.name] for c in concepts()]
    phrases = Phrases(load_taxonomy("emoji"), load_taxonomy("emoji-held-out"))
    assert call(labelled(names, list(range(len(names)))), phrases.taxonomy, ["{}"]).left_out == []


def test_pictures_of_which_none_is_called_by_a_phrase_are_refused():
    with pytest.raises(DataError, match=r"no image of pictures is of a class whose name is a phrase.*'a rose'"):
        call(labelled([["sofa"], ["rose"]], [0]), Taxonomy([("a rose", "a plant")]), ["a {}"])


def test_the_sets_of_pictures():
    phrases = Phrases(Taxonomy(TREE), Taxonomy(HELD_OUT[:2]))
    names = ["poodle", "dog", "tiger", "fern", "lion or poodle", "rose"]
    called = [("a poodle",), ("a dog",), ("a tiger",), ("a fern",), ("a lion", "a poodle")]
    pictures = Instances([Path(name) for name in names[:5]], called, frozenset(sum(called, ("a rose",))), [])
    sets = {one.name: told(one, phrases, names) for one in phrases.instance_sets(pictures)}
    assert sets["0-picture"] == {"a plant": ["fern"], "an animal": ["poodle", "dog", "tiger", "lion or poodle"]}
    assert sets["0-picture_held_out"] == {"a plant": ["fern"], "an animal": ["tiger"]}
    assert sets["1-picture"] == {
        "a cat": ["tiger", "lion or poodle"], "a dog": ["poodle", "dog", "lion or poodle"], "a fern": ["fern"],
        "a rose": [],
    }  # fmt: skip
    assert sets["2-picture"] == {
        "a lion": ["lion or poodle"], "a poodle": ["poodle", "lion or poodle"], "a tiger": ["tiger"],
    }  # fmt: skip
    assert list(sets) == [f"{i}-picture{suffix}" for i in (0, 1, 2) for suffix in ("", "_held_out")]
    # A picture of a dog may be one of a poodle.
    deepest = next(one for one in phrases.instance_sets(pictures) if one.name == "2-picture")
    assert deepest.specific.tolist() == [0, 2, 4]
    assert deepest.asked().all()


def test_a_large_set_keeps_its_general_phrases_and_a_sample_of_the_others(monkeypatch):
    edges = [(f"{kind}{i}", kind) for kind in ("a", "b") for i in range(50)]
    monkeypatch.setattr(is_a, "MOST_PAIRS", 30)
    first, second = (sets_of(Phrases(Taxonomy(edges)))["0-1"] for _ in range(2))
    assert first.general.tolist() == [0, 1]
    assert len(first.specific) == 15
    assert first.specific.tolist() == second.specific.tolist() == sorted(set(first.specific.tolist()))
    assert first.truth().sum(0).tolist() == [1] * 15
