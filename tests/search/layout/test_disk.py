"""A collection on a disk: rings are round, samples have every radius."""

import numpy as np
import pytest

from hypclip.errors import StoreError
from hypclip.search.contents import Block, Contents
from hypclip.search.layout.circle import Circle
from hypclip.search.layout.disk import Disk


def test_keys_beyond_32_bits_are_refused():
    x = np.ones((2, 3), np.float32)
    contents = Contents("v", 2, lambda: [Block(np.array([1, 2**32]), x, np.zeros(2, np.uint8))])
    with pytest.raises(StoreError, match="32 bits"):
        Disk.of(contents, Circle.of(x), 1.0)
