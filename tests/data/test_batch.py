"""From records to batches: one box by score or the best of them, content ids, padding, parts of a batch."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hypclip.data.augment import AugmentConfig, TrainingTransform, crop_box
from hypclip.data.batch import Batch, Example, ExampleMaker, collate, content_id, draw_box, text_id
from hypclip.data.image import Normaliser, to_pixels
from hypclip.data.record import Box, Record
from hypclip.objective import Objective
from hypclip.roles import BOX_ROLES, MISSING
from hypclip.towers.text import Tokenizer
from tests.support.data import coordinates
from tests.support.models import tiny_encoder
from tests.support.training import tokens_of

ALL = frozenset(("image", "text", "box_image", "box_text"))
PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
NORMALISE = Normaliser((0.5,) * 3, (0.25,) * 3)
BOXES = (Box("a dog", 0.1, 0.1, 0.3, 0.3, 0.9), Box("a cat", 0.5, 0.5, 0.9, 0.9, 0.1))


def maker(roles: frozenset = ALL, max_boxes: int = 1) -> ExampleMaker:
    return ExampleMaker(roles, 8, PLAIN, max_boxes=max_boxes)


def record(*boxes: Box, caption: str = "a dog and a cat", key: str = "k") -> Record:
    return Record(key, to_pixels(coordinates(100, 100)), (caption,), boxes)


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
        box = next(b for b in BOXES if [b.phrase] == example.texts["box_text"])
        (crop,) = example.images["box_image"]
        centre = crop[0].float().mean().item()  # red holds the column
        assert centre == pytest.approx((box.x0 + box.x1) / 2 * 100 - 0.5, abs=1.5)
        seen.add(box.phrase)
    assert seen == {"a dog", "a cat"}


def test_an_example_is_a_pure_function_of_record_and_seed() -> None:
    augmenting = ExampleMaker(ALL, 8, AugmentConfig(colour_jitter=0.4), box_margin=0.3)
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
    assert example.content["box_image"] == example.content["box_text"] == [MISSING]
    assert example.content["image"][0] >= 0
    assert example.images["box_image"].shape == (1, 3, 8, 8)


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
    assert batch.texts.order is None
    assert batch.size == 2
    assert batch.images["image"].shape == (2, 3, 8, 8)
    assert [tokens.shape for tokens in batch.texts.passes] == [(2, 11), (2, 4)]  # nine words, start and end
    assert batch.content["box_text"].tolist() == [text_id("a dog"), text_id("a cat")]


def test_texts_of_unlike_lengths_are_planned_in_passes_by_length() -> None:
    captions = ["a dog " * 20, "a cat", "a cat and a dog"]
    examples = [maker()(record(box, caption=caption), "0") for box, caption in zip(FIVE, captions, strict=False)]
    by_role, by_length = (collate(examples, Tokenizer({}), pass_tokens=cost) for cost in (None, 1))
    assert by_length.texts.order is not None
    tokens, wanted = tokens_of(by_length.texts), tokens_of(by_role.texts)
    assert all(torch.equal(tokens[role], wanted[role]) for role in ("text", "box_text"))
    assert sum(x.numel() for x in by_length.texts.passes) < 0.7 * sum(x.numel() for x in by_role.texts.passes)


@pytest.mark.parametrize("max_boxes", [1, 3])
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_colours_are_last_in_the_memory_of_a_batch(max_boxes: int, jitter: float) -> None:
    """In which order convolutions read them, so that nothing is moved about later."""
    make = ExampleMaker(ALL, 8, AugmentConfig(colour_jitter=jitter, flip=0.5), 0.3, max_boxes)
    for samples in ((BOXES, BOXES[:1], BOXES), ((), (), ())):
        batch = collate([make(record(*boxes), "0") for boxes in samples], Tokenizer({}), max_boxes)
        for pixels in (*batch.images.values(), *batch.to(torch.device("cpu"), NORMALISE).images.values()):
            assert pixels.is_contiguous(memory_format=torch.channels_last)
        assert {pixels.dtype for pixels in batch.images.values()} == {torch.uint8}


def test_a_batch_is_normalised_on_its_way_to_the_device() -> None:
    batch = collate([maker()(record(*BOXES), "0")], Tokenizer({}))
    moved = batch.to(torch.device("cpu"), NORMALISE)
    for role, pixels in moved.images.items():
        torch.testing.assert_close(pixels, (batch.images[role] / 255 - 0.5) / 0.25)
    assert batch.to(torch.device("cpu")).images["image"].dtype == torch.uint8


@pytest.mark.slow
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
    seen = Counter(visits(record(*BOXES), f"0/{epoch}/a.tar/k").texts["box_text"][0] for epoch in range(2_000))
    assert sum((seen[b.phrase] - 2_000 * b.score) ** 2 / (2_000 * b.score) for b in BOXES) < 10.8


SEVERAL = Record("0", to_pixels(coordinates(100, 100)), ("a dog", "an animal", "a cat"), BOXES[:1])


def test_one_of_several_captions_is_drawn_by_the_seed() -> None:
    plain = ExampleMaker(frozenset({"image", "text"}), 32, AugmentConfig())
    drawn = [plain(SEVERAL, str(seed)).texts["text"][0] for seed in range(300)]
    assert drawn == [plain(SEVERAL, str(seed)).texts["text"][0] for seed in range(300)]
    # Each count is binomial (300, 1/3): standard deviation 8.2, five of which are 41.
    assert all(abs(drawn.count(caption) - 100) < 41 for caption in SEVERAL.captions)
    without = replace(SEVERAL, boxes=())
    found = {maker()(without, str(seed)).texts["text"][0] for seed in range(50)}
    assert found == set(SEVERAL.captions)
    assert all(e.texts["box_text"] == e.texts["text"] for e in (maker()(without, str(seed)) for seed in range(9)))


def test_beside_boxes_the_caption_is_the_one_of_their_phrases() -> None:
    assert {maker()(SEVERAL, str(seed)).texts["text"][0] for seed in range(50)} == {"a dog"}


def test_to_draw_a_caption_changes_no_other_draw() -> None:
    one = replace(SEVERAL, captions=("a cat",), boxes=())
    for seed in ("0", "1", "2"):
        a, b = maker()(one, seed), maker()(replace(SEVERAL, boxes=()), seed)
        assert torch.equal(a.images["image"], b.images["image"])


def test_pictures_of_the_same_key_in_different_shards_are_different_pictures() -> None:
    """Plain pairs often count from 0 in each shard."""
    here, there = (
        maker()(Record("0", to_pixels(coordinates(100, 100)), ("a dog",), BOXES[:1], shard), "0")
        for shard in ("a.tar", "b.tar")
    )
    assert here.content["image"] != there.content["image"]
    assert here.content["box_image"] != there.content["box_image"]
    assert here.content["text"] == there.content["text"]


def test_making_examples_leaves_the_generator_of_training_alone() -> None:
    before = torch.get_rng_state()
    ExampleMaker(ALL, 8, AugmentConfig(colour_jitter=0.4, flip=0.5, grey=0.5), 0.3)(record(*BOXES), "0")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_margin_widens_crops_up_to_its_fraction() -> None:
    wide = ExampleMaker(ALL, 8, PLAIN, box_margin=1.0)
    box = Box("a dog", 0.4, 0.4, 0.6, 0.6, 1.0)
    spans = []
    for seed in range(60):
        (crop,) = wide(record(box), str(seed)).images["box_image"]
        columns = crop[0].float()  # red holds the column, 8 pixels a row
        spans.append((columns[:, -1] - columns[:, 0]).mean().item() * 8 / 7)
    assert 19 < min(spans) < 24
    assert 36 < max(spans) < 41


def test_ids_are_the_same_in_every_process_and_version() -> None:
    """Worked out apart: half of the first 8 bytes of BLAKE2b, for which Python's own hash() would not do."""
    assert content_id("text/a dog") == int(hashlib.blake2b(b"text/a dog", digest_size=8).hexdigest(), 16) // 2
    assert len({content_id(str(i)) for i in range(10_000)}) == 10_000


# One box is what it was -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boxes", [BOXES, BOXES[:1], ()], ids=["two", "one", "none"])
def test_one_box_mode_takes_its_random_numbers_in_the_order_it_always_had(boxes: tuple[Box, ...]) -> None:
    """Written out: the box, the changes to the picture, the margin, the changes to the crop, of one generator."""
    augment = AugmentConfig(colour_jitter=0.4, flip=0.5, grey=0.2)
    change = TrainingTransform(8, augment)
    make = ExampleMaker(ALL, 8, augment, box_margin=0.3)
    for seed in map(str, range(20)):
        sample = record(*boxes)
        example = make(sample, seed)
        rng = random.Random(seed)
        box = rng.choices(boxes, [b.score for b in boxes])[0] if boxes else None
        picture = change(sample.pixels, rng)
        pixels = sample.pixels
        crop = pixels if box is None else crop_box(pixels, box, rng.uniform(0.0, 0.3))
        assert torch.equal(example.images["image"], picture)
        assert torch.equal(example.images["box_image"], change(crop, rng)[None])
        assert example.texts == {"text": [sample.caption], "box_text": [box.phrase if box else sample.caption]}


def test_one_box_mode_makes_flat_batches() -> None:
    batch = collate([maker()(record(*boxes), "0") for boxes in (BOXES, ())], Tokenizer({}))
    assert batch.box_weight is batch.box_rows is None
    assert {role: x.shape for role, x in batch.images.items()} == dict.fromkeys(("image", "box_image"), (2, 3, 8, 8))
    assert {role: ids.shape for role, ids in batch.content.items()} == dict.fromkeys(ALL, (2,))
    assert batch.content["box_text"][1] == batch.content["box_image"][1] == MISSING


# Several boxes --------------------------------------------------------------------------------------------------------

FIVE = (
    Box("a cat", 0.5, 0.5, 0.9, 0.9, 0.2),
    Box("a dog", 0.1, 0.1, 0.3, 0.3, 0.9),
    Box("a mat", 0.0, 0.4, 0.2, 0.6, 0.5),
    Box("a hat", 0.6, 0.0, 0.8, 0.2, 0.5),
    Box("all", 0.0, 0.0, 1.0, 1.0, 0.1),
)
UNSCORED = tuple(replace(box, score=0.0) for box in FIVE[:2])
PAD = 0
"""What the tokenizer fills rows with."""


def several(*samples: tuple[Box, ...], max_boxes: int = 3) -> tuple[list[Example], Batch]:
    """Return the examples of records with these boxes, and their batch."""
    make = maker(max_boxes=max_boxes)
    examples = [make(record(*boxes, key=str(i)), "0") for i, boxes in enumerate(samples)]
    return examples, collate(examples, Tokenizer({}), max_boxes)


def test_several_boxes_are_the_best_by_score_first() -> None:
    """Equal scores stand in the order of the record."""
    example = maker(max_boxes=4)(record(*FIVE), "0")
    assert example.texts["box_text"] == ["a dog", "a mat", "a hat", "a cat"]
    assert example.weights == [0.9, 0.5, 0.5, 0.2]
    assert example.content["box_text"] == [text_id(phrase) for phrase in example.texts["box_text"]]
    assert len(set(example.content["box_image"])) == 4
    assert maker(max_boxes=9)(record(*FIVE), "0").content["box_image"][4] == example.content["image"][0]


def test_every_crop_of_several_belongs_to_its_phrase() -> None:
    example = maker(max_boxes=4)(record(*FIVE), "0")
    assert example.images["box_image"].shape == (4, 3, 8, 8)
    for phrase, crop in zip(example.texts["box_text"], example.images["box_image"], strict=True):
        box = next(b for b in FIVE if b.phrase == phrase)
        middle = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        for channel, place in zip(crop, middle, strict=False):  # red holds the column, green the row
            assert channel.float().mean().item() == pytest.approx(place * 100 - 0.5, abs=1.5)


def test_which_boxes_is_not_left_to_chance_but_how_they_are_cropped_is() -> None:
    make = ExampleMaker(ALL, 8, AugmentConfig(flip=0.5), 0.3, max_boxes=2)
    once, again, other = (make(record(*FIVE), seed) for seed in ("1", "1", "2"))
    for role, pixels in once.images.items():
        assert torch.equal(pixels, again.images[role])
        assert not torch.equal(pixels, other.images[role])
    assert (once.texts, once.content, once.weights) == (again.texts, again.content, again.weights)
    assert (once.texts, once.content, once.weights) == (other.texts, other.content, other.weights)


def test_boxes_without_scores_count_alike() -> None:
    assert maker(max_boxes=3)(record(*UNSCORED), "0").weights == [1.0, 1.0]
    half = maker(max_boxes=3)(record(FIVE[0], *UNSCORED), "0")
    assert half.weights == [0.2, 0.0, 0.0]


def test_a_picture_without_boxes_has_no_box_rows() -> None:
    example = maker(max_boxes=3)(record(), "0")
    assert example.images["box_image"].shape == (0, 3, 8, 8)
    assert example.texts["box_text"] == example.content["box_image"] == example.content["box_text"] == []
    assert example.weights == []
    assert example.images["image"].shape == (3, 8, 8)


def test_batches_of_several_boxes_pack_rows_and_pad_the_rest() -> None:
    examples, batch = several(FIVE, FIVE[:1], (), UNSCORED)
    assert batch.size == 4
    assert batch.box_rows is not None
    assert batch.box_weight is not None
    assert batch.box_rows.tolist() == [0, 1, 2, 3, 9, 10]
    wanted = torch.tensor([[0.9, 0.5, 0.5], [0.2, 0, 0], [0, 0, 0], [1, 1, 0]])
    assert torch.equal(batch.box_weight, wanted)
    for role in BOX_ROLES:
        ids = batch.content[role]
        assert ids.shape == (4, 3)
        assert torch.equal(ids == MISSING, wanted == 0)
        assert ids[ids != MISSING].tolist() == [i for e in examples for i in e.content[role]]
    assert {role: ids.shape for role, ids in batch.content.items() if role not in BOX_ROLES} == {
        "image": (4,),
        "text": (4,),
    }
    assert batch.images["image"].shape == (4, 3, 8, 8)
    assert torch.equal(batch.images["box_image"], torch.cat([e.images["box_image"] for e in examples]))
    phrases = [phrase for e in examples for phrase in e.texts["box_text"]]
    assert torch.equal(trimmed(tokens_of(batch.texts)["box_text"]), Tokenizer({})(phrases))


def test_samples_of_fewer_boxes_than_the_most_are_padded_to_the_most() -> None:
    """Processes and parts gather rows of one shape, whatever is in them."""
    _, batch = several(FIVE[:1], max_boxes=5)
    assert batch.content["box_text"].shape == (1, 5)
    assert batch.box_weight is not None
    assert batch.box_weight.shape == (1, 5)


def test_packed_rows_land_at_their_sample_and_box() -> None:
    model = tiny_encoder()
    torch.manual_seed(1)
    batch = widened(several((), FIVE, (), FIVE[:1], UNSCORED)[1])
    with torch.no_grad():
        features = model(batch.images, batch.texts, (batch.size, 3), batch.box_rows).features
        crops, phrases = (
            model.encode_image(batch.images["box_image"]),
            model.encode_text(tokens_of(batch.texts)["box_text"]),
        )
        whole = model.encode_image(batch.images["image"])
    places = [(1, 0), (1, 1), (1, 2), (3, 0), (4, 0), (4, 1)]
    assert {role: x.shape for role, x in features.items() if role in BOX_ROLES} == dict.fromkeys(BOX_ROLES, (5, 3, 16))
    for role, rows in (("box_image", crops), ("box_text", phrases)):
        for place, row in zip(places, rows, strict=True):
            torch.testing.assert_close(features[role][place], row)
        others = torch.ones(5, 3, dtype=torch.bool)
        others[tuple(zip(*places, strict=True))] = False
        assert (features[role][others] == 0).all()
    torch.testing.assert_close(features["image"], whole)
    assert len({tuple(row.tolist()) for row in crops}) == 6


def widened(batch: Batch) -> Batch:
    """Return the batch with noise of the size that towers take for pixels."""
    return replace(batch, images={role: torch.randn(len(x), 3, 32, 32) for role, x in batch.images.items()})


@pytest.mark.parametrize("recipe", ["uncha", {"base": "hycoclip", "max_boxes": 3}], ids=["uncha", "hycoclip"])
def test_a_batch_without_any_box_has_the_loss_of_whole_pictures(recipe: str | dict) -> None:
    """The row that stands in for boxes counts nothing, and its gradient is 0, not none."""
    objective = Objective.from_recipe({"base": recipe, "max_boxes": 3} if isinstance(recipe, str) else recipe)
    batch = widened(several((), (), ())[1])
    assert batch.box_rows is not None
    assert len(batch.box_rows) == len(batch.images["box_image"]) == batch.texts.counts["box_text"] == 1
    assert batch.box_weight is not None
    assert not batch.box_weight.any()
    model = tiny_encoder(other_scales={"box_scale": 20.0, "box_whole_scale": 16.7})
    output = model(batch.images, batch.texts, (batch.size, 3), batch.box_rows)
    common = {"curv": output.curv, "logit_scale": output.scales}
    loss = objective(output.features, **common, content=batch.content, box_weight=batch.box_weight)

    pairs = [c for c in objective.recipe.contrast if not {c.query, c.key} & BOX_ROLES]
    edges = [e for e in objective.recipe.edges if not {e.general, e.specific} & BOX_ROLES]
    plain = replace(
        objective.recipe,
        contrast=tuple(pairs),
        edges=tuple(edges),
        max_boxes=1,
        scales={"logit_scale": objective.recipe.scales["logit_scale"]},
    )
    alone = Objective(plain)(
        {role: output.features[role] for role in ("image", "text")},
        **common,
        content={role: batch.content[role] for role in ("image", "text")},
    )
    torch.testing.assert_close(loss.loss, alone.loss)
    assert loss.loss > 0.1
    assert {name: value for name, value in loss.parts.items() if "box" in name and value} == {}
    parameters = dict(model.named_parameters())
    got = torch.autograd.grad(loss.loss, list(parameters.values()), allow_unused=True, retain_graph=True)
    want = torch.autograd.grad(alone.loss, list(parameters.values()), allow_unused=True)
    for name, ours, theirs in zip(parameters, got, want, strict=True):
        zero = torch.zeros_like(parameters[name])
        torch.testing.assert_close(zero if ours is None else ours, zero if theirs is None else theirs, msg=name)


# Parts ----------------------------------------------------------------------------------------------------------------


def trimmed(tokens: Tensor) -> Tensor:
    """Drop the columns that are padding in every row, of which a part keeps what the whole batch has."""
    return tokens[:, : int((tokens != PAD).sum(1).max())]


def assert_same_batch(got: Batch, want: Batch) -> None:
    assert (got.images.keys(), got.texts.counts, got.content.keys()) == (
        want.images.keys(),
        want.texts.counts,
        want.content.keys(),
    )
    assert all(torch.equal(got.images[role], want.images[role]) for role in want.images)
    read, wanted = tokens_of(got.texts), tokens_of(want.texts)
    assert all(torch.equal(trimmed(read[role]), trimmed(wanted[role])) for role in wanted)
    assert all(torch.equal(got.content[role], want.content[role]) for role in want.content)
    for ours, theirs in ((got.box_weight, want.box_weight), (got.box_rows, want.box_rows)):
        assert (ours is None) == (theirs is None)
        assert ours is theirs or torch.equal(ours, theirs)


SHARES = {1: [0, 7], 2: [0, 3, 7], 3: [0, 2, 4, 7], 7: [0, 1, 2, 3, 4, 5, 6, 7], 9: [0, 1, 2, 3, 4, 5, 6, 7]}


@pytest.mark.parametrize("parts", SHARES)
@pytest.mark.parametrize("max_boxes", [1, 3])
def test_a_part_is_the_batch_of_its_samples(parts: int, max_boxes: int) -> None:
    examples, batch = several(FIVE, BOXES, UNSCORED, FIVE[:1], FIVE[2:], BOXES[1:], FIVE[:2], max_boxes=max_boxes)
    chunks = batch.split(parts)
    edges = SHARES[parts]
    assert [chunk.size for chunk in chunks] == [b - a for a, b in pairwise(edges)]
    for chunk, (start, stop) in zip(chunks, pairwise(edges), strict=True):
        assert_same_batch(chunk, collate(examples[start:stop], Tokenizer({}), max_boxes))


def test_parts_leave_samples_without_boxes_in_their_places() -> None:
    examples, batch = several((), FIVE, (), (), BOXES, ())
    for chunk, start in zip(batch.split(2), (0, 3), strict=True):
        assert_same_batch(chunk, collate(examples[start : start + 3], Tokenizer({}), 3))


@pytest.mark.parametrize("max_boxes", [1, 3])
def test_everything_in_a_batch_moves_to_the_device(max_boxes: int) -> None:
    _, batch = several(FIVE, BOXES, max_boxes=max_boxes)
    here = batch.to(torch.device("cpu"))
    assert_same_batch(here, batch)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in here.images.values())
    there = batch.to(torch.device("meta"))
    moved = [*there.images.values(), *there.texts.passes, *there.content.values()]
    if max_boxes > 1:
        assert there.box_weight is not None
        assert there.box_rows is not None
        moved += [there.box_weight, there.box_rows]
    assert {x.device.type for x in moved} == {"meta"}
    assert len(moved) == (8 if max_boxes == 1 else 10)
