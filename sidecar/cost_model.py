"""Measure the cost model of this scorer on this machine, once at start. A batching policy with the wrong constants is slow."""

from collections.abc import Callable, Sequence

import numpy as np

from sidecar.batching import CostModel
from sidecar.scorer import Scorer, TokenizedPrompt

MIN_FIXED_MS = 0.01
MIN_PER_TOKEN_MS = 1e-6
"""Floors for a fit that noise has turned negative: a batch always costs something, and a longer one more."""

MAX_RUNS = 8
ENOUGH_NS = 80_000_000
"""Runs per shape: this many, or as many as begin within this time. The best run counts, and the short ones, which decide the
fixed cost and are disturbed most easily, get the most tries. Five shapes stay below half a second: a start should be quick."""


def measure(scorer: Scorer, max_tokens: int, clock: Callable[[], int]) -> CostModel:
    """Time a few batch shapes and fit fixed and per-token cost to the best run of each.

    max_tokens: the longest prompt the scorer takes. clock: monotonic, nanoseconds; of this thread alone, where the scorer uses no
    other, so that what else the machine does counts for nothing.
    """
    middle = max(max_tokens // 4, 1)
    shapes = [(1, min(8, max_tokens)), (1, middle), (1, max_tokens), (8, min(16, max_tokens)), (8, middle)]
    best_ms = [_best_run_ns(scorer, prompts, tokens, clock) / 1e6 for prompts, tokens in shapes]
    return fit([prompts * tokens for prompts, tokens in shapes], best_ms)


def _best_run_ns(scorer: Scorer, prompts: int, tokens: int, clock: Callable[[], int]) -> int:
    batch = [TokenizedPrompt(np.zeros(tokens, dtype=np.int64), truncated=False)] * prompts
    began = clock()
    times_ns: list[int] = []
    while not times_ns or (len(times_ns) < MAX_RUNS and clock() - began < ENOUGH_NS):
        start = clock()
        scorer.score(batch)
        times_ns.append(clock() - start)
    return min(times_ns)


def fit(padded_tokens: Sequence[int], run_ms: Sequence[float]) -> CostModel:
    """Least squares of run_ms on fixed + per_token x padded_tokens, in relative error so that short runs count too."""
    weights = 1.0 / np.maximum(np.asarray(run_ms, dtype=np.float64), 1e-6)
    columns = np.stack((weights, weights * np.asarray(padded_tokens, dtype=np.float64)), axis=1)
    (fixed, per_token), *_ = np.linalg.lstsq(columns, np.ones(len(weights)), rcond=None)
    return CostModel(max(float(fixed), MIN_FIXED_MS), max(float(per_token), MIN_PER_TOKEN_MS))
