"""The circle of landmarks: the same angles wherever and with whomever, and near points side by side."""

import numpy as np
import pytest

from hypclip.search.layout import circle as module
from hypclip.search.layout.circle import Circle
from tests.support.search import unchecked


def points(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * np.exp(rng.normal(size=(n, 1)))).astype(np.float32)


@pytest.mark.parametrize("n, landmarks", [(1, 1), (2, 2), (3, 2), (10, 8), (100, 64), (5000, 2048)])
def test_a_circle_has_as_many_landmarks_as_a_power_of_two_allows(n, landmarks):
    circle = Circle.of(points(n))
    assert len(circle.landmarks) == landmarks
    assert circle.is_whole(16)
    angles = circle.angles(points(n, seed=1))
    assert angles.dtype == np.float32
    assert (angles >= 0).all()
    assert (angles < 2 * np.pi).all()


def test_every_landmark_is_on_the_circle_once():
    x = points(64)
    units = np.rint(x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) * 2**14).astype(np.int16)
    assert sorted(Circle.of(x).landmarks.tolist()) == sorted(units.tolist())


def test_an_angle_does_not_depend_on_how_it_is_computed(monkeypatch):
    x, circle = points(3000), Circle.of(points(1024, seed=1))
    angles = circle.angles(x)
    order = np.random.default_rng(2).permutation(len(x))
    assert (circle.angles(x[order]) == angles[order]).all()
    assert [circle.angles(x[i : i + 1])[0] for i in range(0, 3000, 100)] == angles[::100].tolist()
    # Sums in another order, as another library makes them.
    mirrored = Circle(circle.landmarks[:, ::-1].copy())
    assert (mirrored.angles(x[:, ::-1].copy()) == angles).all()
    monkeypatch.setattr(module, "_BLOCK", 1024 * 7)
    assert (circle.angles(x) == angles).all()


def test_products_and_sums_are_exact_up_to_thousands_of_dimensions():
    dim = 8192
    x, circle = points(20, dim), Circle.of(points(256, dim, seed=1))
    rows, landmarks = module._whole(x).astype(np.int64), circle.landmarks.astype(np.int64)
    products = rows @ landmarks.T
    assert (module._whole(x) @ circle.landmarks.T.astype(np.float64) == products).all()
    nearest = products.argmax(1)
    for row, best, angle in zip(products, nearest, circle.angles(x), strict=True):
        around = {step: int(row[(best + step) % 256]) for step in range(-24, 25)}
        least = sorted(around.values())[-9]
        weights = {step: max(0, value - least) for step, value in around.items()}
        place = best + sum(w * step for step, w in weights.items()) / sum(weights.values()) + 0.5
        assert angle == np.float32(2 * np.pi * ((place % 256) / 256))


def test_only_the_direction_of_a_point_counts():
    x, circle = points(500), Circle.of(points(256, seed=1))
    assert (circle.angles(x * 2) == circle.angles(x)).all()
    assert (circle.angles(x * np.float32(2**-40)) == circle.angles(x)).all()


def test_points_without_a_direction_and_points_that_are_equal_have_an_angle():
    x = np.zeros((64, 16), np.float32)
    assert np.isfinite(Circle.of(x).angles(points(10))).all()
    same = np.repeat(points(1), 64, 0)
    assert len(set(Circle.of(same).angles(same).tolist())) == 1
    assert np.isfinite(Circle.of(points(64)).angles(x)).all()
    assert len(Circle.of(points(64)).angles(x[:0])) == 0


def test_a_turn_of_the_space_leaves_neighbours_near():
    x = points(2000, 8)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0].astype(np.float32)
    first, second = Circle.of(x[:1024]).angles(x), Circle.of((x @ turn)[:1024]).angles(x @ turn)
    assert overlap(first, second) > 0.6


def overlap(first: np.ndarray, second: np.ndarray, k: int = 20) -> float:
    """Return the share of the k neighbours on one circle that are among the 2k on the other."""

    def near(angle, k):
        gap = np.abs(angle[:200, None] - angle)
        return np.argsort(np.minimum(gap, 2 * np.pi - gap), 1)[:, : k + 1]

    shared = [len(set(a) & set(b)) for a, b in zip(near(first, k), near(second, 2 * k), strict=True)]
    return float(np.mean(shared)) / (k + 1)


def test_what_lies_on_a_circle_stays_in_its_order():
    place = np.random.default_rng(0).permutation(512) * (2 * np.pi / 512)
    x = np.stack([np.cos(place), np.sin(place), np.zeros(512)], 1).astype(np.float32)
    order = place[np.argsort(Circle.of(x).angles(x), kind="stable")]
    steps = np.abs(np.diff(np.append(order, order[0])))
    assert np.minimum(steps, 2 * np.pi - steps).max() < 0.2


def test_halves_are_turned_so_that_the_sum_of_the_gaps_is_least():
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 8):
        centres = rng.normal(size=(count, 2, 3))

        def gaps(turned, centres=centres):
            placed = np.stack([c[::-1] if t else c for c, t in zip(centres, turned, strict=True)])
            return ((placed[:, 1] - np.roll(placed[:, 0], -1, axis=0)) ** 2).sum()

        least = min(gaps([i >> k & 1 for k in range(count)]) for i in range(2**count))
        assert gaps(module._turned(centres)) == pytest.approx(least)


def test_arrays_of_another_kind_are_no_circle():
    circle = Circle.of(points(64))
    assert not circle.is_whole(17)
    with unchecked():
        assert not Circle(circle.landmarks.astype(np.int32)).is_whole(16)
        assert not Circle(circle.landmarks[0]).is_whole(16)
        assert not Circle(circle.landmarks[:0]).is_whole(16)
