"""Scores of one way of making text beside those of the prompt alone → a row of the chat table."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from trainer.evaluate import rank_metrics
from trainer.intervals import COVERAGE, Interval, tau_interval

FloatArray = npt.NDArray[np.float64]

SCORE_DIGITS = 4
"""Scores of texts that are cut to the same tokens differ by rounding alone, which would break their tie by chance."""


@dataclass(frozen=True, slots=True)
class ChatRow:
    """question: what a set of rows is compared for. way: how the text was made. prompts: how many.

    change: of tau against the first row of the same question and set, with the interval of the difference on the same prompts.
    unread: share of the texts in which the last user message begins where the ranker has stopped reading. mean_tokens: of the
    responses that the scores are judged by.
    """

    question: str
    dataset: str
    way: str
    prompts: int
    tau: float
    tau_low: float
    tau_high: float
    change: float
    change_low: float
    change_high: float
    pair_accuracy: float
    filtered_pair_accuracy: float
    min_gap: float
    unread: float
    mean_tokens: float

    def as_dict(self) -> dict[str, Any]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def chat_row(
    question: str,
    dataset: str,
    way: str,
    scores: FloatArray,
    base_scores: FloatArray,
    lengths: FloatArray,
    *,
    base_lengths: FloatArray | None = None,
    min_gap: float,
    resamples: int,
    unread: float = 0.0,
) -> ChatRow:
    """scores, base_scores, lengths: float[n], n >= 2, a prompt each. base_lengths: where the base is judged by other ones."""
    scores, base_scores = scores.round(SCORE_DIGITS), base_scores.round(SCORE_DIGITS)
    metrics = rank_metrics(scores, lengths, min_gap=min_gap)
    interval = tau_interval(scores, lengths, resamples=resamples)
    base = lengths if base_lengths is None else base_lengths
    change = change_interval((base_scores, base), (scores, lengths), resamples=resamples)
    return ChatRow(
        question=question,
        dataset=dataset,
        way=way,
        prompts=metrics.prompts,
        tau=metrics.tau_b,
        tau_low=interval.low,
        tau_high=interval.high,
        change=metrics.tau_b - _tau_b(base_scores, base),
        change_low=change.low,
        change_high=change.high,
        pair_accuracy=metrics.pair_accuracy,
        filtered_pair_accuracy=metrics.filtered_pair_accuracy,
        min_gap=min_gap,
        unread=unread,
        mean_tokens=float(lengths.mean()),
    )


def change_interval(
    before: tuple[FloatArray, FloatArray], after: tuple[FloatArray, FloatArray], *, resamples: int, seed: int = 0
) -> Interval:
    """Interval of the difference of two tau-b on the same prompts, which every resample draws for both.

    before, after: scores and lengths, float[n] each.
    """
    rng = np.random.default_rng(seed)
    changes = np.empty(resamples)
    for index in range(resamples):
        rows = rng.integers(0, len(before[0]), size=len(before[0]))
        changes[index] = _tau_b(after[0][rows], after[1][rows]) - _tau_b(before[0][rows], before[1][rows])
    low, high = np.quantile(changes, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(low), float(high))


def _tau_b(scores: FloatArray, lengths: FloatArray) -> float:
    tau = float(kendalltau(scores, lengths, variant="b").statistic)
    return 0.0 if np.isnan(tau) else tau
