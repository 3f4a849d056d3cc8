"""The engine on its good days: order, batching across workers, tiers, timing, recovery. Its bad days: test_sidecar_failure_*."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

import pytest
from sidecar_failing_models import raises_foreign_error
from sidecar_rig import HeldTokenizer, Rig, length_scores

from pars.v1 import ranker_pb2
from sidecar import runner as runner_module
from sidecar.errors import InvalidRequestError, OverloadedError, ScoringFailedError
from sidecar.lane import Lane
from sidecar.niceness import NICENESS

MakeRig = Callable[..., Rig]


async def test_a_lone_prompt_runs_at_once_and_alone(make_rig: MakeRig) -> None:
    rig = make_rig(max_batch_prompts=8)
    call = await rig.running(5)
    assert rig.scorer.batches == [[5]]
    rig.scorer.let_go()
    assert await rig.answer(call) == [5]
    await rig.assert_clean()


async def test_what_arrives_during_a_batch_forms_the_next_one(make_rig: MakeRig) -> None:
    rig = make_rig(max_batch_prompts=8)
    calls = [await rig.running(1), await rig.call(9), await rig.call(4, 7)]
    rig.scorer.run_free()
    assert [await rig.answer(call) for call in calls] == [[1], [9], [4, 7]]
    assert rig.scorer.batches == [[1], [4, 7, 9]]
    await rig.assert_clean()


async def test_scores_come_back_in_the_order_of_the_prompts(make_rig: MakeRig) -> None:
    rig = make_rig(max_batch_prompts=3, capacity=16, max_prompts_per_call=16)
    rig.scorer.run_free()
    lengths = [9, 2, 7, 7, 1, 8, 3, 3, 5]
    assert await rig.answer(await rig.call(*lengths)) == lengths
    await rig.assert_clean()


async def test_two_idle_workers_share_one_call(make_rig: MakeRig) -> None:
    rig = make_rig(workers=2, max_batch_prompts=32, capacity=32, max_prompts_per_call=32)
    call = await rig.call(*[5] * 32)
    await rig.scorer.started()
    await rig.scorer.started()
    assert rig.scorer.batches == [[5] * 16] * 2
    rig.scorer.run_free()
    assert await rig.answer(call) == [5] * 32
    await rig.assert_clean()


async def test_the_ngram_tier_answers_while_every_worker_is_busy(make_rig: MakeRig) -> None:
    rig = make_rig()
    busy = await rig.running(1)
    answer = await asyncio.wait_for(await rig.call(3, 4, tier=ranker_pb2.TIER_NGRAM), 10)
    assert answer.scores == [3, 4]
    assert answer.tier == ranker_pb2.TIER_NGRAM
    assert answer.queue_time_ns == 0
    assert not busy.done()
    rig.scorer.run_free()
    assert await rig.answer(busy) == [1]
    await rig.assert_clean()


async def test_a_large_ngram_call_leaves_the_event_loop_free(make_rig: MakeRig) -> None:
    rig = make_rig(capacity=64, max_prompts_per_call=64)
    threads: list[str] = []

    def note_thread(batch: object) -> object:
        threads.append(threading.current_thread().name)
        return length_scores(batch)  # type: ignore[arg-type]

    rig.ngram.outcome = note_thread  # type: ignore[assignment]
    await rig.answer(await rig.call(1, tier=ranker_pb2.TIER_NGRAM))
    await rig.answer(await rig.call(*[1] * 64, tier=ranker_pb2.TIER_NGRAM))
    assert threads[0] == threading.main_thread().name
    assert threads[1].startswith("ngram")
    await rig.assert_clean()


async def test_each_tier_has_permits_of_its_own(make_rig: MakeRig) -> None:
    tokenizer = HeldTokenizer()
    rig = make_rig(capacity=8, tokenizer=tokenizer)
    held = await rig.call(*[900] * 8, tier=ranker_pb2.TIER_NGRAM)  # more than the loop tokenizes itself
    await tokenizer.started()
    with pytest.raises(OverloadedError, match="8 prompts are waiting, 8 may"):
        await rig.answer(await rig.call(1, tier=ranker_pb2.TIER_NGRAM))
    tokenizer.let_go(2)
    rig.scorer.run_free()
    assert await rig.answer(await rig.call(1)) == [1]
    await rig.answer(held)
    await rig.assert_clean()


async def test_the_text_that_waits_is_bounded(make_rig: MakeRig) -> None:
    rig = make_rig(max_chars=1_000)
    waiting = [await rig.running(600), await rig.call(400)]
    with pytest.raises(OverloadedError, match="1000 characters are waiting, 1000 may"):
        await rig.answer(await rig.call(1))
    rig.scorer.run_free()
    assert [await rig.answer(call) for call in waiting] == [[600], [400]]
    await rig.assert_clean()


async def test_times_do_not_overlap_and_add_up(make_rig: MakeRig) -> None:
    rig = make_rig()
    first = await rig.running(1)
    second = await rig.call(2)
    rig.clock.advance(3)
    rig.scorer.let_go()
    await rig.scorer.started()
    rig.clock.advance(4)
    rig.scorer.let_go()
    one, two = await asyncio.wait_for(first, 10), await asyncio.wait_for(second, 10)
    assert (one.tokenize_time_ns, one.queue_time_ns, one.infer_time_ns) == (0, 0, 3_000_000_000)
    assert (two.tokenize_time_ns, two.queue_time_ns, two.infer_time_ns) == (0, 3_000_000_000, 4_000_000_000)
    await rig.assert_clean()


async def test_the_answer_is_calibrated_and_names_its_bundle(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.scorer.run_free()
    answer = await asyncio.wait_for(await rig.call(50, 0), 10)
    assert answer.bundle_id == "0123456789abcdef"
    assert answer.quantiles == [0.5, 0.0]
    assert answer.expected_tokens == [505.0, 10.0]
    assert answer.expected_tokens_p90 == [1510.0, 20.0]
    assert answer.prompt_tokens == [50, 0]
    await rig.assert_clean()


@pytest.mark.parametrize(
    ("lengths", "tier", "message"),
    [
        ([], 0, "no prompts"),
        ([1] * 9, 0, "has 9 prompts, at most 8"),
        ([1], 7, "tier 7 is unknown"),
        ([1], -1, "tier -1 is unknown"),
        ([1], ranker_pb2.TIER_NGRAM, "no n-gram scorer"),
    ],
    ids=["no prompts", "too many prompts", "a tier from the future", "a negative tier", "a tier the bundle has not"],
)
async def test_a_wrong_call_is_refused_before_it_costs_anything(
    make_rig: MakeRig, lengths: list[int], tier: int, message: str
) -> None:
    rig = make_rig(with_ngram=False)
    with pytest.raises(InvalidRequestError, match=message):
        await rig.answer(await rig.call(*lengths, tier=tier))
    assert rig.scorer.batches == []
    await rig.assert_clean()


async def test_a_red_model_recovers_by_itself_when_nobody_calls(make_rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    rig = make_rig(probe_s=0.01)
    rig.scorer.outcome = raises_foreign_error
    rig.scorer.run_free()
    with caplog.at_level(logging.CRITICAL), pytest.raises(ScoringFailedError):
        await rig.answer(await rig.call(7))
    assert rig.health == [False]
    rig.health_changed.clear()
    rig.scorer.outcome = length_scores
    await asyncio.wait_for(rig.health_changed.wait(), 10)
    assert rig.health == [False, True]
    await rig.assert_clean()


async def test_a_fault_of_the_policy_leaves_nobody_waiting(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> list[int]:
        raise IndexError

    monkeypatch.setattr(runner_module, "next_batch", broken)
    rig = make_rig(max_batch_prompts=8)
    rig.scorer.run_free()
    assert await rig.answer(await rig.call(1, 2)) == [1, 2]
    assert rig.scorer.batches == [[1], [2]]
    await rig.assert_clean()


async def test_a_failed_batch_is_logged_without_the_text_of_foreign_errors(
    make_rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig = make_rig()
    rig.scorer.outcome = raises_foreign_error
    rig.scorer.run_free()
    with pytest.raises(ScoringFailedError) as raised:
        await rig.answer(await rig.call(1))
    assert "ZeroDivisionError" in caplog.text
    assert "told to fail" not in caplog.text + str(raised.value)
    await rig.assert_clean()


async def test_the_backlog_of_text_is_bounded(make_rig: MakeRig) -> None:
    tokenizer = HeldTokenizer()
    rig = make_rig(tokenizer=tokenizer, lane=Lane("tokenizer", inline_chars=10, max_backlog_chars=100))
    rig.scorer.run_free()
    first = await rig.call(60)
    await tokenizer.started()
    with pytest.raises(OverloadedError):
        await rig.answer(await rig.call(50))
    fits = await rig.call(40)
    tokenizer.let_go(2)
    assert await rig.answer(first) == [60]
    assert await rig.answer(fits) == [40]
    await rig.assert_clean()


async def test_many_callers_with_random_batches_are_each_answered_with_their_own(make_rig: MakeRig) -> None:
    rig = make_rig(workers=2, capacity=1_000, max_batch_prompts=5)
    rig.scorer.run_free()
    calls = [await rig.call(*[(caller * 7 + n) % 50 for n in range(caller % 4 + 1)]) for caller in range(300)]
    for caller in range(0, 300, 13):
        calls[caller].cancel()
    for caller, call in enumerate(calls):
        if caller % 13:
            assert await rig.answer(call) == [(caller * 7 + n) % 50 for n in range(caller % 4 + 1)]
    await rig.assert_clean()


async def test_model_threads_work_where_nobody_may_change_priorities(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    rig = make_rig()
    rig.scorer.run_free()
    assert await rig.answer(await rig.call(1)) == [1]
    await rig.assert_clean()


async def test_model_threads_are_nicer_than_the_process(make_rig: MakeRig) -> None:
    rig = make_rig()
    await rig.running(1)
    (thread,) = rig.runner.threads
    assert thread.native_id is not None
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == min(own + NICENESS, 19)
    rig.scorer.run_free()


async def test_a_backlog_of_text_does_not_hold_up_the_ngram_scorer(make_rig: MakeRig) -> None:
    """Its work on many prompts leaves the event loop, and then must not queue behind what waits to be tokenized."""
    tokenizer = HeldTokenizer()
    rig = make_rig(tokenizer=tokenizer, tier_fallback=True, capacity=64, max_prompts_per_call=64)
    long = await rig.call(*[900] * 8)
    await tokenizer.started()
    # One for the long text and one for the short ones, which are tokenized on the loop: whichever comes first, neither is held.
    tokenizer.let_go(2)
    many = await rig.call(*[1] * 40, tier=ranker_pb2.TIER_NGRAM)
    await tokenizer.started()
    longer = await rig.call(*[901] * 8)
    await tokenizer.started()
    assert len(await rig.answer(many)) == 40, "answered while the next text is still held"
    tokenizer.let_go()
    rig.scorer.run_free()
    await rig.answer(long)
    await rig.answer(longer)
    await rig.assert_clean()
