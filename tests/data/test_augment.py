"""Cropping boxes and the training transform."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypclip.data.augment import AugmentConfig, TrainingTransform, crop_box
from hypclip.data.image import Normaliser, to_pixels
from hypclip.data.record import Box
from tests.support.data import BLUE, GREEN, RED, YELLOW, coordinates, quadrants

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box("a thing", float(x0), float(y0), float(x1), float(y1), 1.0)


@pytest.mark.parametrize(
    ("corners", "colour"),
    [((0, 0, 0.5, 0.5), RED), ((0.5, 0, 1, 0.5), GREEN), ((0, 0.5, 0.5, 1), BLUE), ((0.5, 0.5, 1, 1), YELLOW)],
)
def test_a_box_is_cut_where_it_is(corners: tuple[float, float, float, float], colour: tuple[int, int, int]) -> None:
    cut = crop_box(to_pixels(quadrants(40, 40)), box(*corners))
    assert cut.shape == (3, 20, 20)
    assert (cut == torch.tensor(colour).view(3, 1, 1)).all()


def test_a_cut_is_a_square_around_the_box_and_stays_inside() -> None:
    picture = to_pixels(coordinates(100, 60))
    cut = crop_box(picture, box(0.4, 0.4, 0.6, 0.5))  # 20 × 6 pixels, centre (50, 27)
    assert cut.shape == (3, 20, 20)
    assert cut[:, 0, 0].tolist() == [40, 17, 7]
    corner = crop_box(picture, box(0.9, 0.0, 1.0, 0.1), margin=1.0)  # 10 px, widened to 20, pushed inside
    assert corner.shape == (3, 20, 20)
    assert corner[:, 0, 0].tolist() == [80, 0, 7]
    assert crop_box(picture, box(0.0, 0.0, 1.0, 1.0)).shape == (3, 60, 100)


def test_a_tiny_box_still_gives_a_pixel() -> None:
    assert crop_box(to_pixels(coordinates(50, 50)), box(0.999, 0.999, 1.0, 1.0)).shape == (3, 1, 1)


def test_without_changes_the_transform_resizes_as_pillow_does() -> None:
    picture = coordinates(90, 90).resize((200, 200), Image.Resampling.BICUBIC)
    for size in (33, 64, 224, 300):
        pixels = TrainingTransform(size, PLAIN)(to_pixels(picture), random.Random(0))
        assert pixels.dtype == torch.uint8
        expected = to_pixels(picture.resize((size, size), Image.Resampling.BICUBIC))
        assert (pixels.int() - expected.int()).abs().max() <= 1


def test_normalised_pixels_have_the_statistics_taken_off() -> None:
    pixels = to_pixels(Image.new("RGB", (20, 10), (255, 102, 0)))
    normalised = Normaliser(MEAN, STD)(pixels)
    assert normalised.dtype == torch.float32
    assert normalised.shape == (3, 10, 20)
    expected = [(1 - 0.5) / 0.2, (0.4 - 0.4) / 0.25, (0 - 0.3) / 0.5]
    torch.testing.assert_close(normalised.mean((1, 2)), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert pixels[0, 0, 0] == 255  # which it leaves as they were
    assert normalised.stride() == pixels.stride()


def test_the_crop_keeps_area_and_aspect_in_their_ranges() -> None:
    transform = TrainingTransform(8, AugmentConfig(crop_scale=(0.3, 0.6), crop_ratio=(0.5, 2.0)))
    rng = random.Random(0)
    crops = [transform._crop((60, 40), rng) for _ in range(500)]
    areas = [(x1 - x0) * (y1 - y0) / 2400 for x0, y0, x1, y1 in crops]
    ratios = [(x1 - x0) / (y1 - y0) for x0, y0, x1, y1 in crops]
    assert 0.28 <= min(areas) < 0.33  # whole pixels
    assert 0.57 < max(areas) <= 0.62
    assert 0.48 <= min(ratios) < 0.6
    assert 1.8 < max(ratios) <= 2.1
    assert all(0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40 for x0, y0, x1, y1 in crops)
    assert {x0 for x0, *_ in crops} >= set(range(20))


def test_flip_always_and_never() -> None:
    left_red = to_pixels(quadrants(40, 40))
    plain = TrainingTransform(8, PLAIN)(left_red, random.Random(0))
    config = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=1.0)
    flipped = TrainingTransform(8, config)(left_red, random.Random(0))
    assert torch.equal(flipped, plain.flip(2))
    assert not torch.equal(flipped, plain)


def test_grey_keeps_the_luma_and_drops_the_colour() -> None:
    config = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), grey=1.0)
    pixels = TrainingTransform(4, config)(to_pixels(Image.new("RGB", (9, 9), RED)), random.Random(0))
    luma = 0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2]
    np.testing.assert_allclose(pixels.numpy(), luma, atol=1)


def test_jitter_changes_colours_around_the_original() -> None:
    config = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), colour_jitter=0.4)
    transform, rng = TrainingTransform(2, config), random.Random(0)
    plain = to_pixels(Image.new("RGB", (4, 4), (120, 130, 140)))
    means = torch.stack([transform(plain, rng).float().mean((1, 2)) for _ in range(300)])
    assert means.std(0).min() > 12
    torch.testing.assert_close(means.mean(0), torch.tensor([120.0, 130.0, 140.0]), atol=10, rtol=0)


def test_colours_out_of_range_stop_at_its_ends() -> None:
    config = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), colour_jitter=1.0)
    transform, rng = TrainingTransform(2, config), random.Random(0)
    light, dark = (to_pixels(Image.new("RGB", (2, 2), (value,) * 3)) for value in (250, 5))
    ends = [(int(transform(light, rng).max()), int(transform(dark, rng).min())) for _ in range(100)]
    assert sum(top == 255 for top, _ in ends) > 20  # with 2 × 250 to come out as 244, few would be
    assert sum(bottom == 0 for _, bottom in ends) > 20
    for _ in range(100):
        seed = rng.random()
        bright, dim = (transform(x, random.Random(seed)).float().mean() for x in (light, dark))
        assert bright >= dim


def test_the_transform_is_a_pure_function_of_picture_and_generator() -> None:
    transform = TrainingTransform(16, AugmentConfig(colour_jitter=0.4, grey=0.2, flip=0.5))
    once, again, other = (transform(to_pixels(quadrants()), random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


UNIT = st.floats(0, 1)


@settings(max_examples=200)
@given(st.integers(1, 90), st.integers(1, 90), UNIT, UNIT, UNIT, UNIT, st.floats(0, 2))
def test_a_cut_is_a_square_inside_the_picture_that_holds_the_box(
    width: int, height: int, xa: float, xb: float, ya: float, yb: float, margin: float
) -> None:
    x0, x1, y0, y1 = min(xa, xb), max(xa, xb), min(ya, yb), max(ya, yb)
    cut = crop_box(to_pixels(coordinates(width, height)), box(x0, y0, x1, y1), margin)
    side = max((x1 - x0) * width, (y1 - y0) * height) * (1 + margin)
    _, cut_height, cut_width = cut.shape
    assert abs(cut_width - max(1, min(side, width))) <= 0.5
    assert abs(cut_height - max(1, min(side, height))) <= 0.5
    if max(cut_width, cut_height) <= min(width, height):
        assert cut_width == cut_height
    (left, top, blue), (right, bottom, _) = cut[:, 0, 0].tolist(), cut[:, -1, -1].tolist()
    assert blue == 7  # a pixel of the image, not something outside
    assert (right - left + 1, bottom - top + 1) == (cut_width, cut_height)
    assert left <= x0 * width + 1
    assert right + 1 >= x1 * width - 1
    assert top <= y0 * height + 1
    assert bottom + 1 >= y1 * height - 1


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (300, 2), (7, 5), (640, 480)])
def test_pictures_of_any_proportions_are_transformed(size: tuple[int, int]) -> None:
    transform = TrainingTransform(16, AugmentConfig(colour_jitter=0.4, grey=0.1, flip=0.5))
    for seed in range(20):
        pixels = transform(to_pixels(Image.new("RGB", size, RED)), random.Random(seed))
        assert pixels.shape == (3, 16, 16)
        assert (pixels.amax((1, 2)) - pixels.amin((1, 2))).max() == 0  # one colour stays one colour


def test_the_crop_is_what_its_corners_say() -> None:
    """Columns run from 0 to 99 in an image of 100: those of the result run from corner to corner of the crop."""
    transform = TrainingTransform(10, AugmentConfig(crop_scale=(0.2, 0.5)))
    for seed in range(30):
        x0, y0, x1, y1 = transform._crop((100, 80), random.Random(seed))
        pixels = transform(to_pixels(coordinates(100, 80)), random.Random(seed)).float()
        expected = x0 + (np.arange(1, 9) + 0.5) * (x1 - x0) / 10 - 0.5
        np.testing.assert_allclose(pixels[0, 5, 1:9].numpy(), expected, atol=1.5)
        expected = y0 + (np.arange(1, 9) + 0.5) * (y1 - y0) / 10 - 0.5
        np.testing.assert_allclose(pixels[1, 1:9, 5].numpy(), expected, atol=1.5)
