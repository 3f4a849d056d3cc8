"""Failure matrix, before, during and after a batch: the engine is drained or closed. All others are answered."""

import asyncio
from collections.abc import Callable

import pytest
from sidecar_rig import HeldTokenizer, Rig

from pars.v1 import ranker_pb2
from sidecar.errors import NotServingError

MakeRig = Callable[..., Rig]


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
