"""From records to batches: one box by score, content ids, padding."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
import torch
from data_helpers import coordinates

from hypclip.data.augment import AugmentConfig
from hypclip.data.batch import ExampleMaker, collate, content_id, draw_box, text_id
from hypclip.data.record import Box, Record
from hypclip.roles import MISSING
from hypclip.towers.text import Tokenizer

ALL = frozenset(("image", "text", "box_image", "box_text"))
PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
BOXES = (Box("a dog", 0.1, 0.1, 0.3, 0.3, 0.9), Box("a cat", 0.5, 0.5, 0.9, 0.9, 0.1))


def maker(roles: frozenset = ALL) -> ExampleMaker:
    return ExampleMaker(roles, 8, PLAIN, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def record(*boxes: Box, caption: str = "a dog and a cat", key: str = "k") -> Record:
    return Record(key, coordinates(100, 100), caption, boxes)


def test_boxes_are_drawn_with_probability_by_score() -> None:
    rng = random.Random(0)
    drawn = Counter(draw_box(BOXES, rng).phrase for _ in range(5000))  # type: ignore[union-attr]
    assert drawn["a dog"] / 5000 == pytest.approx(0.9, abs=0.02)
    unscored = [Box(p, 0.0, 0.0, 1.0, 1.0, 0.0) for p in "ab"]
    assert Counter(draw_box(unscored, rng).phrase for _ in range(2000))["a"] == pytest.approx(1000, abs=150)  # type: ignore[union-attr]
    assert draw_box((), rng) is None


def test_the_crop_belongs_to_the_phrase() -> None:
    seen = set()
    for seed in range(40):
        example = maker()(record(*BOXES), str(seed))
        box = next(b for b in BOXES if b.phrase == example.texts["box_text"])
        centre = example.images["box_image"][0].mean().item() * 255  # red holds the column
        assert centre == pytest.approx((box.x0 + box.x1) / 2 * 100 - 0.5, abs=1.5)
        seen.add(box.phrase)
    assert seen == {"a dog", "a cat"}


def test_an_example_is_a_pure_function_of_record_and_seed() -> None:
    augmenting = ExampleMaker(ALL, 8, AugmentConfig(colour_jitter=0.4), (0.0,) * 3, (1.0,) * 3, box_margin=0.3)
    once, again, other = (augmenting(record(*BOXES), seed) for seed in ("1", "1", "2"))
    assert torch.equal(once.images["box_image"], again.images["box_image"])
    assert not torch.equal(once.images["image"], other.images["image"])


def test_only_the_roles_asked_for_are_made() -> None:
    example = maker(frozenset(("image", "text")))(record(*BOXES), "0")
    assert set(example.images) == {"image"}
    assert set(example.texts) == {"text"}
    assert set(example.content) == {"image", "text"}


def test_without_boxes_the_box_roles_are_marked_missing() -> None:
    example = maker()(record(), "0")
    assert example.content["box_image"] == example.content["box_text"] == MISSING
    assert example.content["image"] >= 0
    assert example.images["box_image"].shape == (3, 8, 8)


def test_content_ids_tell_when_a_box_is_its_own_parent() -> None:
    whole = maker()(record(Box("A dog  and a CAT", 0.0, 0.01, 1.0, 0.99, 1.0)), "0")
    assert whole.content["box_text"] == whole.content["text"]
    assert whole.content["box_image"] == whole.content["image"]
    part = maker()(record(BOXES[0]), "0")
    assert part.content["box_text"] != part.content["text"]
    assert part.content["box_image"] != part.content["image"]
    elsewhere = maker()(record(BOXES[0], key="another"), "0")
    assert elsewhere.content["box_text"] == part.content["box_text"]
    assert elsewhere.content["box_image"] != part.content["box_image"]


def test_ids_are_stable_and_fit_int64() -> None:
    assert text_id("A  Dog ") == text_id("a dog") != text_id("a dogs")
    assert 0 <= content_id("x") < 2**63
    assert content_id("text/a dog") == text_id("a dog")


def test_collate_stacks_and_pads_each_role_to_its_own_longest() -> None:
    examples = [maker()(record(box, caption="a dog and a cat on a red mat"), "0") for box in BOXES]
    batch = collate(examples, Tokenizer({}))
    assert batch.size == 2
    assert batch.images["image"].shape == (2, 3, 8, 8)
    assert batch.texts["text"].shape == (2, 11)  # nine words, start and end
    assert batch.texts["box_text"].shape == (2, 4)
    assert batch.content["box_text"].tolist() == [text_id("a dog"), text_id("a cat")]


def test_scores_are_odds_and_zero_is_never() -> None:
    """Chi-square of 8,000 draws by the odds 1 : 2 : 5 : 0, and of 2,000 visits by the odds of a record's boxes."""
    boxes = [
        Box(phrase, 0.0, 0.0, 1.0, 1.0, score) for phrase, score in (("a", 0.1), ("b", 0.2), ("c", 0.5), ("d", 0.0))
    ]
    rng = random.Random(1)
    drawn = Counter(draw_box(boxes, rng).phrase for _ in range(8_000))  # type: ignore[union-attr]
    expected = {"a": 1_000, "b": 2_000, "c": 5_000}
    assert drawn["d"] == 0
    assert sum((drawn[p] - n) ** 2 / n for p, n in expected.items()) < 13.8  # 0.1 % of the distribution is above
    visits = maker(frozenset(("box_text",)))
    seen = Counter(visits(record(*BOXES), f"0/{epoch}/a.tar/k").texts["box_text"] for epoch in range(2_000))
    assert sum((seen[b.phrase] - 2_000 * b.score) ** 2 / (2_000 * b.score) for b in BOXES) < 10.8


def test_pictures_of_the_same_key_in_different_shards_are_different_pictures() -> None:
    """Plain pairs often count from 0 in each shard."""
    here, there = (
        maker()(Record("0", coordinates(100, 100), "a dog", BOXES[:1], shard), "0") for shard in ("a.tar", "b.tar")
    )
    assert here.content["image"] != there.content["image"]
    assert here.content["box_image"] != there.content["box_image"]
    assert here.content["text"] == there.content["text"]


def test_making_examples_leaves_the_generator_of_training_alone() -> None:
    before = torch.get_rng_state()
    ExampleMaker(ALL, 8, AugmentConfig(colour_jitter=0.4, flip=0.5, grey=0.5), (0.0,) * 3, (1.0,) * 3, 0.3)(
        record(*BOXES), "0"
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_a_margin_widens_crops_up_to_its_fraction() -> None:
    wide = ExampleMaker(ALL, 8, PLAIN, (0.0,) * 3, (1.0,) * 3, box_margin=1.0)
    box = Box("a dog", 0.4, 0.4, 0.6, 0.6, 1.0)
    spans = []
    for seed in range(60):
        columns = wide(record(box), str(seed)).images["box_image"][0] * 255  # red holds the column, 8 pixels a row
        spans.append((columns[:, -1] - columns[:, 0]).mean().item() * 8 / 7)
    assert 19 < min(spans) < 24
    assert 36 < max(spans) < 41


def test_ids_are_the_same_in_every_process_and_version() -> None:
    """Worked out apart: half of the first 8 bytes of BLAKE2b, for which Python's own hash() would not do."""
    assert content_id("text/a dog") == int(hashlib.blake2b(b"text/a dog", digest_size=8).hexdigest(), 16) // 2
    assert len({content_id(str(i)) for i in range(10_000)}) == 10_000
