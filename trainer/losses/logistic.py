"""Pairwise logistic loss (RankNet, Burges et al. 2005), with hard labels or with how sure a label is."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def logistic_loss(
    scores: torch.Tensor,
    longer: torch.Tensor,
    shorter: torch.Tensor,
    pair_weight: torch.Tensor,
    certainty: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weighted mean over pairs of the cross entropy between `certainty` and sigmoid(score of the longer − score of the shorter).

    scores: float[batch]. longer, shorter: int64[pairs], indices into scores. pair_weight: float[pairs], > 0.
    certainty: float[pairs] in [0.5, 1], the probability that another response would keep the order; None: 1 for all.
    Returns a scalar; zero, with a gradient of zero, when there are no pairs.
    """
    gap = scores[longer] - scores[shorter]
    target = torch.ones_like(gap) if certainty is None else certainty
    loss = binary_cross_entropy_with_logits(gap, target, reduction="none")
    return (loss * pair_weight).sum() / pair_weight.sum().clamp_min(1e-12)
