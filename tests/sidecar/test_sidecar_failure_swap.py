"""Failure matrix, before, during and after a batch: the bundle is replaced. All others are answered."""

import asyncio
from collections.abc import Callable

import pytest
from sidecar_failing_models import raises_model_error
from sidecar_rig import HeldScorer, HeldTokenizer, Rig, length_scores

from sidecar.errors import ScoringFailedError

MakeRig = Callable[..., Rig]

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


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
