"""Failure matrix, before, during and after a batch: more prompts come than there are permits. All others are answered."""

import asyncio
from collections.abc import Callable

import pytest
from sidecar_rig import Rig

from sidecar.errors import OverloadedError

MakeRig = Callable[..., Rig]


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
