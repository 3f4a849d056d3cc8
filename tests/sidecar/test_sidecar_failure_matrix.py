"""The failure matrix: what can go wrong × before, during and after the batch. In every cell all other callers are answered with
their own scores, and no permit, entry, future or task is left behind.

Batches hold one prompt unless a test says otherwise. "After" is the moment when the batch has ended and its caller has not been
told: the loop's thread is held until the worker has posted the outcome.
"""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sidecar_rig import HeldScorer, HeldTokenizer, Rig, length_scores

from pars.v1 import ranker_pb2
from sidecar.errors import DeadlineError, ModelError, NotServingError, OverloadedError, ScoringFailedError
from sidecar.scorer import TokenizedPrompt

MakeRig = Callable[..., Rig]


def raises_model_error(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    raise ModelError("told to fail")


def raises_foreign_error(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    raise ZeroDivisionError("told to fail")


def one_score_too_many(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.zeros(len(batch) + 1, dtype=np.float32)


def two_dimensional(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.zeros((len(batch), 1), dtype=np.float32)


def not_a_number(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.full(len(batch), np.nan, dtype=np.float32)


OLD, NEW = "0123456789abcdef", "fedcba9876543210"

FAILURES = [raises_model_error, raises_foreign_error, one_score_too_many, two_dimensional, not_a_number]


class TestCallerCancels:
    async def test_before_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        first = await rig.running(1)
        leaver = await rig.call(2)
        last = await rig.call(3)
        leaver.cancel()
        await asyncio.wait((leaver,))
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        assert await rig.answer(last) == [3]
        assert rig.scorer.batches == [[1], [3]]
        assert leaver.cancelled()
        await rig.assert_clean()

    async def test_during_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig(max_batch_prompts=8)
        first = await rig.running(1)
        leaver, stayer = await rig.call(2), await rig.call(3)
        rig.scorer.let_go()
        await rig.scorer.started()
        assert rig.scorer.batches[-1] == [2, 3]
        leaver.cancel()
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        assert await rig.answer(stayer) == [3]
        await rig.assert_clean()

    async def test_after_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        leaver = await rig.running(1)
        stayer = await rig.call(2)
        rig.scorer.run_free()
        rig.runner.hold_loop_until_posted()
        leaver.cancel()
        assert await rig.answer(stayer) == [2]
        await rig.assert_clean()
        assert leaver.cancelled()

    async def test_between_its_answer_and_its_waking(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        leaver = await rig.running(1)
        stayer = await rig.call(2)
        rig.scorer.run_free()
        rig.runner.hold_loop_until_posted()
        asyncio.get_running_loop().call_soon(leaver.cancel)  # runs after the delivery and before the caller wakes
        assert await rig.answer(stayer) == [2]
        await rig.assert_clean()

    async def test_with_some_of_its_prompts_scored(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        leaver = await rig.running(1, 2, 3)
        stayer = await rig.call(4)
        rig.scorer.let_go()
        await rig.scorer.started()
        leaver.cancel()
        await asyncio.wait((leaver,))
        rig.scorer.run_free()
        assert await rig.answer(stayer) == [4]
        assert rig.scorer.batches == [[1], [2], [4]]
        await rig.assert_clean()

    async def test_while_its_text_waits_for_the_tokenizer(self, make_rig: MakeRig) -> None:
        tokenizer = HeldTokenizer()
        rig = make_rig(tokenizer=tokenizer, capacity=24)
        rig.scorer.run_free()
        first = await rig.call(*[900] * 8)  # more than the loop tokenizes itself
        await tokenizer.started()
        leaver, last = await rig.call(*[901] * 8), await rig.call(*[902] * 8)
        leaver.cancel()
        await asyncio.wait((leaver,))
        tokenizer.let_go(2)
        assert await rig.answer(first) == [900] * 8
        assert await rig.answer(last) == [902] * 8
        assert tokenizer.texts == [900, 902]
        await rig.assert_clean()


class TestDeadlinePasses:
    async def test_on_arrival(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        with pytest.raises(DeadlineError):
            await rig.answer(await rig.call(1, timeout_s=0.0))
        assert rig.scorer.batches == []
        await rig.assert_clean()

    async def test_before_its_batch_is_formed(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        first = await rig.running(1)
        late = await rig.call(2, 3, timeout_s=100)
        patient = await rig.call(4, timeout_s=300)
        rig.clock.advance(200)
        rig.scorer.run_free()
        with pytest.raises(DeadlineError):
            await rig.answer(late)
        assert await rig.answer(first) == [1]
        assert await rig.answer(patient) == [4]
        assert rig.scorer.batches == [[1], [4]]
        await rig.assert_clean()

    async def test_while_no_worker_becomes_free(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        first = await rig.running(1)
        with pytest.raises(DeadlineError):
            await rig.answer(await rig.call(2, timeout_s=0.02))
        assert rig.runner.waiting_prompts == 0
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        await rig.assert_clean()

    async def test_during_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        late = await rig.running(1, timeout_s=0.02)
        other = await rig.call(2)
        with pytest.raises(DeadlineError):
            await rig.answer(late)
        rig.scorer.run_free()
        assert await rig.answer(other) == [2]
        await rig.assert_clean()

    async def test_after_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        call = await rig.running(1, timeout_s=100)
        other = await rig.call(2)
        rig.scorer.run_free()
        rig.runner.hold_loop_until_posted()
        rig.clock.advance(200)
        assert await rig.answer(call) == [1]  # it is there, so it is given
        assert await rig.answer(other) == [2]
        await rig.assert_clean()

    async def test_of_everybody_in_a_full_window(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=400, max_prompts_per_call=300)
        first = await rig.running(1)
        late = await rig.call(*range(2, 202), timeout_s=100)  # more prompts than the window of 128
        patient = await rig.call(250)
        rig.clock.advance(200)
        rig.scorer.run_free()
        with pytest.raises(DeadlineError):
            await rig.answer(late)
        assert await rig.answer(first) == [1]
        assert await rig.answer(patient) == [250]
        assert rig.scorer.batches == [[1], [250]]
        await rig.assert_clean()


@pytest.mark.parametrize("failure", FAILURES)
class TestModelFails:
    async def test_on_the_batch_before(
        self, make_rig: MakeRig, failure: Callable[[Sequence[TokenizedPrompt]], np.ndarray]
    ) -> None:
        rig = make_rig()
        rig.scorer.outcome = failure
        unlucky = await rig.running(1)
        rig.scorer.outcome = length_scores
        lucky = await rig.call(2)
        rig.scorer.run_free()
        with pytest.raises(ScoringFailedError):
            await rig.answer(unlucky)
        assert await rig.answer(lucky) == [2]
        assert rig.health == [False, True]
        await rig.assert_clean()

    async def test_on_a_batch_of_several_callers(
        self, make_rig: MakeRig, failure: Callable[[Sequence[TokenizedPrompt]], np.ndarray]
    ) -> None:
        rig = make_rig(max_batch_prompts=2)
        first = await rig.running(1)
        rig.scorer.outcome = failure
        unlucky = [await rig.call(2), await rig.call(3)]
        lucky = await rig.call(40)
        rig.scorer.let_go()
        await rig.scorer.started()
        rig.scorer.outcome = length_scores
        rig.scorer.run_free()
        for call in unlucky:
            with pytest.raises(ScoringFailedError):
                await rig.answer(call)
        assert await rig.answer(first) == [1]
        assert await rig.answer(lucky) == [40]
        await rig.assert_clean()

    async def test_on_the_last_part_of_a_call(
        self, make_rig: MakeRig, failure: Callable[[Sequence[TokenizedPrompt]], np.ndarray]
    ) -> None:
        rig = make_rig()
        unlucky = await rig.running(1, 2, 3)
        rig.scorer.outcome = failure
        lucky = await rig.call(4)
        rig.scorer.let_go()
        await rig.scorer.started()
        rig.scorer.outcome = length_scores
        rig.scorer.let_go()
        with pytest.raises(ScoringFailedError):  # whole or not at all, and at once
            await rig.answer(unlucky)
        rig.scorer.run_free()
        assert await rig.answer(lucky) == [4]
        await rig.assert_clean()


class TestOverload:
    async def test_exactly_the_surplus_is_refused(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=5)
        calls = [await rig.call(length) for length in range(1, 9)]
        refused = [call for call in calls if call.done()]
        assert refused == calls[5:]
        for call in refused:
            with pytest.raises(OverloadedError):
                await rig.answer(call)
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in calls[:5]] == [[1], [2], [3], [4], [5]]
        await rig.assert_clean()

    async def test_a_call_is_admitted_whole_or_not_at_all(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=5)
        first = await rig.running(1, 2, 3)
        with pytest.raises(OverloadedError):
            await rig.answer(await rig.call(4, 5, 6))
        fits = await rig.call(7, 8)
        rig.scorer.run_free()
        assert await rig.answer(first) == [1, 2, 3]
        assert await rig.answer(fits) == [7, 8]
        await rig.assert_clean()

    async def test_during_a_batch_its_prompts_still_count(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=1)
        first = await rig.running(1)
        with pytest.raises(OverloadedError):
            await rig.answer(await rig.call(2))
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        await rig.assert_clean()

    async def test_after_a_batch_there_is_room_again(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=1)
        rig.scorer.run_free()
        for length in (1, 2, 3):
            assert await rig.answer(await rig.call(length)) == [length]
        await rig.assert_clean()

    async def test_of_a_leaver_there_is_room_at_once(self, make_rig: MakeRig) -> None:
        rig = make_rig(capacity=2)
        first = await rig.running(1)
        leaver = await rig.call(2)
        leaver.cancel()
        await asyncio.sleep(0)
        successor = await rig.call(3)
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        assert await rig.answer(successor) == [3]
        await rig.assert_clean()


class TestShutdown:
    async def test_drain_refuses_new_calls_and_finishes_admitted_ones(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        admitted = [await rig.running(1), await rig.call(2)]
        drain = asyncio.ensure_future(rig.engine.drain())
        await asyncio.sleep(0)
        with pytest.raises(NotServingError):
            await rig.answer(await rig.call(3))
        assert not drain.done()
        rig.scorer.run_free()
        await asyncio.wait_for(drain, 10)
        assert [await rig.answer(call) for call in admitted] == [[1], [2]]
        await rig.engine.close()
        await rig.assert_clean()

    async def test_close_before_and_during_a_batch_answers_at_once(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        during, before = await rig.running(1), await rig.call(2)
        close = asyncio.ensure_future(rig.engine.close())
        for call in (during, before):
            with pytest.raises(NotServingError):  # the batch is still held: nobody waits for it
                await rig.answer(call)
        assert not close.done()
        rig.scorer.run_free()
        await asyncio.wait_for(close, 10)
        assert rig.scorer.batches == [[1]]
        await rig.assert_clean()

    async def test_close_after_a_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        call = await rig.running(1)
        rig.scorer.run_free()
        rig.runner.hold_loop_until_posted()
        await rig.engine.close()
        with pytest.raises(NotServingError):
            await rig.answer(call)
        await rig.assert_clean()

    async def test_a_call_after_close_is_refused(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        await rig.engine.close()
        with pytest.raises(NotServingError):
            await rig.answer(await rig.call(1))
        await rig.assert_clean()

    async def test_close_while_text_for_the_ngram_scorer_is_tokenized(self, make_rig: MakeRig) -> None:
        tokenizer = HeldTokenizer()
        rig = make_rig(tokenizer=tokenizer, capacity=64, max_prompts_per_call=64)
        call = await rig.call(*[200] * 40, tier=ranker_pb2.TIER_NGRAM)  # too much for the loop in both steps
        await tokenizer.started()
        await rig.engine.close()
        tokenizer.let_go()
        with pytest.raises(NotServingError):
            await rig.answer(call)
        await rig.assert_clean()

    async def test_close_while_text_is_tokenized_and_more_waits_for_that(self, make_rig: MakeRig) -> None:
        tokenizer = HeldTokenizer()
        rig = make_rig(tokenizer=tokenizer, capacity=16)
        calls = [await rig.call(*[900] * 8), await rig.call(*[901] * 8)]  # more than the loop tokenizes itself
        await tokenizer.started()
        await rig.engine.close()
        tokenizer.let_go()
        for call in calls:
            with pytest.raises(NotServingError):
                await rig.answer(call)
        await rig.assert_clean()


class TestHotSwap:
    """The bundle is replaced: calls that began with the old one end with it, later ones begin with the new one."""

    @staticmethod
    def swap(rig: Rig) -> HeldScorer:
        scorer = HeldScorer()
        scorer.outcome = lambda batch: length_scores(batch) + 1_000
        rig.rankers.replace(rig.make_live(scorer, bundle_id=NEW))
        return scorer

    async def test_before_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        running, waiting = await rig.running(1), await rig.call(2)
        fresh = self.swap(rig)
        after = await rig.running_on(fresh, 3)
        fresh.run_free()
        assert await rig.answer(after) == [1_003]
        assert not waiting.done()
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in (running, waiting)] == [[1], [2]]
        assert [call.result().bundle_id for call in (running, waiting, after)] == [OLD, OLD, NEW]
        await rig.assert_clean()

    async def test_during_its_batch_with_the_other_half_still_waiting(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        halved = await rig.running(1, 2)
        fresh = self.swap(rig)
        fresh.run_free()
        rig.scorer.run_free()
        answer = await asyncio.wait_for(halved, 10)
        assert (answer.scores, answer.bundle_id) == ([1, 2], OLD)
        await rig.assert_clean()

    async def test_after_its_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        call = await rig.running(1)
        rig.scorer.run_free()
        rig.runner.hold_loop_until_posted()
        self.swap(rig).run_free()
        answer = await asyncio.wait_for(call, 10)
        assert (answer.scores, answer.bundle_id) == ([1], OLD)
        await rig.assert_clean()

    async def test_while_its_text_is_tokenized(self, make_rig: MakeRig) -> None:
        tokenizer = HeldTokenizer()
        rig = make_rig(tokenizer=tokenizer, capacity=16)
        call = await rig.call(*[900] * 8)
        await tokenizer.started()
        self.swap(rig).run_free()
        rig.scorer.run_free()
        tokenizer.let_go()
        assert (await asyncio.wait_for(call, 10)).bundle_id == OLD
        await rig.assert_clean()

    async def test_the_old_one_is_unused_only_after_its_last_call(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        old = rig.rankers.get("")
        calls = [await rig.running(1), await rig.call(2)]
        self.swap(rig).run_free()
        unused = asyncio.ensure_future(old.unused())
        rig.scorer.let_go()
        assert await rig.answer(calls[0]) == [1]
        assert not unused.done()
        rig.scorer.run_free()
        assert await rig.answer(calls[1]) == [2]
        await asyncio.wait_for(unused, 10)
        await rig.assert_clean()

    async def test_a_failing_new_one_fails_its_own_calls_alone(self, make_rig: MakeRig) -> None:
        rig = make_rig()
        running = await rig.running(1)
        fresh = self.swap(rig)
        fresh.outcome = raises_model_error
        fresh.run_free()
        with pytest.raises(ScoringFailedError):
            await rig.answer(await rig.call(2))
        rig.scorer.run_free()
        assert await rig.answer(running) == [1]
        await rig.assert_clean()
