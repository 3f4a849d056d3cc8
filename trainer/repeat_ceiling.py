"""The best any ranker of prompts can do: estimated from prompts that one model answered more than once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from trainer.records import Records

LEAST_REPEATED_PROMPTS = 50
"""Fewer say nothing about a rank correlation: its interval is wider than ±0.19."""


@dataclass(frozen=True)
class RepeatCeiling:
    """tau_b: of a ranker that knew each prompt's expected length, against the lengths of these records. repeat_tau_b: of one
    response against another to the same prompt. prompts: how many prompts both come from."""

    tau_b: float
    repeat_tau_b: float
    prompts: int


def repeat_ceiling(records: Records, *, seed: int = 0) -> RepeatCeiling | None:
    """None where fewer than LEAST_REPEATED_PROMPTS prompts were answered twice by one model.

    Two responses to each such prompt, drawn at random, give tau between repeats. Greiner's relation r = sin(π tau / 2) makes it a
    correlation, the reliability ρ of one response. A prompt with k responses is judged by their mean, whose noise is 1/k of that, so a
    ranker without any noise of its own correlates with it by 1 / sqrt(1 + mean(1/k) (1 − ρ) / ρ); the same relation leads back to tau.
    The relation holds for normal variables, and so for lengths that any monotone map makes normal.
    """
    rows_of: dict[str, dict[str, list[int]]] = {}
    for row in np.random.default_rng(seed).permutation(len(records)).tolist():
        rows_of.setdefault(records.model[row], {}).setdefault(records.prompt[row], []).append(row)
    # Of the model with the most repeats alone: two models' own verbosity would look like agreement between repeats.
    pairs = max(([rows[:2] for rows in prompts.values() if len(rows) > 1] for prompts in rows_of.values()), key=len)
    if len(pairs) < LEAST_REPEATED_PROMPTS:
        return None
    first, second = records.response_tokens[np.array(pairs).T]
    between = float(kendalltau(first, second, variant="b").statistic)
    if np.isnan(between):
        return None  # all of one length: nothing to order, which the audit says elsewhere
    mean_inverse_count = float(np.mean([1 / count for count in Counter(records.prompt).values()]))
    return RepeatCeiling(_tau_of_the_expectation(between, mean_inverse_count), between, len(pairs))


def _tau_of_the_expectation(between: float, mean_inverse_count: float) -> float:
    reliability = np.sin(np.pi / 2 * between)
    if reliability <= 0:
        return 0.0
    correlation = 1 / np.sqrt(1 + mean_inverse_count * (1 - reliability) / reliability)
    return float(2 / np.pi * np.arcsin(correlation))
