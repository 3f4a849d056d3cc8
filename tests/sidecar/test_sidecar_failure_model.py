"""Failure matrix, before, during and after a batch: the model raises, or answers with a wrong shape or NaN. All others are answered."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sidecar_failing_models import FAILURES
from sidecar_rig import Rig, length_scores

from sidecar.errors import ScoringFailedError
from sidecar.scorer import TokenizedPrompt

MakeRig = Callable[..., Rig]


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
