"""Held-out pairs, corrupted ones and the threshold between them, against counts by hand and plain references."""

import numpy as np
import pytest
import torch

from hypclip.errors import DataError, InputError
from hypclip.taxonomy import Pairs, Taxonomy, load
from hypclip.taxonomy.embedding import split
from hypclip.taxonomy.embedding.prediction import Corruption, best_threshold, found, is_basic

BINARY = Taxonomy([(f"p{child}", f"p{(child - 1) // 2}") for child in range(1, 127)])


def keys(pairs, n=1000):
    return set((pairs.below * n + pairs.above).tolist())


def test_basic_pairs_are_those_that_follow_from_no_others():
    taxonomy = Taxonomy([("b", "a"), ("c", "b"), ("c", "a"), ("d", "c")])
    pairs = taxonomy.closure
    names = [(taxonomy.phrases[u], taxonomy.phrases[v]) for u, v in zip(*pairs, strict=True)]
    basic = {pair for pair, which in zip(names, is_basic(taxonomy), strict=True) if which}
    assert basic == {("b", "a"), ("c", "b"), ("d", "c")}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_parts_of_a_split(share):
    parts = split(BINARY, share, seed=3)
    learned, valid, test = map(keys, parts[:3])
    assert not learned & valid
    assert not learned & test
    assert not valid & test
    counted = Pairs(*(side[BINARY.closure.above > 0] for side in BINARY.closure))  # the root is above everything
    basic = set((BINARY.closure.below * 1000 + BINARY.closure.above)[is_basic(BINARY)].tolist())
    others = keys(counted) - basic
    assert len(valid) == len(test) == round(0.05 * len(others))
    assert (valid | test) <= others
    assert basic & keys(counted) <= learned
    assert len(learned & others) == min(round(share * len(others)), len(others) - 2 * len(test))
    assert np.all(np.diff(parts.learned.below) >= 0)
    assert parts.first == 1


def test_a_split_is_the_same_for_a_seed_and_its_test_at_every_share():
    assert keys(split(BINARY, 0.2).test) == keys(split(BINARY, 0.9).test)
    assert keys(split(BINARY, 0.2, 1).test) != keys(split(BINARY, 0.2, 2).test)


def test_several_roots_stay():
    forest = Taxonomy([(f"{tree}{child}", f"{tree}{(child - 1) // 2}") for tree in "ab" for child in range(1, 63)])
    parts = split(forest, 0.9)
    assert parts.first == 0
    assert sum(map(len, parts[:3])) == len(forest.closure)


@pytest.mark.parametrize("share", [-0.1, 0.91, 1.0, float("nan")])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(InputError, match=r"closure_share must be 0 to 0\.9"):
        split(BINARY, share)


def test_a_taxonomy_without_enough_pairs_is_refused():
    with pytest.raises(DataError, match=r"1 pairs of a phrase and an ancestor follow from others.*needs 20"):
        split(Taxonomy([("b", "a"), ("c", "b"), ("d", "c")]), 0.5)


def test_wrong_pairs_are_in_no_closure_and_replace_one_side():
    parts = split(BINARY, 0.5)
    n = len(BINARY)
    corruption = Corruption(BINARY.closure, n, parts.first)
    pairs = corruption.labelled(parts.valid, 5, torch.Generator().manual_seed(0))
    assert pairs.right == len(parts.valid)
    made = Pairs(pairs.specific[pairs.right :].numpy(), pairs.general[pairs.right :].numpy())
    assert len(made) == 10 * len(parts.valid)
    assert not keys(made) & keys(BINARY.closure)
    assert (made.below != made.above).all()
    assert min(made.below.min(), made.above.min()) >= parts.first
    half = len(made) // 2
    assert np.array_equal(made.below[:half], np.tile(parts.valid.below, 5))
    assert np.array_equal(made.above[half:], np.tile(parts.valid.above, 5))


def test_in_a_chain_nothing_can_be_wrong_of_some_pairs():
    chain = Taxonomy([(f"p{i + 1:02}", f"p{i:02}") for i in range(40)])
    corruption = Corruption(chain.closure, len(chain), 1)
    pairs = corruption.labelled(split(chain, 0.5).test, 5, torch.Generator().manual_seed(0))
    assert bool(corruption.wrong(pairs.general, pairs.specific)[pairs.right :].all())
    every = Pairs(*np.nonzero(~np.eye(3, dtype=bool)))
    with pytest.raises(DataError, match="nothing can be tested"):
        Corruption(every, 3).labelled(every, 5, torch.Generator())


def test_the_best_threshold_is_that_of_a_plain_search():
    generator = torch.Generator().manual_seed(0)
    for right, wrong, digits in ((7, 30, 1), (40, 400, 3), (1, 1, 0)):
        cost = torch.randn(right + wrong, generator=generator, dtype=torch.float64).mul(3).round(decimals=digits)
        cost[:right] -= 1.5
        best = found(cost, right, best_threshold(cost, right)).f1
        assert best == max(found(cost, right, float(value)).f1 for value in cost)


def test_what_a_threshold_finds_by_hand():
    cost = torch.tensor([0.0, 0.2, 0.6, 0.2, 0.9])
    assert best_threshold(cost, 3) == pytest.approx(0.75)
    assert found(cost, 3, 0.3) == (2 * 2 / 6, 2 / 3, 2 / 3)
    assert found(cost, 3, -1.0) == (0.0, 0.0, 0.0)


def test_mammals_have_as_many_pairs_as_published():
    parts = split(load("wordnet-mammals"), 0.5)
    assert (len(parts.learned), len(parts.valid), len(parts.test)) == (3268, 209, 209)
