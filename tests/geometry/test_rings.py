"""Rings are round, and neither few nor many."""

import numpy as np
import pytest

from hypclip.geometry.rings import rings


@pytest.mark.parametrize(
    "largest, expected",
    [
        (0.74, [0.2, 0.4, 0.6]),
        (1.0, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.1, [1, 2, 3]),
        (16.0, [5, 10, 15]),
        (0.0123, [0.002, 0.004, 0.006, 0.008, 0.01, 0.012]),
        (0.0, []),
    ],
)
def test_rings_are_at_round_radii(largest, expected):
    assert rings(largest) == expected


def test_there_are_three_to_seven_rings():
    for largest in np.exp(np.random.default_rng(0).uniform(-8, 4, 500)):
        found = rings(float(largest))
        assert 3 <= len(found) <= 7
        assert found[-1] <= largest
