"""A collection on a disk: rings are round, samples have every radius."""

import numpy as np
import pytest

from hypclip.errors import StoreError
from hypclip.search.contents import Block, Contents
from hypclip.search.layout.circle import Circle
from hypclip.search.layout.disk import Disk, rings


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


def test_keys_beyond_32_bits_are_refused():
    x = np.ones((2, 3), np.float32)
    contents = Contents("v", 2, lambda: [Block(np.array([1, 2**32]), x, np.zeros(2, np.uint8))])
    with pytest.raises(StoreError, match="32 bits"):
        Disk.of(contents, Circle.of(x), 1.0)
