"""Pairwise margin ranking loss."""

from __future__ import annotations

import torch


def margin_ranking_loss(
    scores: torch.Tensor, longer: torch.Tensor, shorter: torch.Tensor, pair_weight: torch.Tensor, *, margin: float
) -> torch.Tensor:
    """Weighted mean over pairs of max(0, margin − (score of the longer − score of the shorter)).

    scores: float[batch], one per prompt. longer, shorter: int64[pairs], indices into scores. pair_weight: float[pairs], > 0.
    Returns a scalar; zero, with a gradient of zero, when there are no pairs.
    The same as torch.nn.MarginRankingLoss on the gathered scores (arXiv 2510.03243, eq. 3), but each prompt is encoded once
    however many pairs it is in.
    """
    shortfall = torch.relu(margin - (scores[longer] - scores[shorter]))
    return (shortfall * pair_weight).sum() / pair_weight.sum().clamp_min(1e-12)
