"""All points as seen from one: what the stores say of both sides, for points that are hard to tell apart."""

import numpy as np
import pytest
import torch

from hypclip.geometry.entailment import Cone, Plane
from hypclip.search import LocalStore, Space
from hypclip.search.contents import Block, Contents
from hypclip.search.hierarchy import focus as module
from hypclip.search.hierarchy.focus import ANCESTOR, DESCENDANT, ITSELF, focus
from tests.support.search import cone_margins, crowd, stored

RULES = [Cone(), Cone(0.7), Cone(1.8, 0.3, strict=False), Plane(), Plane(-0.2, strict=False), Plane(0.3)]


def contents(x):
    half = len(x) // 2
    blocks = [
        Block(np.arange(len(part)), part, np.zeros(len(part), np.uint8)) for part in (x[:half], x[half:]) if len(part)
    ]
    return Contents("v", len(x), lambda: blocks)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("rho", [0.05, 1.0, 6.0])
def test_flags_and_margins_are_those_of_the_store_wherever_the_blocks_end(tmp_path, monkeypatch, rule, rho):
    found = crowd(5, 8, 0.7, rho)
    monkeypatch.setattr(module, "_BLOCK", 8 * 37)
    with LocalStore(tmp_path, create=True) as store:
        store.create_collection("c", Space("m", 0.7, 8))
        ids = stored(store, found.points)
        for query in (found.query, found.points[5], np.zeros(8, np.float32)):
            x = torch.from_numpy(query)
            seen = focus(contents(found.points), x, rule, 0.7)
            for side, flag, margin in (("ancestors", ANCESTOR, seen.above), ("descendants", DESCENDANT, seen.below)):
                hits = {hit.id: hit.margin for hit in store.cone("c", x, side, rule, k=10_000).hits}
                assert hits.keys() == {ids[i] for i in np.flatnonzero(seen.flags & flag)}
                for i in np.flatnonzero(seen.flags & flag):
                    assert margin[i] == np.float32(hits[ids[i]])
            assert ((seen.flags & ITSELF > 0) == (found.points == query).all(1)).all()


def test_margins_of_all_points_are_those_of_the_definition():
    found = crowd(7, 3, 1.3, 1.2, n=20)
    seen = focus(contents(found.points), torch.from_numpy(found.query), Cone(0.9), 1.3)
    apart = np.linalg.norm(found.points - found.query, axis=1) > 1e-2
    above = cone_margins(found.points, found.query[None], 1.3, 0.9, 0.1)
    below = cone_margins(found.query[None], found.points, 1.3, 0.9, 0.1)
    assert seen.above[apart] == pytest.approx(above[apart], abs=1e-5)
    assert seen.below[apart] == pytest.approx(below[apart], abs=1e-5)


def test_of_no_points_there_is_nothing_to_see():
    seen = focus(contents(np.zeros((0, 3), np.float32)), torch.ones(3), Cone(), 1.0)
    assert [len(column) for column in vars(seen).values()] == [0] * 5
