"""Thresholds that part what stands above from what does not, and the rule for points that none was trained with."""

import math

import pytest
import torch

from hypclip.geometry import lorentz
from hypclip.geometry.entailment import Cone, Plane, pairwise_score
from hypclip.geometry.metric import Metric
from hypclip.taxonomy import Taxonomy
from hypclip.taxonomy.calibration import Pairing, best_rule, best_threshold, measured
from hypclip.taxonomy.embedding import place


@pytest.mark.parametrize(
    ("score", "true", "wanted"),
    [
        ([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0], 1.5),  # apart: halfway between
        ([3.0, 2.0, 1.0, 0.0], [1, 0, 1, 0], 0.5),  # F1 of .67, .5, .8, .67
        ([0.0, 3.0, 1.0, 2.0], [0, 1, 0, 1], 1.5),  # in any order
        ([2.0, 2.0, 2.0, 0.0], [1, 0, 1, 0], 1.0),  # ties stand or fall together
        ([2.0, 1.0], [1, 1], 1.0),  # all are true: what holds all of them
    ],
)
def test_the_threshold_has_the_best_f1(score, true, wanted):
    assert best_threshold(torch.tensor(score), torch.tensor(true, dtype=torch.bool)) == wanted


def test_of_thresholds_as_good_but_for_a_slack_the_lowest_is_taken():
    score = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.3])
    true = torch.tensor([True, True, False, True, False])
    # F1 is 2/4, 4/5, 4/6, 6/7 and 6/8.
    assert best_threshold(score, true) == pytest.approx(0.4)
    assert best_threshold(score, true, slack=0.11) == pytest.approx(0.3)
    assert best_threshold(score, true, slack=0.1) == pytest.approx(0.4)


TREE = Taxonomy([(f"p{child}", f"p{(child - 1) // 2}") for child in range(1, 31)])


def test_pairs_are_those_of_a_phrase_and_what_stands_above_another():
    pairing = Pairing.of(Taxonomy([("pug", "dog"), ("dog", "animal"), ("cat", "animal")]))
    assert pairing.phrases == ["animal", "cat", "dog", "pug"]
    assert [pairing.phrases[row] for row in pairing.above] == ["animal", "dog"]
    assert pairing.true.tolist() == [[False, True, True, True], [False, False, False, True]]
    assert pairing.other.sum() == 6  # of 8, without animal–animal and dog–dog


def test_a_tree_in_wide_sectors_is_given_back_by_half_spaces():
    phrases, x = place(TREE, 2, 3.0, torch.float64)
    pairing = Pairing.of(TREE)
    x = x[[phrases.index(phrase) for phrase in pairing.phrases]]
    found = best_rule(x, pairing, 1.0)
    assert found.precision == found.recall == found.f1 == 1.0
    score = pairwise_score(found.rule, x[pairing.above], x, Metric(), 1.0)
    again = measured(found.rule, score, pairing)
    assert (again.precision, again.recall) == (1.0, 1.0)


def test_points_in_narrow_cones_get_cones_of_the_right_width():
    """Children at angles to their parent's ray of 0.8 of the cones' half aperture, strangers at 1.5 of it."""
    apex = lorentz.exp_map0(torch.tensor([[1.0, 0.0]], dtype=torch.float64), 1.0)
    omega = math.asin(0.2 / math.sinh(1.0))
    inside, outside = (lorentz.exp_map(apex, _turned(apex, turn * omega, 2.0), 1.0) for turn in (0.8, 1.5))
    near = lorentz.exp_map(apex, _turned(apex, 0.1 * omega, 0.2), 1.0)
    taxonomy = Taxonomy([("b", "a"), ("c", "a"), ("e", "d")])
    pairing = Pairing.of(taxonomy)
    by_name = {"a": apex[0], "b": inside[0], "c": near[0], "d": -3 * apex[0], "e": outside[0]}
    found = best_rule(torch.stack([by_name[phrase] for phrase in pairing.phrases]), pairing, 1.0)
    assert isinstance(found.rule, Cone)
    assert found.rule.eta == pytest.approx(1.15, abs=0.01)
    assert found.precision == 1.0


def _turned(apex, angle, length):
    ahead = lorentz.log_map(apex, 2 * apex, 1.0)
    ahead = ahead / lorentz.tangent_norm(apex, ahead, 1.0)
    across = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    return length * (math.cos(angle) * ahead + math.sin(angle) * across)


def test_what_holds_nothing_has_a_score_of_zero():
    pairing = Pairing.of(TREE)
    found = measured(Plane(), torch.full_like(pairing.true, -1.0, dtype=torch.float64), pairing)
    assert (found.precision, found.recall, found.f1) == (0.0, 0.0, 0.0)
