"""Which prompts run together. Pure: lengths in, positions out; no clock, no thread, nothing of ours imported.

On a CPU, padding decides: batches of random prompts are slower than no batching at all. So the waiting prompts are sorted by
length and split where a model of the run time says that the whole window gets done soonest, and of these parts the one that
holds the oldest prompt runs next. Nobody starves: every batch serves the oldest prompt there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class CostModel:
    """Run time of a batch in milliseconds: fixed_ms + per_token_ms x prompts x longest prompt. Both greater than zero."""

    fixed_ms: float
    per_token_ms: float

    def run_ms(self, prompts: int, longest_tokens: int) -> float:
        return self.fixed_ms + self.per_token_ms * prompts * longest_tokens


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one batch, both at least 1.

    max_prompts: rows. max_tokens: rows times the longest prompt, that is, after padding; it bounds the memory of a run.
    """

    max_prompts: int
    max_tokens: int


def next_batch(
    lengths: Sequence[int],
    cost: CostModel,
    limits: BatchLimits,
    free_workers: int = 1,
    time_left_ms: Sequence[float] | None = None,
) -> list[int]:
    """Choose the next batch from the waiting prompts.

    lengths: tokens of each waiting prompt, oldest first, at least one; each at least 1 and at most limits.max_tokens.
    free_workers: workers with nothing to do, the asking one included. With several, no part takes more than its share of the
    prompts: two half batches side by side are done sooner than one whole batch beside an idle core.
    time_left_ms: how long each prompt may still take, on the cost model's scale, each enough for a batch of its own; inf or no list
    where nobody waits for it. A batch is made small enough to be in time for all of its prompts.

    Returns positions in `lengths`, shortest prompt first. Position 0, the oldest, is always among them.
    Time: O(n^2) in array operations, about 0.3 ms for 128 prompts.
    """
    assert max(lengths) <= limits.max_tokens, "bug in ours: a prompt is longer than a whole batch may be"
    if len(lengths) == 1:
        return [0]
    max_prompts = min(limits.max_prompts, -(-len(lengths) // max(free_workers, 1)))
    # Stable, so that among equals the older ones come first and end up in the same part as the oldest.
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    oldest = order.index(0)
    starts = _split([lengths[position] for position in order], cost, max_prompts, limits.max_tokens)
    end = len(order)
    while starts[end] > oldest:
        end = starts[end]
    start = starts[end]
    if time_left_ms is not None:
        has_ms = min(time_left_ms[position] for position in order[start:end])
        while end - start > 1 and cost.run_ms(end - start, lengths[order[end - 1]]) > has_ms:
            # First what makes the oldest one wait for padding, then what only makes the batch larger.
            if end - 1 > oldest:
                end -= 1
            else:
                start += 1
    return order[start:end]


def _split(ascending: list[int], cost: CostModel, max_prompts: int, max_tokens: int) -> list[int]:
    """Split ascending lengths into consecutive parts of least total run time.

    Returns starts: the best split of the first n prompts ends with the part from starts[n] up to n. starts[0] is unused.
    Dynamic programming over the end of the last part; the inner minimum over its start is one array operation.
    """
    count = len(ascending)
    positions = np.arange(count, dtype=np.float64)
    # The run time of part [start, end) is fixed + slope * (end - start) with slope = per_token * ascending[end - 1]; what
    # depends on its start is best[start] - slope * start.
    best = np.zeros(count + 1)
    candidates = np.empty(count)
    starts = [0] * (count + 1)
    for end in range(1, count + 1):
        longest = ascending[end - 1]
        first = max(end - max_prompts, end - max_tokens // longest, 0)
        slope = cost.per_token_ms * longest
        window = candidates[first:end]
        np.multiply(positions[first:end], -slope, out=window)
        window += best[first:end]
        start = first + int(window.argmin())
        starts[end] = start
        best[end] = candidates[start] + cost.fixed_ms + slope * end
    return starts
