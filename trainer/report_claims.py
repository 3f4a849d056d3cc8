"""Pure: what the test part shows about the order of prompts, and what it does not show. No claim without an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.evaluate import rank_metrics
from trainer.intervals import Interval, percentile_interval, tau_resamples

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ordering:
    """How well something orders the test prompts. gain: the ranker's tau-b minus this one's; None for the ranker itself."""

    name: str
    tau_b: float
    interval: Interval
    gain: float = 0.0
    gain_interval: Interval | None = None


def judge_orderings(
    ranker: FloatArray, rivals: Mapping[str, FloatArray], lengths: FloatArray, *, resamples: int = 1000
) -> list[Ordering]:
    """The ranker first, then its rivals, all on the same prompts and the same resamples.

    ranker: scores, float[n]. rivals: name to scores, float[n]. lengths: float[n], tokens, n >= 2.
    """
    taus = tau_resamples([ranker, *rivals.values()], lengths, resamples=resamples)
    own = rank_metrics(ranker, lengths, min_gap=0.0).tau_b
    orderings = [Ordering("this ranker", own, percentile_interval(taus[:, 0]))]
    for column, (name, scores) in enumerate(rivals.items(), start=1):
        tau_b = rank_metrics(scores, lengths, min_gap=0.0).tau_b
        difference = percentile_interval(taus[:, 0] - taus[:, column])
        orderings.append(Ordering(name, tau_b, percentile_interval(taus[:, column]), own - tau_b, difference))
    return orderings


def verdicts(orderings: list[Ordering]) -> list[str]:
    """A sentence for chance and for each rival. "Better" only where the whole interval lies above 0."""
    ranker, *rivals = orderings
    sentences = [_against_chance(ranker.interval)]
    for rival in rivals:
        assert rival.gain_interval is not None
        if rival.gain_interval.low > 0:
            sentences.append(f"Better than {rival.name}.")
        elif rival.gain_interval.high < 0:
            sentences.append(f"WORSE than {rival.name}: use that instead.")
        else:
            sentences.append(f"Not shown to be better than {rival.name}: the interval of the difference holds 0.")
    return sentences


def _against_chance(tau: Interval) -> str:
    if tau.low > 0:
        return "It has learned something: on prompts it never saw, the interval of its tau lies above 0."
    if tau.high < 0:
        return "It orders prompts the WRONG WAY ROUND: the interval of its tau lies below 0. Do not serve it."
    return "NOT shown to have learned anything: the interval of its tau holds 0. Do not serve it."


def prompt_length_ordering(prompts: list[str], known_prompts: list[str], known_lengths: FloatArray) -> tuple[str, FloatArray]:
    """Prompt length in characters, in the direction that fits the prompts learned from; its name and scores, float[n].

    In many data sets the longer prompt brings the shorter answer. Who orders by prompt length would know, so the rival does.
    """
    tau = rank_metrics(np.array([float(len(prompt)) for prompt in known_prompts]), known_lengths, min_gap=0.0).tau_b
    lengths = np.array([float(len(prompt)) for prompt in prompts])
    return ("prompt length, longest prompt first", -lengths) if tau < 0 else ("prompt length", lengths)
