"""Classification into length buckets, as earlier length predictors do (S3, Jin et al. 2023); percentile buckets of equal size."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def bucket_loss(logits: torch.Tensor, bucket: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross entropy. logits: float[batch, buckets], shortest first. bucket: int64[batch]. weight: float[batch]."""
    return (weight * cross_entropy(logits, bucket, reduction="none")).sum() / weight.sum()


def expected_bucket(logits: torch.Tensor) -> torch.Tensor:
    """The mean bucket number under the predicted probabilities: float[batch], the score of such a ranker."""
    numbers = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return logits.softmax(dim=1) @ numbers
