"""A distribution per prompt: log length is normal with a location and a spread of its own (a log-normal response length)."""

from __future__ import annotations

import torch

LEAST_SPREAD, MOST_SPREAD = 0.05, 3.0
"""Bounds of the spread, in standard deviations of the log lengths: keep one outlier from making the likelihood explode."""


def distribution_loss(outputs: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean negative log likelihood. outputs: float[batch, 2], location and log spread. target: standardised log length."""
    location, spread = outputs[:, 0], spread_of(outputs)
    loss = spread.log() + 0.5 * ((target - location) / spread) ** 2
    return (weight * loss).sum() / weight.sum()


def spread_of(outputs: torch.Tensor) -> torch.Tensor:
    """Standard deviation per prompt, float[batch], in standard deviations of the log lengths."""
    return outputs[:, 1].exp().clamp(LEAST_SPREAD, MOST_SPREAD)


def log_expected_length(outputs: torch.Tensor, log_std: float) -> torch.Tensor:
    """Log of the expected length up to a constant and in units of `log_std`: location plus a tail term, half the variance.

    A shortest-job-first queue is served best by the mean, which a long tail raises above the median (TIE scores likewise).
    """
    return outputs[:, 0] + 0.5 * log_std * spread_of(outputs) ** 2
