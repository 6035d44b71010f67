"""Answers that probabilities of classes support: the class that is least wrong on average, or a node above classes.

A node is as probable as the classes below it together. What is answered is a matter of what a mistake costs: with the
steps of the tree as the cost it is often not the most probable class, and where an answer may be less specific, the
less sure the probabilities are the higher it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hypclip.errors import InputError
from hypclip.evaluation.label_tree import LabelTree

Rule: TypeAlias = Literal["hedge", "threshold"]
"""How far an answer goes down: see `hedge` and `deepest`."""
EXACT = 8.0
"""What being wrong at all costs, in steps of the tree."""
_BINS = 15
_ALMOST = 1e-9
"""What sums of probabilities may be below 1 by rounding."""


def least_wrong(p: Float[Tensor, "n classes"], tree: LabelTree, exact: float = EXACT) -> Int[Tensor, " n"]:
    """Return the class that costs least on average, argmin_c Σ_l p_l · (steps(c, l) + exact · [c ≠ l]).

    Of several such classes the most probable.

    Args:
        p: probabilities.
        tree: the classes and what is above them.
        exact: what any wrong class costs, in steps, beside its own steps: at 0 the distance to the right one alone
            counts, and the greater it is, the more often the answer is the most probable class.
    """
    steps = tree.steps[tree.of_class]
    expected = p.to(steps) @ steps.T - exact * p.to(steps)
    near = expected <= expected.min(1, keepdim=True).values + _ALMOST
    return p.masked_fill(~near, -1).argmax(1)


def hedge(posteriors: Float[Tensor, "n nodes"], tree: LabelTree, reward: float) -> Int[Tensor, " n"]:
    """Return the nodes with the most expected information, where being right is worth `reward` bits in itself.

    argmax_v p_v (information_v + reward): of all rules that are right as often, the one whose right answers tell most.
    Source: Deng et al. 2012, "Hedging Your Bets: Optimizing Accuracy-Specificity Trade-offs in Large Scale Visual
    Recognition".

    Args:
        posteriors: `tree.posteriors` of probabilities.
        tree: the classes and what is above them.
        reward: λ ≥ 0; the larger, the higher answers stand.
    """
    return (posteriors * (tree.information.to(posteriors) + reward)).argmax(1)


def deepest(posteriors: Float[Tensor, "n nodes"], tree: LabelTree, confidence: float) -> Int[Tensor, " n"]:
    """Return the most specific node at least as probable as `confidence`; of several, the most probable.

    Where no node is, as in a graph without a root over all classes, it is the most probable one.
    """
    sure = posteriors >= confidence - _ALMOST
    sure |= ~sure.any(1, keepdim=True) & (posteriors == posteriors.max(1, keepdim=True).values)
    information = tree.information.to(posteriors).expand_as(posteriors).masked_fill(~sure, -1)
    most = information >= information.max(1, keepdim=True).values
    return posteriors.masked_fill(~most, -1).argmax(1)


_RULES: dict[Rule, Callable[[Tensor, LabelTree, float], Tensor]] = {"hedge": hedge, "threshold": deepest}


def answer(posteriors: Float[Tensor, "n nodes"], tree: LabelTree, rule: Rule, value: float) -> Int[Tensor, " n"]:
    """Return the nodes that a rule answers with its parameter: `reward` of hedge, `confidence` of threshold."""
    return _RULES[rule](posteriors, tree, value)


def right(answers: Int[Tensor, " n"], labels: Sequence[int], tree: LabelTree) -> Float[Tensor, " n"]:
    """Return 1 where the right class is the node answered, or below it."""
    return tree.below[answers, torch.tensor(labels)]


def fit_rule(
    posteriors: Float[Tensor, "n nodes"], labels: Sequence[int], tree: LabelTree, rule: Rule, accuracy: float
) -> float:
    """Return the least parameter with which answers to labelled rows are right as often as wished.

    Accuracy grows with the parameter but for chance, so that it is searched from above: with every greater value on a
    grid the answers are right often enough too.

    Args:
        posteriors: `tree.posteriors` of calibrated probabilities.
        labels: the right classes.
        tree: the classes and what is above them.
        rule: whose parameter.
        accuracy: the share of answers that shall be right, above 0 and at most 1.

    Raises:
        InputError: the accuracy is out of range, no labels, or the tree has no node above all classes, which alone is
            always right.
    """
    if not 0 < accuracy <= 1:
        raise InputError(f"accuracy must be above 0 and at most 1, got {accuracy:g}")
    if not len(labels):
        raise InputError("a rule needs labelled rows to be fitted to, got none")
    if float(tree.information.min()) > 0:
        raise InputError("answers that are always right need a node above all classes: put a root above the taxonomy's")
    found = _largest(rule)
    for value in _grid(rule):
        if right(answer(posteriors, tree, rule, value), labels, tree).mean() < accuracy:
            break
        found = value
    return found


def answer_scores(
    answers: Int[Tensor, " n"], labels: Sequence[int], tree: LabelTree
) -> Iterator[tuple[str, int | float]]:
    """Yield how often answers of any height are right, and how much they say.

    accuracy: the right class is the node or below it. coverage: the node is not above all classes. specific: the node
    has no class below it but itself. specificity: information of the node as a share of log₂ C, the mean over images;
    information: the same where the answer is right, and 0 where it is wrong. tie: steps from node to right class.
    """
    hit, truth = right(answers, labels, tree), torch.tensor(labels)
    bits = tree.information[answers] / tree.information.max()
    yield "accuracy", hit.mean().item()
    yield "coverage", (bits > 0).double().mean().item()
    yield "specific", (tree.below[answers].sum(1) == 1).double().mean().item()
    yield "specificity", bits.mean().item()
    yield "information", (bits * hit).mean().item()
    yield "tie", tree.steps[answers, truth].mean().item()


def calibration_errors(
    posteriors: Float[Tensor, "n nodes"], labels: Sequence[int], tree: LabelTree
) -> Iterator[tuple[int, float]]:
    """Yield for each level of the tree the expected calibration error of its most probable nodes.

    Σ_b share_b · |accuracy_b − mean posterior_b| over 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599).
    """
    for level in range(int(tree.levels.max()) + 1):
        rows = (tree.levels == level).nonzero().squeeze(1)
        confidence, place = posteriors[:, rows].max(1)
        yield level, calibration_error(confidence, right(rows[place], labels, tree))


def calibration_error(confidence: Float[Tensor, " n"], hit: Float[Tensor, " n"]) -> float:
    """Return Σ_b share_b · |mean hit_b − mean confidence_b| over 15 bins of confidence of equal width."""
    which = (confidence * _BINS).long().clamp(0, _BINS - 1)
    gap = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, which, hit.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))


def _grid(rule: Rule) -> Iterator[float]:
    """Yield the parameters of a rule from the one with the highest answers down."""
    match rule:
        case "threshold":
            yield from (step / 500 for step in range(500, -1, -1))
        case "hedge":
            yield from (2 ** (step / 8) for step in range(13 * 8, -7 * 8, -1))
            yield 0.0


def _largest(rule: Rule) -> float:
    return next(_grid(rule))
