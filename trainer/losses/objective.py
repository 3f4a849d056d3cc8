"""The losses to choose from by name: how many outputs each wants, what it minimises, and which score its outputs stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trainer.losses.buckets import bucket_loss, expected_bucket
from trainer.losses.distribution import distribution_loss, log_expected_length
from trainer.losses.listmle import listmle_loss
from trainer.losses.logistic import logistic_loss
from trainer.losses.margin import margin_ranking_loss
from trainer.losses.names import LOSSES
from trainer.losses.regression import regression_loss

FloatArray = npt.NDArray[np.float64]

BUCKETS = 10


@dataclass(frozen=True)
class LengthScale:
    """What the training lengths look like, which turns a length into a target.

    log_mean, log_std: of log tokens. bucket_bounds: float[BUCKETS - 1], tokens, percentiles that cut the prompts into equal parts.
    """

    log_mean: float
    log_std: float
    bucket_bounds: FloatArray

    @classmethod
    def of(cls, lengths: FloatArray) -> LengthScale:
        """lengths: float[n], response tokens."""
        log_tokens = np.log(lengths)
        bounds = np.quantile(lengths, np.arange(1, BUCKETS) / BUCKETS)
        return cls(float(log_tokens.mean()), float(max(log_tokens.std(), 1e-6)), bounds)


@dataclass(frozen=True)
class Target:
    """What is known about the prompts of one batch.

    lengths: float[batch], tokens. standard: float[batch], standardised log length. bucket: int64[batch]. weight: float[batch].
    longer, shorter: int64[pairs], indices into the batch. pair_weight: float[pairs].
    certainty: float[pairs], the probability that another response of each would keep their order.
    """

    lengths: torch.Tensor
    standard: torch.Tensor
    bucket: torch.Tensor
    weight: torch.Tensor
    longer: torch.Tensor
    shorter: torch.Tensor
    pair_weight: torch.Tensor
    certainty: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """outputs: width of the head. loss: (float[batch, outputs], target) → scalar. score: float[batch, outputs] → float[batch]."""

    outputs: int
    loss: Callable[[torch.Tensor, Target], torch.Tensor]
    score: Callable[[torch.Tensor], torch.Tensor]


def first_output(outputs: torch.Tensor) -> torch.Tensor:
    """The score of a ranker with one output: float[batch, 1] → float[batch]."""
    return outputs[:, 0]


def make_objective(name: str, scale: LengthScale, *, margin: float) -> Objective:
    """`name`: one of LOSSES. margin: how far apart the two scores of a pair should be, for the losses that have one."""
    pairwise_margin = _margin(margin)
    match name:
        case "margin":
            return Objective(1, pairwise_margin, first_output)
        case "logistic":
            return Objective(1, _logistic, first_output)
        case "soft_logistic":
            return Objective(1, _soft_logistic, first_output)
        case "regression":
            return Objective(1, _regression, first_output)
        case "margin_regression":
            return Objective(
                1, lambda outputs, target: pairwise_margin(outputs, target) + _regression(outputs, target), first_output
            )
        case "listmle":
            return Objective(1, lambda outputs, target: listmle_loss(outputs[:, 0], target.lengths), first_output)
        case "buckets":
            return Objective(
                BUCKETS, lambda outputs, target: bucket_loss(outputs, target.bucket, target.weight), expected_bucket
            )
        case "distribution":
            return Objective(
                2,
                lambda outputs, target: distribution_loss(outputs, target.standard, target.weight),
                lambda outputs: log_expected_length(outputs, scale.log_std),
            )
    raise ValueError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")


def make_target(
    lengths: FloatArray,
    weight: FloatArray,
    longer: npt.NDArray[np.int64],
    shorter: npt.NDArray[np.int64],
    scale: LengthScale,
    noise: FloatArray,
    pair_weight: FloatArray,
    device: torch.device,
) -> Target:
    """Tensors on `device`. lengths, weight, noise: float[batch]; noise is the standard deviation of log tokens between repeats.

    pair_weight: float[pairs], multiplied by the weights of both prompts."""
    log_tokens = np.log(lengths)
    spread = np.sqrt(noise[longer] ** 2 + noise[shorter] ** 2)
    gap = log_tokens[longer] - log_tokens[shorter]
    sure = np.full(len(longer), np.inf)
    np.divide(gap, spread, out=sure, where=spread > 0)

    def tensor(values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    return Target(
        lengths=tensor(lengths),
        standard=tensor((log_tokens - scale.log_mean) / scale.log_std),
        bucket=torch.from_numpy(np.searchsorted(scale.bucket_bounds, lengths, side="left")).to(device),
        weight=tensor(weight),
        longer=torch.from_numpy(longer).to(device),
        shorter=torch.from_numpy(shorter).to(device),
        pair_weight=tensor(pair_weight * weight[longer] * weight[shorter]),
        certainty=torch.special.ndtr(tensor(sure)),
    )


def _margin(margin: float) -> Callable[[torch.Tensor, Target], torch.Tensor]:
    def loss(outputs: torch.Tensor, target: Target) -> torch.Tensor:
        return margin_ranking_loss(outputs[:, 0], target.longer, target.shorter, target.pair_weight, margin=margin)

    return loss


def _logistic(outputs: torch.Tensor, target: Target) -> torch.Tensor:
    return logistic_loss(outputs[:, 0], target.longer, target.shorter, target.pair_weight)


def _soft_logistic(outputs: torch.Tensor, target: Target) -> torch.Tensor:
    return logistic_loss(outputs[:, 0], target.longer, target.shorter, target.pair_weight, target.certainty)


def _regression(outputs: torch.Tensor, target: Target) -> torch.Tensor:
    return regression_loss(outputs[:, 0], target.standard, target.weight)
