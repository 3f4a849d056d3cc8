"""Failure matrix, before, during and after a batch: a caller leaves or its deadline passes. All others are answered."""

import asyncio
from collections.abc import Callable

import pytest
from sidecar_rig import HeldTokenizer, Rig

from sidecar.errors import DeadlineError

MakeRig = Callable[..., Rig]


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
