"""Scenes: deterministic, truthful captions, boxes where the drawings are."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from PIL import Image

from hypclip.data.quickstart import scenes as module
from hypclip.data.quickstart.art import HELD_OUT_STYLES, TRAIN_STYLES, concepts
from hypclip.data.quickstart.scenes import COLOURS, article, compose
from hypclip.data.quickstart.sprites import Sprite
from hypclip.errors import DataError

SCENES = 300


@pytest.fixture(scope="module")
def scenes() -> list:
    return [compose(0, "train", index) for index in range(SCENES)]


def test_a_scene_is_a_pure_function_of_seed_split_and_index(scenes: list) -> None:
    again = compose(0, "train", 7)
    assert again.caption == scenes[7].caption
    assert again.noun_chunks == scenes[7].noun_chunks
    assert again.image.tobytes() == scenes[7].image.tobytes()
    others = [compose(1, "train", 7), compose(0, "validation", 7), compose(0, "train", 8)]
    assert len({s.image.tobytes() for s in [again, *others]}) == 4


def test_phrases_are_spelled_in_the_caption_and_name_a_concept(scenes: list) -> None:
    known = {article(n) for c in concepts() for n in (c.name, c.kind, c.family)}
    for scene in scenes:
        assert 1 <= len(scene.noun_chunks) <= 4
        for start, end, *_ in scene.noun_chunks:
            assert scene.caption[start:end] in known


def test_boxes_lie_inside_and_scores_are_probabilities(scenes: list) -> None:
    for row in itertools.chain.from_iterable(s.noun_chunks + s.ref_exps for s in scenes):
        x0, y0, x1, y1, score = row[2:]
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert 0 < score <= 1


def test_every_phrase_level_and_number_of_drawings_occurs(scenes: list) -> None:
    phrases = {s.caption[r[0] : r[1]] for s in scenes for r in s.noun_chunks}
    for level in ("name", "kind", "family"):
        only = {article(getattr(c, level)) for c in concepts()}
        only -= {
            article(getattr(c, other)) for c in concepts() for other in ("name", "kind", "family") if other != level
        }
        assert phrases & only
    assert {len(s.noun_chunks) for s in scenes} == {1, 2, 3, 4}
    assert len({s.caption for s in scenes}) > 0.99 * SCENES


def test_referring_expressions_hold_their_phrase_and_share_its_box(scenes: list) -> None:
    found = [(s, row) for s in scenes for row in s.ref_exps]
    assert len(found) > 20
    for scene, (start, end, *place) in found:
        inside = [r for r in scene.noun_chunks if start == r[0] and r[1] < end and list(r[2:]) == place]
        assert len(inside) == 1


RELATIONS = {
    " to the left of ": lambda a, b: a[0] < b[0],
    " to the right of ": lambda a, b: a[0] > b[0],
    " above ": lambda a, b: a[1] < b[1],
    " over ": lambda a, b: a[1] < b[1],
    " below ": lambda a, b: a[1] > b[1],
    " under ": lambda a, b: a[1] > b[1],
}


def test_relations_are_true_of_the_boxes(scenes: list) -> None:
    checked = 0
    for scene in scenes:
        rows = sorted(scene.noun_chunks)
        for first, second in itertools.pairwise(rows):
            between = scene.caption[first[1] : second[0]]
            if between in RELATIONS:
                centres = [((r[2] + r[4]) / 2, (r[3] + r[5]) / 2) for r in (first, second)]
                assert RELATIONS[between](*centres), scene.caption
                checked += 1
    assert checked > 50


def test_a_box_bounds_what_was_drawn() -> None:
    """On a plain ground, pixels that differ from it lie in the union of the boxes and touch each side of a lone box."""
    checked = 0
    for index in range(400):
        scene = compose(3, "train", index)
        if len(scene.noun_chunks) != 1 or "plain" not in scene.caption:
            continue
        pixels = np.asarray(scene.image).astype(int)
        x0, y0, x1, y1 = (round(v * scene.image.width) for v in scene.noun_chunks[0][2:6])
        outside = np.ones(pixels.shape[:2], dtype=bool)
        outside[y0:y1, x0:x1] = False
        if not outside.any():
            continue
        ground = np.median(pixels[outside], axis=0)
        ys, xs = np.nonzero(np.abs(pixels - ground).sum(-1) > 40)
        if not len(xs):
            continue
        assert x0 <= xs.min()
        assert y0 <= ys.min()
        assert xs.max() < x1
        assert ys.max() < y1
        checked += 1
    assert checked > 20


def test_held_out_styles_cannot_be_trained_on_and_unknown_ones_are_refused() -> None:
    with pytest.raises(DataError, match="held out"):
        compose(0, "train", 0, styles=["noto", HELD_OUT_STYLES[0]])
    with pytest.raises(DataError, match="styles must name"):
        compose(0, "validation", 0, styles=["nobody"])
    assert compose(0, "validation", 0, styles=HELD_OUT_STYLES).noun_chunks


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("red apple", "a red apple"),
        ("owl", "an owl"),
        ("gloves", "gloves"),
        ("bus", "a bus"),
        ("rhinoceros", "a rhinoceros"),
        ("face with crossed-out eyes", "a face with crossed-out eyes"),
        ("money", "money"),
        ("food", "food"),
    ],
)
def test_articles(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


# Drawings of one colour each, so that the picture tells what was drawn, where, and what is in front ------------------


class Upright(Sprite):
    """A sprite that is never turned."""

    def draw(self, longest: float, angle: float, mirrored: bool) -> Image.Image:
        return super().draw(longest, 0.0, mirrored)


def draw_squares(monkeypatch: pytest.MonkeyPatch, kind: type[Sprite]) -> dict:
    """Let every fifth concept be drawn as a square of a colour of its own; return colour → concept."""
    drawn = {(3 * i % 251, 255 - i, i): concept for i, concept in enumerate(concepts()[::5])}
    artwork = tuple(
        (concept, (kind(Image.new("RGBA", (64, 64), (*colour, 255))),)) for colour, concept in drawn.items()
    )
    monkeypatch.setattr(module, "_artwork", lambda split, styles: artwork)
    return drawn


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> dict:
    return draw_squares(monkeypatch, Sprite)


@pytest.fixture
def upright(monkeypatch: pytest.MonkeyPatch) -> dict:
    return draw_squares(monkeypatch, Upright)


def pixels_of(scene: module.Scene, row: tuple) -> tuple:
    """Return the corners of a box in pixels."""
    return tuple(round(v * scene.image.width) for v in row[2:6])


def colours_inside(scene: module.Scene, row: tuple, drawn: dict) -> dict:
    """Return colour → number of pixels, of drawings, in a box."""
    found = scene.image.crop(pixels_of(scene, row)).getcolors(10_000)
    return {colour: count for count, colour in found if colour in drawn}


def test_each_phrase_names_what_is_drawn_in_its_box(coloured: dict) -> None:
    levels = {"name": 0, "kind": 0, "family": 0}
    for index in range(300):
        scene = compose(7, "train", index)
        for row in scene.noun_chunks:
            phrase = scene.caption[row[0] : row[1]]
            inside = colours_inside(scene, row, coloured)
            meant = [
                (colour, level)
                for colour, level in itertools.product(inside, levels)
                if phrase == article(getattr(coloured[colour], level))
            ]
            assert meant, scene.caption
            x0, y0, x1, y1 = pixels_of(scene, row)
            assert max(inside[colour] for colour, _ in meant) > 0.25 * (x1 - x0) * (y1 - y0)
            levels[meant[0][1]] += 1
    share = {level: count / sum(levels.values()) for level, count in levels.items()}
    assert share == pytest.approx({"name": 0.72, "kind": 0.18, "family": 0.10}, abs=0.06)


def test_a_lone_box_is_exactly_where_the_drawing_is(coloured: dict) -> None:
    """Against the same ground without the drawing: what differs is bounded by the box, to the pixel."""
    checked = 0
    for index in range(200):
        scene = compose(2, "train", index)
        if len(scene.noun_chunks) > 1:
            continue
        ground, _ = module._ground(random.Random(f"2/train/{index}"), scene.image.width)
        changed = np.abs(np.asarray(scene.image, dtype=int) - np.asarray(ground, dtype=int)).sum(-1) > 24
        ys, xs = np.nonzero(changed)
        x0, y0, x1, y1 = pixels_of(scene, scene.noun_chunks[0])
        assert x0 <= xs.min() <= x0 + 1
        assert y0 <= ys.min() <= y0 + 1
        assert x1 - 2 <= xs.max() < x1
        assert y1 - 2 <= ys.max() < y1
        checked += 1
    assert checked > 40


def test_nothing_is_drawn_outside_the_boxes(coloured: dict) -> None:
    for index in range(100):
        scene = compose(4, "train", index)
        ground, _ = module._ground(random.Random(f"4/train/{index}"), scene.image.width)
        changed = np.abs(np.asarray(scene.image, dtype=int) - np.asarray(ground, dtype=int)).sum(-1) > 0
        for row in scene.noun_chunks:
            x0, y0, x1, y1 = pixels_of(scene, row)
            changed[y0:y1, x0:x1] = False
        assert not changed.any()


def test_what_is_in_front_hides_what_is_behind(upright: dict) -> None:
    checked = 0
    for index in range(600):
        scene = compose(9, "train", index)
        if len(scene.noun_chunks) != 2:
            continue
        first, second = sorted(scene.noun_chunks)
        between = scene.caption[first[1] : second[0]]
        if between not in (" in front of ", " behind "):
            continue
        front, back = (first, second) if "front" in between else (second, first)
        a, b = pixels_of(scene, front), pixels_of(scene, back)
        common = scene.image.crop((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
        (_, seen), *others = common.getcolors(10_000)
        assert not others
        phrase = scene.caption[front[0] : front[1]]
        assert phrase in {article(getattr(upright[seen], level)) for level in ("name", "kind", "family")}
        checked += 1
    assert checked > 60


def test_every_relation_and_place_is_true_and_occurs(scenes: list) -> None:
    """Also those that `test_relations_are_true_of_the_boxes` cannot check by one comparison."""

    def overlap(a: tuple, b: tuple) -> float:
        area = max(0, min(a[4], b[4]) - max(a[2], b[2])) * max(0, min(a[5], b[5]) - max(a[3], b[3]))
        return area / min((r[4] - r[2]) * (r[5] - r[3]) for r in (a, b))

    beside = apart = touching = 0
    places = {"in the middle": 0, "on the left": 0, "on the right": 0, "at the top": 0, "at the bottom": 0}
    for scene in scenes:
        rows = sorted(scene.noun_chunks)
        for first, second in itertools.pairwise(rows):
            between = scene.caption[first[1] : second[0]]
            dx, dy = ((first[i] + first[i + 2] - second[i] - second[i + 2]) / 2 for i in (2, 3))
            if between in (" next to ", " beside ", " to the left of ", " to the right of "):
                beside += 1
                assert abs(dx) >= abs(dy) - 1e-3, scene.caption
            elif between in (" above ", " over ", " below ", " under "):
                apart += 1
                assert abs(dy) >= abs(dx) - 1e-3, scene.caption
            elif between in (" in front of ", " behind "):
                touching += 1
                assert overlap(first, second) > 0.079, scene.caption
                continue
            else:
                continue
            assert overlap(first, second) < 0.081, scene.caption
        for row in rows:
            after = scene.caption[row[1] :].lstrip()
            x, y = (row[2] + row[4]) / 2 - 0.5, (row[3] + row[5]) / 2 - 0.5
            place = next((p for p in places if after.startswith(p)), None)
            if place is None or (scene.caption[: row[0]] == "" and len(rows) == 1):
                continue
            places[place] += 1
            assert {
                "in the middle": max(abs(x), abs(y)) < 0.151,
                "on the left": x < 0 and abs(x) >= abs(y) - 1e-3,
                "on the right": x > 0 and abs(x) >= abs(y) - 1e-3,
                "at the top": y < 0 and abs(y) >= abs(x) - 1e-3,
                "at the bottom": y > 0 and abs(y) >= abs(x) - 1e-3,
            }[place], scene.caption
    assert min(beside, apart, touching) > 20
    assert min(places.values()) > 0


def test_grounds_have_the_colours_that_the_caption_names() -> None:
    kinds: set[str] = set()
    for seed in range(200):
        ground, name = module._ground(random.Random(seed), 96)
        words = name.replace("light blue", "light_blue").split()
        named = [COLOURS[word.replace("_", " ")] for word in words if word.replace("_", " ") in COLOURS]
        shades = np.asarray(ground, dtype=int).reshape(-1, 3)
        for colour in named:
            nearest = np.abs(shades - colour).max(-1).min()
            assert nearest <= (32 if "rough" in words else 16), name  # each channel is changed by up to 14
        kinds.add(next(word for word in words if word not in ("a", "background")))
        if "plain" in words:
            assert len(np.unique(shades, axis=0)) == 1
    assert {"plain", "fading", "rough", "striped", "checked", "dotted"} <= kinds


@pytest.mark.parametrize("side", [48, 160, 400])
def test_scenes_of_other_sizes_are_drawn_alike(side: int) -> None:
    for index in range(20):
        scene = compose(0, "train", index, side=side)
        assert scene.image.size == (side, side)
        for row in scene.noun_chunks:
            assert 0 <= row[2] < row[4] <= 1
            assert 0 <= row[3] < row[5] <= 1


def test_each_style_draws_alone_and_none_is_refused() -> None:
    pictures = {style: compose(0, "validation", 3, styles=[style]).image.tobytes() for style in TRAIN_STYLES}
    assert len(set(pictures.values())) == len(TRAIN_STYLES)
    with pytest.raises(DataError, match="got none"):
        compose(0, "validation", 0, styles=[])


def test_every_phrase_of_the_artwork_reads_as_english() -> None:
    """Plural or uncountable heads and no others go without article; vowels take "an" by their sound."""
    without = "grapes, scissors, money with wings, meat on bone, locked with key, sky and weather, clothing, nature"
    without += ", scenery, tableware, sports gear, paw prints, skis, tennis, musical notes"
    consonant = "cactus, hippopotamus, compass, dress, lotus, skull and crossbones, fork and knife, unicorn, ewe, hat"
    consonant += ", globe showing americas, face holding back tears, face with bags under eyes, cat with tears of joy"
    consonant += ", one-piece swimsuit, euro banknote"
    vowel = "hourglass done, x-ray, umbrella, upside-down face, ear of corn, unamused face, e-mail, octopus, abacus"
    for phrases, word in ((without, ""), (consonant, "a "), (vowel, "an ")):
        for phrase in phrases.split(", "):
            assert article(phrase) == word + phrase
