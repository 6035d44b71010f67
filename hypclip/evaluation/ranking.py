"""Ranking measures of scores: average precision, AUC and rank correlation; equal scores are ties."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def precision_and_auc(score: Float[Tensor, " n"], true: Bool[Tensor, " n"]) -> tuple[float, float]:
    """Return average precision and the area under the ROC curve.

    AP = Σ_k (R_k − R_{k−1}) P_k over the distinct scores, highest first, which leaves out no tie and favours none;
    AUC = P(s_true > s_false) + P(s_true = s_false)/2. What is not a number ranks last.

    Args:
        score: higher is truer.
        true: at least one of each kind.
    """
    assert 0 < int(true.sum()) < len(true), "there is nothing to tell apart"
    ranked, order = score.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).sort(descending=True)
    end = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)]).nonzero().squeeze(1)
    found = true[order].cumsum(0)[end].double()
    taken = (end + 1).double()
    newly, wrong = (torch.diff(x, prepend=x.new_zeros(1)) for x in (found, taken - found))
    positives, negatives = found[-1], taken[-1] - found[-1]
    precision = (newly * found / taken).sum() / positives
    auc = (wrong * (found - newly / 2)).sum() / (positives * negatives)
    return precision.item(), auc.item()


def rank_correlation(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Return Spearman's ρ, the correlation of the ranks; NaN where all of x or of y are equal."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(x), _ranks(y)))
    return ((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).item()


def _ranks(x: Tensor) -> Tensor:
    """Return the rank of each; equal ones share the mean of theirs."""
    _, which, count = torch.unique(x, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks: Tensor = (last - (count - 1) / 2)[which]
    return ranks
