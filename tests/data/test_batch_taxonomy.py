"""What a batch knows of a taxonomy: ancestors of its texts, and the concepts that stand beside it."""

from __future__ import annotations

import pytest
import torch

from hypclip.data.augment import AugmentConfig
from hypclip.data.batch import Batch, Example, ExampleMaker, collate, text_id
from hypclip.data.image import to_pixels
from hypclip.data.record import Box, Record
from hypclip.roles import MISSING
from hypclip.taxonomy import Taxonomy
from hypclip.towers.text import Tokenizer
from tests.support.data import coordinates
from tests.support.training import tokens_of

TAXONOMY = Taxonomy(
    [("a dog", "an animal"), ("a cat", "an animal"), ("a rose", "a plant"), ("a poodle", "a dog"), ("a fir", "a plant")]
)
ROLES = frozenset({"image", "text", "box_image", "box_text"})


TOKENIZER = Tokenizer({})


def example(*phrases: str, caption: str = "A  rose", max_boxes: int = 1) -> Example:
    make = ExampleMaker(ROLES, 8, AugmentConfig(), max_boxes=max_boxes, taxonomy=TAXONOMY)
    boxes = tuple(Box(phrase, 0.1, 0.1, 0.5, 0.5, 1 - i / 10) for i, phrase in enumerate(phrases))
    return make(Record("k", to_pixels(coordinates(20, 20)), (caption,), boxes), "seed")


def batch(*examples: Example, concepts: int = 4, max_boxes: int = 1) -> Batch:
    return collate(examples, TOKENIZER, max_boxes, TAXONOMY, concepts)


def texts_of(batch: Batch) -> dict[str, list[list[int]]]:
    """Return the token ids of the texts of each role, without padding."""
    return {role: [row[row != 0].tolist() for row in tokens] for role, tokens in tokens_of(batch.texts).items()}


def ids(*phrases: str | None) -> list[int]:
    return [MISSING if phrase is None else text_id(phrase) for phrase in phrases]


def test_each_text_has_the_ids_of_what_stands_above_it():
    found = batch(example("a Poodle"), example("a car"), example(caption="a cat"))
    assert found.ancestors["box_text"].tolist() == [ids("a dog", "an animal"), ids(None, None), ids("an animal", None)]
    assert found.ancestors["text"].tolist() == [ids("a plant", None), ids("a plant", None), ids("an animal", None)]


def test_of_several_boxes_each_has_its_own_and_padding_has_none():
    found = batch(example("a poodle", "a cat", max_boxes=3), example(max_boxes=3), max_boxes=3)
    assert found.ancestors["box_text"].shape == (2, 3, 2)
    assert found.ancestors["box_text"][0].tolist() == [
        ids("a dog", "an animal"),
        ids("an animal", None),
        ids(None, None),
    ]
    assert (found.ancestors["box_text"][1] == MISSING).all()
    assert found.ancestors["text"].shape == (2, 2)


def test_concepts_are_first_what_stands_above_the_batch_then_other_general_phrases_then_any():
    examples = [example("a poodle", caption="x"), example("a cat", caption="x")]
    wanted = {  # an animal twice, a dog once; then a plant, the one other general phrase; then names
        2: {"an animal", "a dog"},
        3: {"an animal", "a dog", "a plant"},
    }
    for count, phrases in wanted.items():
        assert set(batch(*examples, concepts=count).content["concept"].tolist()) == set(ids(*phrases))
    five = batch(*examples, concepts=5)
    assert set(ids("an animal", "a dog", "a plant")) < set(five.content["concept"].tolist())
    assert len(set(five.content["concept"].tolist())) == 5


def test_there_are_no_more_concepts_than_phrases_and_none_where_none_are_wanted():
    found = batch(example("a car"), concepts=100)
    assert sorted(found.content["concept"].tolist()) == sorted(ids(*TAXONOMY.phrases))
    none = batch(example("a car"), concepts=0)
    assert "concept" not in none.texts.counts
    assert none.levels is None
    assert none.ancestors["text"].tolist() == [ids("a plant", None)]


def test_concepts_know_their_tokens_levels_and_ancestors():
    found = batch(example("a car"), concepts=100)
    texts = texts_of(found)["concept"]
    for row, phrase_id in enumerate(found.content["concept"].tolist()):
        phrase = next(p for p in TAXONOMY.phrases if text_id(p) == phrase_id)
        assert texts[row] == TOKENIZER([phrase])[0].tolist()
        assert found.levels is not None
        assert found.levels[row] == TAXONOMY.level(phrase)
        above = TAXONOMY.ancestors(phrase)
        assert found.ancestors["concept"][row].tolist() == ids(*above, *[None] * (2 - len(above)))


def test_a_batch_is_a_pure_function_of_its_examples():
    examples = [example("a poodle"), example("a cat")]
    first, again = batch(*examples, concepts=6), batch(*examples, concepts=6)
    assert first.content["concept"].tolist() == again.content["concept"].tolist()
    others = {tuple(batch(example("a cat", caption=str(i)), concepts=4).content["concept"].tolist()) for i in range(20)}
    assert len(others) > 1  # what fills up the rest differs from batch to batch


@pytest.mark.parametrize("max_boxes", [1, 2])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_share_out_samples_and_concepts(max_boxes, parts):
    whole = batch(*(example("a poodle", caption=str(i), max_boxes=max_boxes) for i in range(5)), max_boxes=max_boxes)
    cut = whole.split(parts)
    assert [part.size for part in cut] == [5 * (k + 1) // parts - 5 * k // parts for k in range(parts)]
    for of in ("content", "ancestors"):
        for role, rows in getattr(whole, of).items():
            joined = torch.cat([getattr(part, of)[role] for part in cut if role in getattr(part, of)])
            assert joined.tolist() == rows.tolist()
    read = [texts_of(part) for part in cut]
    for role, texts in texts_of(whole).items():
        assert [text for part in read for text in part.get(role, [])] == texts
    assert torch.cat([part.levels for part in cut]).tolist() == whole.levels.tolist()


def test_a_batch_goes_to_a_device_with_all_it_knows():
    moved = batch(example("a poodle")).to(torch.device("meta"))
    assert {x.device.type for x in (*moved.ancestors.values(), *moved.content.values(), moved.levels)} == {"meta"}


def test_without_a_taxonomy_a_batch_knows_nothing_of_one():
    plain = ExampleMaker(ROLES, 8, AugmentConfig())(
        Record("k", to_pixels(coordinates(20, 20)), ("a rose",), (Box("a dog", 0.1, 0.1, 0.5, 0.5, 1.0),)), "seed"
    )
    assert plain.above == {}
    found = collate([plain], TOKENIZER)
    assert (found.ancestors, found.levels) == ({}, None)
    assert "concept" not in found.texts.counts
