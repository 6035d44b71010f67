"""Scenes: deterministic, truthful captions, boxes where the drawings are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hypclip.data.quickstart.art import HELD_OUT_STYLES, concepts
from hypclip.data.quickstart.scenes import article, compose
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
