"""The hierarchy of hand-made trees, of which every measure is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hypclip.data.record import Box, Record
from hypclip.evaluation.instruments import Captioned, Hierarchy
from hypclip.evaluation.is_a import Instances, Phrases
from hypclip.evaluation.retrieval import Pairs
from hypclip.taxonomy import Taxonomy
from tests.support.data import BLUE, GREEN, RED, KnownModel
from tests.support.hierarchy import PERFECT, TREE, at, model_at

PLACES = {
    **PERFECT,
    "a dog on grass": (2.2, *PERFECT["a dog"][1:]),
    "a blue rose": (2.2, -1, 0),
    "a tiger": (1.8, *PERFECT["a cat"][1:]),
}
IMAGES = {RED: (3, *PERFECT["a dog"][1:]), BLUE: (3, -1, 0), GREEN: (2.6, *PERFECT["a cat"][1:])}


def record(colour: tuple[int, int, int], *captions: str) -> Record:
    return Record("key", torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4), captions, ())


CAPTIONED = Captioned.of(Pairs([record(RED, "a dog on grass"), record(BLUE, "a blue rose")], ["one was bad"]))


@pytest.fixture
def pictures(tmp_path: Path) -> Instances:
    files = [tmp_path / f"{name}.png" for name in ("dog", "tiger")]
    for file, colour in zip(files, (RED, GREEN), strict=True):
        Image.new("RGB", (4, 4), colour).save(file)
    return Instances(files, [("a poodle",), ("a tiger",)], frozenset(["a poodle", "a tiger"]), [])


def test_of_a_perfect_hierarchy_everything_is_right(pictures):
    phrases = Phrases(Taxonomy(TREE), Taxonomy([("a tiger", "a cat")]))
    found = Hierarchy(phrases, pictures, CAPTIONED).measure(model_at(PLACES, IMAGES))
    right = ["ap", "auc", "precision", "recall"]
    for name in ("0-1", "0-2", "1-2", "1-2_held_out", "all", "held_out", "0-picture", "1-picture"):
        measured = [found[f"{name}/{one}"] for one in right]
        assert measured == [1, 1, 1, 1], name
    for name in ("0-1", "0-2", "1-2", "1-2_held_out", "0-picture", "1-picture"):
        assert found[f"{name}/multiplicity"] == 1, name
    assert [found[f"order/{name}"] for name in ("0", "1", "held_out", "caption")] == [1, 1, 1, 1]
    assert (found["transitivity"], found["violated/all"], found["violated/own_image"]) == (1, 0, 0)
    assert (found["inside/own_image"], found["inside/other_image"], found["half_spaces"]) == (1, 0, 0)
    assert {name: found[name] for name in ("phrases", "held_out", "pictures", "images", "captions", "skipped")} == {
        "phrases": 10, "held_out": 1, "pictures": 2, "images": 2, "captions": 2, "skipped": 1,
    }  # fmt: skip
    radii = {name: found[f"radius/{name}"] for name in ("0", "1", "2", "caption", "image", "picture")}
    assert radii == pytest.approx({"0": 0.5, "1": 1, "2": 2, "caption": 2.2, "image": 3, "picture": 2.8}, rel=1e-6)
    assert -1 <= found["geodesic_against_cosine"] < 0.95


def test_of_a_hierarchy_upside_down_nothing_is_in_order():
    places = {name: (3.5 - rho, x, y) for name, (rho, x, y) in PERFECT.items()}
    found = Hierarchy(Phrases(Taxonomy(TREE))).measure(model_at(places))
    assert (found["order/0"], found["order/1"], found["violated/all"]) == (0, 0, 1)
    assert (found["0-1/recall"], found["0-1/multiplicity"]) == (0, 0)
    assert "0-1/precision" not in found
    # Of the pairs (g, s) and (s, g) of one cosine it is now the wrong one that is higher.
    assert found["all/ap-cosine"] < 0


def test_order_is_by_the_level_of_the_parent_and_a_tie_is_none():
    places = {**PERFECT, "a cat": PERFECT["an animal"], "a pug": (0.9, 1, 1)}
    found = Hierarchy(Phrases(Taxonomy(TREE))).measure(model_at(places))
    assert found["order/0"] == pytest.approx(2 / 3)
    assert found["order/1"] == pytest.approx(3 / 4)


def test_a_phrase_of_two_parents_belongs_to_both():
    taxonomy = Taxonomy([("a bat", "a mammal"), ("a bat", "a flyer"), ("an owl", "a flyer"), ("a cow", "a mammal")])
    places = {
        "a mammal": (0.5, 1, 0),
        "a flyer": (0.5, 0, 1),
        "a bat": (1, 1, 1),
        "an owl": (1, 0, 1),
        "a cow": (1, 0, -1),
    }
    found = Hierarchy(Phrases(taxonomy)).measure(model_at(places))
    # The mammals hold the bat alone, the flyers bat and owl: 3 of the 4 edges, and nothing else.
    assert found["0-1/base_rate"] == 4 / 6
    assert (found["0-1/precision"], found["0-1/recall"], found["violated/all"]) == (1, 3 / 4, 1 / 4)
    assert found["0-1/multiplicity"] == 1
    assert found["order/0"] == 1


def test_a_level_of_one_phrase_leaves_nothing_to_rank():
    found = Hierarchy(Phrases(Taxonomy([("a", "root"), ("b", "root")]))).measure(
        model_at({"root": (0.5, 1, 0), "a": (1, 1, 0), "b": (1, -1, 0)})
    )
    assert {name for name in found if name.startswith("0-1/")} == {
        f"0-1/{name}" for name in ("pairs", "base_rate", "precision", "recall", "multiplicity")
    }
    assert (found["0-1/base_rate"], found["0-1/precision"], found["0-1/recall"]) == (1, 1, 0.5)
    assert "transitivity" not in found
    assert found["radius/1"] == pytest.approx(1)
    # Over all phrases there is something: the root over each of the two, and not over itself.
    assert found["all/pairs"] == 2


def test_a_collapsed_hierarchy_is_seen_as_such():
    places = {name: (0.01 * i + 0.01, 1, 0) for i, name in enumerate(Phrases(Taxonomy(TREE)).all)}
    found = Hierarchy(Phrases(Taxonomy(TREE))).measure(model_at(places))
    for name, generals in (("0-1", 2), ("0-2", 2), ("1-2", 3)):
        assert found[f"{name}/multiplicity"] == generals
        assert found[f"{name}/precision"] == pytest.approx(found[f"{name}/base_rate"])
        assert found[f"{name}/recall"] == 1
    assert found["half_spaces"] == found["transitivity"] == found["order/0"] == 1


def test_the_sphere_has_only_what_needs_neither_radii_nor_regions(pictures):
    texts = {name: (x, y) for name, (_, x, y) in PLACES.items()}
    model = KnownModel(texts, {colour: (x, y) for colour, (_, x, y) in IMAGES.items()}, geometry="sphere")
    phrases = Phrases(Taxonomy(TREE), Taxonomy([("a tiger", "a cat")]))
    found = Hierarchy(phrases, pictures, CAPTIONED).measure(model)
    counts = {"phrases", "held_out", "pictures", "images", "captions", "skipped"}
    assert {name.rpartition("/")[2] for name in found.keys() - counts} == {"pairs", "base_rate", "ap", "auc"}
    assert counts < found.keys()
    assert found["0-1/ap"] == 1


@pytest.mark.parametrize("space", ["euclidean", "product"])
def test_other_spaces_have_all_of_it(space, pictures):
    settings = {"euclidean": {"curv": 1.0}, "product": {"distance": "l1", "factor_dim": 2, "curv": [1.0, 1.0]}}[space]
    copies = 2 if space == "product" else 1  # a product of two equal factors: its mean score is that of each
    texts, images = ({key: at(place) * copies for key, place in given.items()} for given in (PLACES, IMAGES))
    model = KnownModel(texts, images, geometry=space, entailment=model_at(PLACES).config.entailment, **settings)
    phrases = Phrases(Taxonomy(TREE), Taxonomy([("a tiger", "a cat")]))
    found = Hierarchy(phrases, pictures, CAPTIONED).measure(model)
    alone = Hierarchy(phrases, pictures, CAPTIONED).measure(model_at(PLACES, IMAGES))
    assert found.keys() == alone.keys()
    assert found["order/0"] == found["order/1"] == found["order/held_out"] == 1
    if space == "product":
        same = [name for name in alone if name.startswith(("0-", "1-", "inside")) and "cosine" not in name]
        assert [found[name] for name in same] == pytest.approx([alone[name] for name in same])
        assert found["radius/1"] == pytest.approx(2, rel=1e-6)
    else:
        assert found["radius/1"] == pytest.approx(math.sinh(1), rel=1e-6)
        # The dog at 40° holds what is behind it in flat space too, and so does the rose.
        assert found["1-2/recall"] == 1


def test_weights_that_are_no_numbers_give_no_numbers_and_no_error():
    places = {name: (math.nan, x, y) for name, (_, x, y) in PERFECT.items()}
    found = Hierarchy(Phrases(Taxonomy(TREE))).measure(model_at(places))
    assert all(math.isfinite(value) for value in found.values())
    assert found["all/recall"] == 0


def test_without_pictures_the_phrases_rank_each_other():
    phrases = Phrases(Taxonomy([("a", "root"), ("b", "root")]))
    third = math.radians(60)
    places = {"root": (0.05, 1, 0), "a": (0.05, math.cos(third), math.sin(third)), "b": (3, 1, -0.1)}
    assert Hierarchy(phrases).measure(model_at(places))["geodesic_against_cosine"] == pytest.approx(1 / 3)


def test_all_captions_of_a_picture_take_part():
    pairs = Pairs([record(RED, "a dog on grass", "a blue rose"), record(BLUE, "a blue rose")], [])
    found = Hierarchy(Phrases(Taxonomy(TREE)), captioned=Captioned.of(pairs)).measure(model_at(PLACES, IMAGES))
    assert found["captions"] == 3
    # The rose's caption holds its own picture and not the dog's, of which it is said too.
    assert found["inside/own_image"] == pytest.approx(2 / 3)
    assert found["inside/other_image"] == 0


def test_the_order_of_phrases_is_of_those_that_are_a_part_of_their_caption():
    boxes = [Box(phrase, 0.0, 0.0, 1.0, 1.0, 1.0) for phrase in ("a dog", "grass", "a dog on grass")]
    first = replace(record(RED, "a dog on grass", "another"), boxes=(*boxes, boxes[0]))
    second = replace(record(BLUE, "a blue rose"), boxes=(Box("a rose", 0.0, 0.0, 1.0, 1.0, 1.0),))
    data = Captioned.of(Pairs([first, second], []))
    assert data.parts == [("a dog", 0), ("a rose", 2), ("grass", 0)]
    places = PLACES | {"another": (2.2, 0, 1), "grass": (2.3, 0, -1), "a rose": (2, -1, 0)}
    found = Hierarchy(Phrases(Taxonomy(TREE)), captioned=data).measure(model_at(places, IMAGES))
    assert found["order/phrase"] == pytest.approx(2 / 3)
    assert "order/phrase" not in Hierarchy(Phrases(Taxonomy(TREE)), captioned=CAPTIONED).measure(
        model_at(PLACES, IMAGES)
    )
