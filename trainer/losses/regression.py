"""Pointwise regression on log length."""

from __future__ import annotations

import torch


def regression_loss(scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean of (score − target)². scores, target, weight: float[batch]; target is the standardised log length."""
    return (weight * (scores - target) ** 2).sum() / weight.sum()
