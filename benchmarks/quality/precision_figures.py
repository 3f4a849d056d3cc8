"""Pure: scores of several precisions and real response lengths → what each precision loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks.quality.precision_scores import FloatArray, Scores
from benchmarks.quality.precision_sets import HeldOut
from sidecar.calibration import Calibrator
from trainer.intervals import percentile_interval, tau_resamples

REFERENCE = "fp32"
DIGITS = 5


@dataclass(frozen=True)
class PrecisionRow:
    """One precision on one set, prompts scored alone unless it says otherwise.

    tau: against the typical length. tau_loss: of it against fp32, paired over the same resamples of prompts; below zero where it is
    better. batched_loss: tau_loss when prompts are scored in batches of 8. tau_to_fp32: agreement of the two orders.
    alone_to_batched: agreement of a bundle with itself. max_batch_difference: largest change of a score by its neighbours, in standard
    deviations of the fp32 scores. under_p90: share of responses no longer than the expected 90th percentile; 0.9 is perfect.
    median_log_ratio: median of |log(expected median / response)|. Both against one real response each, with the bundle's own calibration.
    """

    dataset: str
    precision: str
    prompts: int
    tau: float
    tau_low: float
    tau_high: float
    tau_loss: float
    tau_loss_low: float
    tau_loss_high: float
    batched_loss: float
    tau_to_fp32: float
    alone_to_batched: float
    max_batch_difference: float
    under_p90: float
    median_log_ratio: float

    def as_dict(self) -> dict[str, Any]:
        return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in asdict(self).items()}


def rows_of(
    held_out: HeldOut, scores: Mapping[str, Scores], calibrators: Mapping[str, Calibrator], *, resamples: int
) -> list[PrecisionRow]:
    """A row for each precision. scores, calibrators: by precision, fp32 among them."""
    lengths, reference = held_out.typical_tokens, scores[REFERENCE].alone
    drawn = tau_resamples([each.alone for each in scores.values()], lengths, resamples=resamples)
    of_reference = drawn[:, list(scores).index(REFERENCE)]
    rows = []
    for index, (name, each) in enumerate(scores.items()):
        interval, loss = percentile_interval(drawn[:, index]), percentile_interval(of_reference - drawn[:, index])
        _, expected, p90 = calibrators[name].apply(each.alone)
        rows.append(
            PrecisionRow(
                dataset=held_out.name,
                precision=name,
                prompts=len(held_out.prompts),
                tau=_tau(each.alone, lengths),
                tau_low=interval.low,
                tau_high=interval.high,
                tau_loss=_tau(reference, lengths) - _tau(each.alone, lengths),
                tau_loss_low=loss.low,
                tau_loss_high=loss.high,
                batched_loss=_tau(reference, lengths) - _tau(each.batched, lengths),
                tau_to_fp32=_tau(each.alone, reference),
                alone_to_batched=_tau(each.alone, each.batched),
                max_batch_difference=float(np.abs(each.alone - each.batched).max() / reference.std()),
                under_p90=float((held_out.sampled_tokens <= p90).mean()),
                median_log_ratio=float(np.median(np.abs(np.log(np.maximum(expected, 1.0) / held_out.sampled_tokens)))),
            )
        )
    return rows


def speed_of(spent_ms: Mapping[str, Mapping[int, FloatArray]]) -> dict[str, dict[str, float]]:
    """For each precision the median CPU milliseconds for a prompt, and how many times as fast as fp32 it is (median over rounds)."""
    figures: dict[str, dict[str, float]] = {}
    for name, of_size in spent_ms.items():
        figures[name] = {}
        for size, rounds in of_size.items():
            times = spent_ms[REFERENCE][size] / rounds
            figures[name][f"cpu_ms_batch_{size}"] = round(float(np.median(rounds)), 3)
            figures[name][f"times_fp32_batch_{size}"] = round(float(np.median(times)), 3)
            figures[name][f"times_fp32_batch_{size}_low"] = round(float(times.min()), 3)
            figures[name][f"times_fp32_batch_{size}_high"] = round(float(times.max()), 3)
    return figures


def _tau(one: FloatArray, other: FloatArray) -> float:
    tau = float(kendalltau(one, other, variant="b").statistic)
    return 0.0 if np.isnan(tau) else tau
