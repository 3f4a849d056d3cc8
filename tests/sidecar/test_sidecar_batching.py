"""The batching policy on plain lists: against brute force, and the promises that hold for any input."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.batching import BatchLimits, CostModel, next_batch

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=9)
MANY_LENGTHS = st.lists(st.integers(1, 128), min_size=1, max_size=128)
COSTS = st.builds(CostModel, st.floats(0.01, 10), st.floats(1e-6, 1))
LIMITS = st.builds(BatchLimits, st.integers(1, 12), st.integers(128, 512))


def splits(count: int) -> list[list[int]]:
    """All ways to cut `count` things in a row into parts, as part sizes."""
    if count == 0:
        return [[]]
    return [[first, *rest] for first in range(1, count + 1) for rest in splits(count - first)]


def cheapest(ascending: list[int], cost: CostModel, limits: BatchLimits) -> float:
    """Least run time over all allowed splits of sorted lengths."""
    best = float("inf")
    for sizes in splits(len(ascending)):
        end, total = 0, 0.0
        for size in sizes:
            end += size
            longest = ascending[end - 1]
            allowed = size <= limits.max_prompts and size * longest <= limits.max_tokens
            total += cost.run_ms(size, longest) if allowed else float("inf")
        best = min(best, total)
    return best


def drained(lengths: list[int], cost: CostModel, limits: BatchLimits) -> list[list[int]]:
    """Batches until nothing waits, as one worker would run them, as positions in `lengths`."""
    waiting = list(range(len(lengths)))
    batches = []
    while waiting:
        chosen = [waiting[n] for n in next_batch([lengths[position] for position in waiting], cost, limits)]
        batches.append(chosen)
        waiting = [position for position in waiting if position not in chosen]
    return batches


@given(LENGTHS, COSTS, LIMITS)
@settings(max_examples=150, deadline=None)
def test_draining_a_window_costs_what_the_best_split_costs(lengths: list[int], cost: CostModel, limits: BatchLimits) -> None:
    total = sum(cost.run_ms(len(batch), max(lengths[n] for n in batch)) for batch in drained(lengths, cost, limits))
    assert total == pytest.approx(cheapest(sorted(lengths), cost, limits), rel=1e-9)


@given(MANY_LENGTHS, COSTS, LIMITS, st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_a_batch_holds_the_oldest_and_keeps_within_its_limits(
    lengths: list[int], cost: CostModel, limits: BatchLimits, free_workers: int
) -> None:
    batch = next_batch(lengths, cost, limits, free_workers)
    assert 0 in batch
    assert len(set(batch)) == len(batch)
    assert len(batch) <= limits.max_prompts
    assert len(batch) * max(lengths[n] for n in batch) <= limits.max_tokens
    assert [lengths[n] for n in batch] == sorted(lengths[n] for n in batch)
    assert len(batch) <= -(-len(lengths) // free_workers)


@given(MANY_LENGTHS, COSTS, LIMITS)
@settings(max_examples=50, deadline=None)
def test_every_prompt_is_served_exactly_once(lengths: list[int], cost: CostModel, limits: BatchLimits) -> None:
    served = [position for batch in drained(lengths, cost, limits) for position in batch]
    assert sorted(served) == list(range(len(lengths)))


def test_the_oldest_runs_next_even_when_it_is_the_odd_one_out() -> None:
    assert next_batch([128, 8, 8, 8, 8], CostModel(2.5, 0.21), BatchLimits(64, 8192)) == [0]


def test_short_and_long_prompts_part_when_padding_would_cost_more_than_a_run() -> None:
    assert sorted(next_batch([8, 128, 8, 128], CostModel(2.5, 0.21), BatchLimits(64, 8192))) == [0, 2]


def test_all_run_together_when_a_run_costs_more_than_padding() -> None:
    assert sorted(next_batch([8, 128, 8, 128], CostModel(500.0, 0.21), BatchLimits(64, 8192))) == [0, 1, 2, 3]


def test_two_free_workers_get_half_of_equal_prompts_each() -> None:
    cost, limits = CostModel(2.5, 0.21), BatchLimits(64, 8192)
    first = next_batch([16] * 32, cost, limits, free_workers=2)
    rest = [n for n in range(32) if n not in first]
    second = next_batch([16] * len(rest), cost, limits, free_workers=1)
    assert len(first) == 16
    assert len(second) == 16


@given(MANY_LENGTHS, COSTS, LIMITS, st.data())
@settings(max_examples=150, deadline=None)
def test_a_batch_is_in_time_for_all_of_its_prompts(
    lengths: list[int], cost: CostModel, limits: BatchLimits, data: st.DataObject
) -> None:
    slack = st.one_of(st.floats(0.0, 1_000.0), st.just(float("inf")))
    left = [cost.run_ms(1, length) + data.draw(slack) for length in lengths]
    batch = next_batch(lengths, cost, limits, 1, left)
    assert 0 in batch
    assert [lengths[n] for n in batch] == sorted(lengths[n] for n in batch)
    assert cost.run_ms(len(batch), max(lengths[n] for n in batch)) <= min(left[n] for n in batch) + 1e-9
    if all(math.isinf(time_left) for time_left in left):
        assert batch == next_batch(lengths, cost, limits)


def test_a_short_deadline_makes_the_batch_small_and_keeps_the_oldest() -> None:
    cost, limits = CostModel(10.0, 0.1), BatchLimits(100, 10_000)
    lengths = [10, 10, 12, 14]
    assert next_batch(lengths, cost, limits, 1, [100.0] * 4) == [0, 1, 2, 3]
    assert next_batch(lengths, cost, limits, 1, [12.5] * 4) == [0, 1]
    assert next_batch([14, 10, 10, 12], cost, limits, 1, [13.0] * 4) == [3, 0]


def test_more_free_workers_than_prompts_is_fine() -> None:
    assert next_batch([5, 6], CostModel(1, 1), BatchLimits(8, 64), free_workers=9) == [0]


def test_among_equal_prompts_the_older_ones_go_first() -> None:
    assert next_batch([7] * 6, CostModel(1, 1), BatchLimits(2, 64)) == [0, 1]


def test_a_prompt_that_fits_no_batch_is_called_a_bug() -> None:
    with pytest.raises(AssertionError, match="bug in ours"):
        next_batch([65], CostModel(1, 1), BatchLimits(8, 64))
