"""Bugs of ours, and of others: a decision is an int64 or nothing, whatever comes in, and the request goes on."""

import asyncio
import logging

import pytest
from hook_rig import ARRIVAL_MS, NEUTRAL, NOW_MS, WINDOW_MS, decide
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vllm_client.errors import DeadlineError, RankerClientError
from vllm_client.hook.asked import Asked
from vllm_client.hook.decision import Decision, Outcome
from vllm_client.hook.link import Link
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings
from vllm_client.scores import PromptScore, ScoredBatch, ServerTiming, Tier


class StandIn(Link):
    """A link that does as a test says, connected from the start."""

    connected = True

    def __init__(self, answer) -> None:
        super().__init__(HookSettings())
        self.answer = answer

    def start(self) -> None:
        pass

    async def ask(self, texts, deadline_ms=None):
        return self.answer(texts)


class NewError(RankerClientError):
    """One that the table of causes does not know."""


def raises(error: Exception):
    def answer(texts):
        raise error

    return answer


@pytest.mark.parametrize("error", [ZeroDivisionError("my secret prompt"), NewError("my secret prompt")], ids=["bug", "unknown"])
async def test_a_bug_is_told_once_a_minute_and_the_request_goes_on(hooked, nobody, clock, caplog, error):
    hook = hooked(nobody, link=StandIn(raises(error)), breaker_failures=3)
    now = 1_800_000_000_000 + WINDOW_MS // 2  # Nothing of a request is trusted then, its arrival neither.
    decisions = [await decide(hook) for _ in range(4)]
    assert decisions == [Decision(now, Outcome.HOOK_FAULT)] * 3 + [Decision(NEUTRAL, Outcome.BREAKER_OPEN)]
    assert hook.counters.counts[Outcome.HOOK_FAULT] == 3
    clock.now_s += 60
    await decide(hook)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert type(error).__name__ in caplog.text
    assert "2 more" in caplog.records[1].getMessage()
    assert "in ask" in caplog.text  # Where.
    assert "secret" not in caplog.text


async def test_a_bug_in_shadow_mode_or_with_a_kept_priority_changes_nothing(hooked, nobody):
    shadow = hooked(nobody, link=StandIn(raises(ZeroDivisionError())), shadow=True)
    assert await decide(shadow) == Decision(None, Outcome.HOOK_FAULT)
    kept = hooked(nobody)
    kept.counters.count = raises(ZeroDivisionError())
    assert kept.neutral(Asked(client_priority=3), ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.HOOK_FAULT)


async def test_a_deadline_error_of_the_link_is_a_deadline(hooked, nobody):
    hook = hooked(nobody, link=StandIn(raises(DeadlineError("late"))))
    assert await decide(hook) == Decision(NEUTRAL, Outcome.DEADLINE)


ANY_INT = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.sampled_from([10**400, -(10**400)]))
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    policy=st.sampled_from(["ageing", "cost", "shortest", "equal"]),
    client=st.sampled_from(["keep", "combine", "override"]),
    asked=st.builds(
        Asked,
        texts=st.sampled_from([(), ("a",), ("a", "b", "c")]),
        prompt_chars=ANY_INT,
        max_tokens=st.none() | ANY_INT,
        samples=ANY_INT,
        client_priority=st.none() | ANY_INT | ANY_FLOAT,
        class_delay_ms=ANY_INT | ANY_FLOAT,
    ),
    arrival_ms=ANY_FLOAT | ANY_INT,
    scores=st.lists(
        st.builds(
            PromptScore,
            score=ANY_FLOAT,
            quantile=ANY_FLOAT,
            expected_tokens=ANY_FLOAT,
            expected_tokens_p90=ANY_FLOAT,
            prompt_tokens=ANY_INT,
            truncated=st.booleans(),
            tier=st.just(Tier.NGRAM),
        ),
        max_size=3,
    ),
)
def test_a_decision_is_an_int64_or_nothing_whatever_comes_in(policy, client, asked, arrival_ms, scores):
    # Types and scores included that nobody should let through: a float would hang the engine.
    if client == "combine" and policy in ("shortest", "equal"):
        client = "override"
    logging.getLogger("vllm_client").disabled = True
    batch = ScoredBatch(tuple(scores), "bundle", ServerTiming(0, 0, 0))
    settings = HookSettings(policy=policy, client_priority=client, gate_in_flight=0)
    hook = PriorityHook(settings, link=StandIn(lambda texts: batch), wall_ms=lambda: NOW_MS)
    try:
        decisions = [asyncio.run(hook.decide(asked, arrival_ms)), hook.neutral(asked, arrival_ms, Outcome.UNREADABLE)]
    finally:
        logging.getLogger("vllm_client").disabled = False
    for priority, outcome in decisions:
        assert isinstance(outcome, Outcome)
        if priority is None:
            assert asked.client_priority is not None
            assert client == "keep"
        else:
            assert type(priority) is int
            assert -(2**63) <= priority < 2**63
    assert sum(hook.counters.counts.values()) == 2
