"""No answer after its deadline: what the encoder cannot do in time is answered by the n-gram scorer at once, or refused at once.

The rig's clock stands still unless moved, so that "at once" means: before any batch was let go and without time passing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sidecar_rig import WAIT_S, HeldTokenizer, Rig, length_scores

from pars.v1 import ranker_pb2
from sidecar.batching import CostModel
from sidecar.errors import DeadlineError, OverloadedError, ScoringFailedError
from sidecar.scorer import TokenizedPrompt

MakeRig = Callable[..., Rig]

SLOW = CostModel(fixed_ms=100.0, per_token_ms=1e-9)
"""A batch takes 100 ms, whatever is in it."""

STEP_S = 0.005


def slow_scores(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    time.sleep(STEP_S)
    return length_scores(batch)


ENCODER, NGRAM = ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM


async def tier_of(call: asyncio.Task) -> int:
    return (await asyncio.wait_for(call, WAIT_S)).tier


class TestAtAdmission:
    async def test_work_that_cannot_be_done_in_time_goes_to_the_ngram_scorer(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, cost=SLOW)
        assert await tier_of(await rig.call(1, timeout_s=0.099)) == NGRAM
        assert rig.scorer.batches == []
        assert rig.observer.scored_as == [("ngram", "no_time")]
        await rig.assert_clean()

    async def test_work_that_can_goes_to_the_encoder(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, cost=SLOW)
        call = await rig.running(1, timeout_s=WAIT_S)
        rig.scorer.run_free()
        assert await tier_of(call) == ENCODER
        assert rig.observer.scored_as == [("encoder", "encoder")]
        await rig.assert_clean()

    async def test_the_reserve_is_kept(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, cost=SLOW, reserve_ms=200.0)
        assert await tier_of(await rig.call(1, timeout_s=0.299)) == NGRAM
        await rig.assert_clean()

    async def test_a_queue_that_is_too_long_goes_to_the_ngram_scorer(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, cost=SLOW)
        before = [await rig.running(1), await rig.call(2), await rig.call(3)]
        assert await tier_of(await rig.call(4, timeout_s=0.350)) == NGRAM  # 100 ms each: it would be done after 400
        assert not any(call.done() for call in before)
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in before] == [[1], [2], [3]]
        await rig.assert_clean()

    async def test_a_call_without_permits_goes_to_the_ngram_scorer(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, capacity=1)
        busy = await rig.running(1)
        assert await tier_of(await rig.call(2)) == NGRAM
        assert rig.observer.scored_as == [("ngram", "overload")]
        rig.scorer.run_free()
        assert await rig.answer(busy) == [1]
        await rig.assert_clean()

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({"tier_fallback": False}, id="the settings forbid the change of tier"),
            pytest.param({"tier_fallback": True, "tier": ENCODER}, id="the call insists on the encoder"),
            pytest.param({"tier_fallback": True, "with_ngram": False}, id="the bundle has no n-gram scorer"),
        ],
    )
    async def test_without_another_tier_it_is_refused_at_once(self, make_rig: MakeRig, options: dict) -> None:
        tier = options.pop("tier", 0)
        rig = make_rig(cost=SLOW, capacity=2, **options)
        with pytest.raises(DeadlineError, match="not enough"):
            await rig.answer(await rig.call(1, timeout_s=0.099, tier=tier))
        before = [await rig.running(1)]
        with pytest.raises(OverloadedError, match="within the deadline"):
            await rig.answer(await rig.call(2, timeout_s=0.150, tier=tier))
        before.append(await rig.call(3))
        with pytest.raises(OverloadedError, match="2 may"):
            await rig.answer(await rig.call(4, tier=tier))
        assert not any(call.done() for call in before)
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in before] == [[1], [3]]
        await rig.assert_clean()

    async def test_text_that_is_not_tokenized_in_time_is_refused(self, make_rig: MakeRig) -> None:
        tokenizer = HeldTokenizer()
        rig = make_rig(tier_fallback=True, tokenizer=tokenizer, capacity=16)
        first = await rig.call(*[900] * 8)
        await tokenizer.started()
        with pytest.raises(DeadlineError):
            await rig.answer(await rig.call(*[901] * 8, timeout_s=0.05))
        tokenizer.let_go()
        rig.scorer.run_free()
        await rig.answer(first)
        await rig.assert_clean()


class TestInTheQueue:
    async def test_the_last_moment_in_the_queue(self, make_rig: MakeRig) -> None:
        """The batch before it takes longer than thought: the waiting call is answered while that still runs."""
        rig = make_rig(tier_fallback=True, reserve_ms=20.0)
        first = await rig.running(1)
        assert await tier_of(await rig.call(2, timeout_s=0.1)) == NGRAM
        assert not first.done()
        assert rig.observer.scored_as == [("ngram", "late")]
        rig.scorer.run_free()
        assert await rig.answer(first) == [1]
        assert rig.scorer.batches == [[1]], "nothing is run that nobody waits for"
        await rig.assert_clean()

    async def test_the_last_moment_during_its_own_batch(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, reserve_ms=20.0)
        assert await tier_of(await rig.running(1, timeout_s=0.1)) == NGRAM
        rig.scorer.run_free()
        await rig.assert_clean()

    async def test_half_of_a_call_is_not_an_answer(self, make_rig: MakeRig) -> None:
        rig = make_rig(tier_fallback=True, reserve_ms=20.0)
        call = await rig.running(1, 2, timeout_s=0.1)
        rig.scorer.let_go()
        await rig.scorer.started()
        answer = await asyncio.wait_for(call, WAIT_S)
        assert (answer.tier, answer.scores) == (NGRAM, [1, 2])
        await rig.assert_clean()

    @pytest.mark.parametrize("tier_fallback", [True, False], ids=["with the n-gram scorer", "without another tier"])
    async def test_before_a_batch_is_formed(self, make_rig: MakeRig, tier_fallback: bool) -> None:
        """Time has passed when the worker is free again: what cannot be done any more is not begun, and its caller hears at once."""
        rig = make_rig(tier_fallback=tier_fallback, cost=SLOW)
        first, waiting, patient = await rig.running(1), await rig.call(2, timeout_s=20.0), await rig.call(3)
        rig.clock.advance(19.95)
        rig.scorer.let_go()
        if tier_fallback:
            assert await tier_of(waiting) == NGRAM
        else:
            with pytest.raises(DeadlineError):
                await rig.answer(waiting)
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in (first, patient)] == [[1], [3]]
        assert rig.scorer.batches == [[1], [3]]
        await rig.assert_clean()

    async def test_a_batch_is_made_small_enough_for_the_oldest(self, make_rig: MakeRig) -> None:
        cost = CostModel(fixed_ms=50.0, per_token_ms=1.0)
        rig = make_rig(tier_fallback=True, cost=cost, max_batch_prompts=8)
        first = await rig.running(1)
        oldest, *others = [await rig.call(20, timeout_s=20.0), await rig.call(20), await rig.call(20)]
        rig.clock.advance(19.9)  # 100 ms are left: enough for two of them, not for three
        rig.scorer.let_go()
        await rig.scorer.started()
        assert rig.scorer.batches == [[1], [20, 20]]
        rig.scorer.run_free()
        assert [await rig.answer(call) for call in (first, oldest, *others)] == [[1], [20], [20], [20]]
        await rig.assert_clean()


async def test_a_call_without_a_deadline_has_the_longest(make_rig: MakeRig) -> None:
    rig = make_rig(tier_fallback=True, cost=SLOW, max_wait_s=0.099)
    assert await tier_of(await rig.call(1)) == NGRAM
    assert await tier_of(await rig.call(1, timeout_s=1_000.0)) == NGRAM
    await rig.assert_clean()


async def test_a_failed_model_is_an_error_not_another_tier(make_rig: MakeRig) -> None:
    """A broken encoder must be seen: health turns red and callers hear of it."""
    rig = make_rig(tier_fallback=True)

    def broken(batch: object) -> object:
        raise ZeroDivisionError

    rig.scorer.outcome = broken
    rig.scorer.run_free()
    with pytest.raises(ScoringFailedError):
        await rig.answer(await rig.call(1, timeout_s=WAIT_S))
    assert rig.health == [False]
    await rig.assert_clean()


async def test_many_callers_with_random_deadlines_are_all_answered_by_some_tier(make_rig: MakeRig) -> None:
    rig = make_rig(tier_fallback=True, capacity=500, workers=2, max_batch_prompts=4, reserve_ms=5.0)
    rig.scorer.outcome = slow_scores
    rig.scorer.run_free()
    calls = [await rig.call(n % 7 + 1, timeout_s=0.05 + 0.01 * (n % 20)) for n in range(300)]
    answers = [await asyncio.wait_for(call, WAIT_S) for call in calls]
    assert [answer.scores for answer in answers] == [[n % 7 + 1] for n in range(300)]
    assert {answer.tier for answer in answers} == {ENCODER, NGRAM}
    await rig.assert_clean()
