"""Floors of the layout on a collection whose hierarchy is known: radii are true, what is near stays near."""

import numpy as np
import pytest

from hypclip.search.contents import Block, Contents
from hypclip.search.layout.circle import Circle
from hypclip.search.layout.disk import Disk
from hypclip.search.layout.kept import landmarks
from tests.support.layouts import collection, drawn, quality

CURV = 0.5


@pytest.mark.parametrize("n, dim", [(3000, 128), (5000, 128)])
def test_near_points_stay_near_and_radii_are_true(n, dim):
    x, families = collection(n, dim, curv=CURV)
    blocks = [Block(np.arange(n), x, np.zeros(n, np.uint8))]
    disk = Disk.of(Contents("v", n, lambda: blocks), Circle.of(landmarks(blocks, dim)), CURV)
    found = quality(x, CURV, drawn(disk.radius, disk.angle, CURV), families)
    anywhere = quality(
        x, CURV, drawn(disk.radius, np.random.default_rng(0).uniform(0, 6.28, n).astype(np.float32), CURV), families
    )
    assert found.radius > 0.999999
    assert found.recall_50 >= 0.3
    assert found.recall_50 > 5 * anywhere.recall_50
    assert found.purity > 2 * anywhere.purity
