"""A running estimate of how long the encoder will take: the cost model measured at start, corrected by what batches really took.

Pure apart from what it is told; the clock's readings are arguments. It forgets: what nobody measures again loses its weight
within seconds. Otherwise one stall could talk the server out of its encoder for good, since a tier that is not used is not measured.
"""

import math
from collections.abc import Sequence

from sidecar.batching import CostModel
from sidecar.tier_rule import Expectation

WEIGHT = 0.2
"""Of the newest batch in each running mean: about the last ten batches count."""

FORGET_S = 1.0
"""Time in which an unrefreshed correction loses two thirds of its weight."""

SLOWDOWN_BOUNDS = (0.05, 50.0)
"""A batch that took longer was stopped with its process, which says nothing of the next one."""


class LoadEstimate:
    """Corrections to a cost model, learned from what is told to `ran`. Not thread-safe: callers hold a lock."""

    def __init__(self, cost: CostModel, workers: int) -> None:
        self._cost = cost
        self._workers = workers
        self._slowdown = 1.0
        self._batch_prompts = 1.0
        self._ran_ns = 0

    def ran(self, prompts: int, tokens: int, took_ms: float, now_ns: int) -> None:
        """Note that a batch has ended. tokens: without padding, so that padding counts as part of the slowdown."""
        expected_ms = self._cost.fixed_ms + self._cost.per_token_ms * tokens
        low, high = SLOWDOWN_BOUNDS
        ratio = min(max(took_ms / expected_ms, low), high)
        known = self.slowdown(now_ns)
        self._slowdown = known + WEIGHT * (ratio - known)
        self._batch_prompts += WEIGHT * (prompts - self._batch_prompts)
        self._ran_ns = now_ns

    def slowdown(self, now_ns: int) -> float:
        """How many times longer than the cost model says a batch takes now."""
        return 1.0 + (self._slowdown - 1.0) * _remembered(now_ns - self._ran_ns)

    def run_ms(self, prompts: int, longest_tokens: int, now_ns: int) -> float:
        """What one batch would take if it began now."""
        return self._cost.run_ms(prompts, longest_tokens) * self.slowdown(now_ns)

    def expect(
        self, lengths: Sequence[int], waiting_prompts: int, waiting_tokens: int, running_ms: Sequence[float], now_ns: int
    ) -> Expectation:
        """What a call with prompts of these lengths has before it, if it came now.

        waiting_*: prompts before it that are in no batch yet. running_ms: what is left of each running batch.
        """
        cost, slowdown = self._cost, self.slowdown(now_ns)
        batches = waiting_prompts / max(self._batch_prompts, 1.0)
        before_ms = (cost.fixed_ms * batches + cost.per_token_ms * waiting_tokens) * slowdown + sum(running_ms)
        worker_is_free = not waiting_prompts and len(running_ms) < self._workers
        side_by_side = min(self._workers, len(lengths))
        shared_ms = cost.fixed_ms + cost.per_token_ms * sum(lengths) / side_by_side
        return Expectation(
            queue_ms=0.0 if worker_is_free else before_ms / self._workers,
            work_ms=max(shared_ms, cost.run_ms(1, max(lengths))) * slowdown,
        )


MAX_LAG_MS = 100.0
"""More than this is a process that was stopped, and says nothing of what comes next."""


class LoopLag:
    """How late the event loop does what is due. Of that loop's thread alone."""

    def __init__(self) -> None:
        self._lag_ms = 0.0
        self._noted_ns = 0

    def lagged(self, lag_ms: float, now_ns: int) -> None:
        """Note one lag. A peak counts at once and fades."""
        known = self.lag_ms(now_ns)
        self._lag_ms = max(min(lag_ms, MAX_LAG_MS), known + WEIGHT * (lag_ms - known))
        self._noted_ns = now_ns

    def lag_ms(self, now_ns: int) -> float:
        """What to expect now, in milliseconds."""
        return self._lag_ms * _remembered(now_ns - self._noted_ns)


def _remembered(age_ns: int) -> float:
    return math.exp(-max(age_ns, 0) / (FORGET_S * 1e9))
