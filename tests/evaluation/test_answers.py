"""Answers from probabilities of classes, where they can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypclip.errors import InputError
from hypclip.evaluation.answers import (
    answer,
    answer_scores,
    calibration_error,
    calibration_errors,
    deepest,
    fit_rule,
    hedge,
    least_wrong,
    right,
)
from hypclip.evaluation.hierarchy import build_taxonomy
from hypclip.evaluation.label_tree import LabelTree

# Two kinds of three and two, and one of a single class: dog, cat and cow, owl and gull, car.
CLASSES = ["dog", "cat", "cow", "owl", "gull", "car"]
KINDS = {"dog": "mammal", "cat": "mammal", "cow": "mammal", "owl": "bird", "gull": "bird", "car": "vehicle"}
EDGES = [*KINDS.items(), ("mammal", "animal"), ("bird", "animal"), ("animal", "root"), ("vehicle", "root")]


@pytest.fixture
def tree() -> LabelTree:
    return LabelTree(build_taxonomy(EDGES), CLASSES)


def named(rows: torch.Tensor, tree: LabelTree) -> list[str]:
    return [tree.nodes[row] for row in rows.tolist()]


def test_the_least_wrong_class_may_be_none_of_the_most_probable(tree: LabelTree) -> None:
    """A car is the most probable, but what it is mistaken for are mammals: steps to a car are 5 from each.

    Expected: car .4·0 + .6·5 = 3; a mammal .4·5 + .4·2 = 2.8, the other two mammals together being .4.
    """
    p = torch.tensor([[0.2, 0.2, 0.2, 0.0, 0.0, 0.4]])
    assert p.argmax(1).tolist() == [5]
    assert least_wrong(p, tree, 0.0).tolist() == [0]
    surer = torch.tensor([[0.15, 0.15, 0.15, 0.0, 0.0, 0.55]])  # car .45·5 = 2.25; dog .55·5 + .3·2 = 3.35
    assert least_wrong(surer, tree, 0.0).tolist() == [5]


def test_the_more_any_mistake_costs_the_likelier_the_answer_is_the_most_probable_class(tree: LabelTree) -> None:
    """Of the same: car .4·0 + .6·(5 + μ) and a mammal .4·(5 + μ) + .4·(2 + μ): less by .2 (1 − μ)."""
    p = torch.tensor([[0.2, 0.2, 0.2, 0.0, 0.0, 0.4]], dtype=torch.float64)
    assert least_wrong(p, tree, 0.9).tolist() == [0]
    assert least_wrong(p, tree, 1.1).tolist() == [5]


def test_of_classes_that_are_as_wrong_the_most_probable_is_answered(tree: LabelTree) -> None:
    p = torch.tensor([[0.30, 0.35, 0.35, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5, 0.0]])
    assert least_wrong(p, tree).tolist() == [1, 3]


@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_no_class_has_fewer_expected_steps(weights: list[float]) -> None:
    tree = LabelTree(build_taxonomy(EDGES), CLASSES)
    p = torch.tensor([weights], dtype=torch.float64)
    p = p / p.sum()
    chosen = int(least_wrong(p, tree, 2.5))
    steps = tree.steps[tree.of_class]
    cost = [sum(float(p[0, t]) * (float(steps[c, t]) + 2.5 * (c != t)) for t in range(6)) for c in range(6)]
    assert cost[chosen] == pytest.approx(min(cost))


P = torch.tensor([[0.36, 0.24, 0.1, 0.15, 0.05, 0.1]], dtype=torch.float64)
"""Dog .36, mammal .7, animal .9."""


@pytest.mark.parametrize(
    ("confidence", "answered"),
    [(0.0, "dog"), (0.36, "dog"), (0.37, "mammal"), (0.7, "mammal"), (0.8, "animal"), (0.9, "animal"), (0.91, "root")],
)
def test_a_threshold_stops_at_the_most_specific_node_that_is_sure_enough(tree, confidence, answered) -> None:
    assert named(deepest(tree.posteriors(P), tree, confidence), tree) == [answered]


@pytest.mark.parametrize(
    ("reward", "answered"),
    [
        (0.0, "dog"),
        (0.67, "dog"),
        (0.69, "mammal"),
        (2.31, "mammal"),
        (2.33, "animal"),
        (2.36, "animal"),
        (2.37, "root"),
    ],
)
def test_hedging_by_hand(tree, reward, answered) -> None:
    """Bits are log₂ 6 for a dog, 1 for a mammal, log₂ 6/5 for an animal and 0 for the root.

    A mammal has more than a dog from .36 (2.585 + λ) = .7 (1 + λ) on, λ = .678; an animal more than a mammal from
    .7 (1 + λ) = .9 (.263 + λ) on, λ = 2.317; and the root from .9 (.263 + λ) = λ on, λ = 2.367.
    """
    assert named(hedge(tree.posteriors(P), tree, reward), tree) == [answered]


def test_without_a_root_over_all_the_most_probable_node_is_answered() -> None:
    edges = [("a", "up"), ("b", "up"), ("b", "over"), ("c", "over")]
    tree = LabelTree(build_taxonomy(edges), ["a", "b", "c"])
    posteriors = tree.posteriors(torch.tensor([[0.3, 0.3, 0.4]]))
    assert named(deepest(posteriors, tree, 0.9), tree) == ["over"]
    with pytest.raises(InputError, match="put a root above"):
        fit_rule(posteriors, [0], tree, "threshold", 0.9)


def test_right_is_the_class_or_what_is_above_it(tree: LabelTree) -> None:
    answers = torch.tensor([tree.rows[node] for node in ("dog", "cat", "mammal", "bird", "root", "car")])
    assert right(answers, [0, 0, 0, 0, 0, 5], tree).tolist() == [1, 0, 1, 0, 1, 1]


def test_scores_by_hand(tree: LabelTree) -> None:
    """Of a dog: dog (right, all bits), mammal (right, 1 of 2.585), bird (wrong, log₂ 3), root (right, none)."""
    answers = torch.tensor([tree.rows[node] for node in ("dog", "mammal", "bird", "root")])
    scores = dict(answer_scores(answers, [0, 0, 0, 0], tree))
    top = math.log2(6)
    assert scores == pytest.approx(
        {
            "accuracy": 3 / 4,
            "coverage": 3 / 4,
            "specific": 1 / 4,
            "specificity": (top + 1 + math.log2(3)) / (4 * top),
            "information": (top + 1) / (4 * top),
            "tie": (0 + 1 + 3 + 3) / 4,
        }
    )


def test_a_node_over_one_class_is_as_specific_as_the_class(tree: LabelTree) -> None:
    scores = dict(answer_scores(torch.tensor([tree.rows["vehicle"]]), [5], tree))
    assert scores["specific"] == scores["specificity"] == 1
    assert scores["tie"] == 1


@pytest.mark.parametrize("rule", ["hedge", "threshold"])
@pytest.mark.parametrize("accuracy", [0.8, 0.95, 1.0])
def test_a_fitted_rule_is_as_accurate_as_wished_and_no_higher_than_it_must(tree, rule, accuracy) -> None:
    """Labels are drawn from the probabilities themselves, so that they are calibrated."""
    generator = torch.Generator().manual_seed(1)
    p = torch.softmax(2 * torch.randn(2000, 6, generator=generator, dtype=torch.float64), 1)
    labels = torch.multinomial(p, 1, generator=generator).squeeze(1).tolist()
    posteriors = tree.posteriors(p)
    value = fit_rule(posteriors, labels, tree, rule, accuracy)
    scores = dict(answer_scores(answer(posteriors, tree, rule, value), labels, tree))
    assert scores["accuracy"] >= accuracy
    assert scores["accuracy"] < accuracy + 0.03
    lower = value * 0.8
    assert dict(answer_scores(answer(posteriors, tree, rule, lower), labels, tree))["accuracy"] < accuracy


def test_hedging_says_more_than_a_threshold_at_the_same_accuracy(tree: LabelTree) -> None:
    generator = torch.Generator().manual_seed(2)
    p = torch.softmax(1.5 * torch.randn(4000, 6, generator=generator, dtype=torch.float64), 1)
    labels = torch.multinomial(p, 1, generator=generator).squeeze(1).tolist()
    posteriors = tree.posteriors(p)
    told = {}
    for rule in ("hedge", "threshold"):
        value = fit_rule(posteriors, labels, tree, rule, 0.85)
        told[rule] = dict(answer_scores(answer(posteriors, tree, rule, value), labels, tree))["information"]
    assert told["hedge"] > told["threshold"]


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 1.1])
def test_an_accuracy_out_of_range_is_refused(tree: LabelTree, accuracy: float) -> None:
    with pytest.raises(InputError, match="accuracy must be above 0 and at most 1"):
        fit_rule(tree.posteriors(P), [0], tree, "hedge", accuracy)
    with pytest.raises(InputError, match="got none"):
        fit_rule(tree.posteriors(P)[:0], [], tree, "hedge", 0.5)


def test_calibration_error_by_hand() -> None:
    """Two bins: .9 and .92 of which one is right, |1 − 1.82| / 3; .1 that is wrong, .1 / 3."""
    found = calibration_error(torch.tensor([0.9, 0.92, 0.1]), torch.tensor([1.0, 0.0, 0.0]))
    assert found == pytest.approx((0.82 + 0.1) / 3)
    assert calibration_error(torch.tensor([1.0]), torch.tensor([1.0])) == 0


def test_calibration_errors_are_of_the_most_probable_node_of_each_level(tree: LabelTree) -> None:
    """Levels: root; animal .9 (right) or vehicle; mammal .7 (wrong), bird .2, car; then dog .36 (wrong)."""
    errors = dict(calibration_errors(tree.posteriors(P), [3], tree))
    assert errors == pytest.approx({0: 0, 1: 0.1, 2: 0.7, 3: 0.36})


def test_posteriors_of_right_probabilities_are_calibrated(tree: LabelTree) -> None:
    generator = torch.Generator().manual_seed(3)
    p = torch.softmax(2 * torch.randn(8000, 6, generator=generator, dtype=torch.float64), 1)
    labels = torch.multinomial(p, 1, generator=generator).squeeze(1).tolist()
    assert max(error for _, error in calibration_errors(tree.posteriors(p), labels, tree)) < 0.03
    sure = torch.softmax(4 * p.log(), 1)
    assert max(error for _, error in calibration_errors(tree.posteriors(sure), labels, tree)) > 0.1
