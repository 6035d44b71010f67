import math

import pytest
import torch

from hypclip.errors import InputError
from hypclip.search import Collection, ModelMismatch, Points, Space

SPACE = Space("m", 1.0, 3)


@pytest.mark.parametrize("curv", [0.0, -1.0, math.nan, math.inf])
def test_a_space_needs_a_positive_curv(curv):
    with pytest.raises(InputError, match="curv must be positive"):
        Space("m", curv, 3)


def test_a_space_needs_a_dimension():
    with pytest.raises(InputError, match="dim must be at least 1"):
        Space("m", 1.0, 0)


@pytest.mark.parametrize("other", [Space("other", 1.0, 3), Space("m", 1.001, 3), Space("m", 1.0, 4)])
def test_points_of_another_space_are_refused_with_both_named(other):
    with pytest.raises(ModelMismatch) as caught:
        Collection("c", SPACE, 0).check_space(other)
    assert (caught.value.name, caught.value.stored, caught.value.asked) == ("c", SPACE, other)
    assert str(other) in str(caught.value)


def test_the_last_bits_of_curv_do_not_make_another_space():
    Collection("c", SPACE, 0).check_space(Space("m", 1.0 + 1e-7, 3))


@pytest.mark.parametrize(
    "vector, message",
    [
        ([0.0, math.nan, 0.0], "NaN or infinite"),
        ([0.0, math.inf, 0.0], "NaN or infinite"),
        ([0.0, 0.0], "has 3 space components, got 2"),
        ([1e8, 0.0, 0.0], "lies at radius 19.1"),
        ([1e200, 0.0, 0.0], "lies at radius"),
    ],
)
def test_what_is_no_point_is_refused(vector, message):
    with pytest.raises(InputError, match=message):
        SPACE.check_points(torch.tensor([[0.0] * len(vector), vector], dtype=torch.float64))


def test_half_precision_points_are_refused():
    with pytest.raises(InputError, match="float16"):
        SPACE.check_points(torch.zeros(1, 3, dtype=torch.float16))


def test_points_up_to_radius_16_are_points():
    SPACE.check_points(torch.tensor([[math.sinh(16.0), 0.0, 0.0]]))


def points(ids, n=2, vectors=None):
    return Points(ids, torch.zeros(n, 3) if vectors is None else vectors, ["text"] * n, [{}] * n)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="'ids': 1, 'vectors': 2"):
        points(["a"])


def test_vectors_must_be_a_matrix():
    with pytest.raises(InputError, match=r"shape \(N, D\), got \(2,\)"):
        points(["a", "b"], vectors=torch.zeros(2))


def test_an_id_twice_in_a_call_is_refused():
    with pytest.raises(InputError, match="'a' comes twice"):
        points(["a", "a"])


@pytest.mark.parametrize("bad", ["", "\ud800"])
def test_ids_are_real_strings(bad):
    with pytest.raises(InputError, match="non-empty string of valid Unicode"):
        points(["a", bad])
