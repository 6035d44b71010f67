"""Average precision, AUC and rank correlation, by hand and by their definitions over all pairs."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hypclip.evaluation.ranking import precision_and_auc, rank_correlation


def measured(score: list[float], true: list[int]) -> tuple[float, float]:
    return precision_and_auc(torch.tensor(score, dtype=torch.float64), torch.tensor(true, dtype=torch.bool))


@pytest.mark.parametrize(
    ("score", "true", "precision", "auc"),
    [
        ([4, 3, 2, 1], [1, 1, 0, 0], 1, 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], (1 / 3 + 2 / 4) / 2, 0),
        ([4, 3, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2, 3 / 4),
        ([1, 2, 3, 4], [0, 1, 0, 1], (1 + 2 / 3) / 2, 3 / 4),  # in another order
        ([5, 5, 5, 5, 5], [1, 0, 1, 0, 0], 2 / 5, 1 / 2),  # all tied: the base rate, and chance
        ([2, 2, 1], [1, 0, 0], 1 / 2, 3 / 4),  # the tie half counts
        ([3, 2, 2, 1], [1, 1, 0, 1], 1 / 3 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4, (1 + 1 / 2) / 3),
        ([math.inf, 1, -math.inf], [1, 0, 0], 1, 1),
        ([math.nan, 2, 1], [1, 1, 0], 1 / 2 + 1 / 2 * 2 / 3, 1 / 2),  # what is no number is found last
    ],
)
def test_by_hand(score, true, precision, auc):
    assert measured(score, true) == pytest.approx((precision, auc), abs=1e-15)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_against_the_definitions(items):
    score, true = zip(*items, strict=True)
    assume(0 < sum(true) < len(true))
    positive, negative = ([s for s, t in items if t == kind] for kind in (True, False))
    won = sum((p > n) + (p == n) / 2 for p, n in itertools.product(positive, negative))
    precision = recall_before = 0.0
    for threshold in sorted(set(score), reverse=True):
        hits = sum(p >= threshold for p in positive)
        precision += (hits / len(positive) - recall_before) * hits / sum(s >= threshold for s in score)
        recall_before = hits / len(positive)
    expected = (precision, won / (len(positive) * len(negative)))
    assert measured(list(map(float, score)), list(true)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3], [10, 100, 1000], 1),
        ([1, 2, 3], [9, 4, 1], -1),
        ([1, 2, 3, 4], [1, 3, 2, 4], 1 - 6 * 2 / (4 * 15)),
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),  # ranks 1, 2.5, 2.5, 4
        ([7, 7, 7], [1, 2, 3], math.nan),
    ],
)
def test_rank_correlation(x, y, expected):
    x, y = (torch.tensor(z, dtype=torch.float64) for z in (x, y))
    assert rank_correlation(x, y) == pytest.approx(expected, nan_ok=True)
    assert rank_correlation(y, x) == pytest.approx(expected, nan_ok=True)
