"""Answers that are no score: each a cause of its own and the neutral priority, and the breaker opens on the sidecar's failures alone."""

import asyncio

import grpc
import pytest
from hook_rig import NEUTRAL, SCORED, assert_nothing_left, decide, nonsense
from scripted_ranker import item_error, item_reply

from vllm_client.hook.decision import Decision, Outcome


def wrong_count(item):
    reply = item_reply(item)
    reply.response.scores.add().CopyFrom(reply.response.scores[0])
    return reply


def status(code: grpc.StatusCode):
    return lambda item: item_error(item, code, "as the script says")


def only_the_id(item):
    reply = item_reply(item)
    reply.ClearField("response")
    return reply


GARBAGE = [
    pytest.param(nonsense("score", float("nan")), Outcome.BAD_REPLY, id="score NaN"),
    pytest.param(nonsense("quantile", float("nan")), Outcome.BAD_REPLY, id="quantile NaN"),
    pytest.param(nonsense("quantile", 2.0), Outcome.BAD_REPLY, id="quantile 2"),
    pytest.param(nonsense("quantile", -0.01), Outcome.BAD_REPLY, id="quantile below 0"),
    pytest.param(nonsense("expected_tokens", float("inf")), Outcome.BAD_REPLY, id="infinite length"),
    pytest.param(wrong_count, Outcome.BAD_REPLY, id="one score too many"),
    pytest.param(only_the_id, Outcome.BAD_REPLY, id="neither response nor error"),
    pytest.param(status(grpc.StatusCode.INVALID_ARGUMENT), Outcome.REFUSED, id="refused"),
    pytest.param(status(grpc.StatusCode.RESOURCE_EXHAUSTED), Outcome.OVERLOADED, id="overloaded"),
    pytest.param(status(grpc.StatusCode.UNAVAILABLE), Outcome.UNAVAILABLE, id="draining"),
    pytest.param(status(grpc.StatusCode.DEADLINE_EXCEEDED), Outcome.DEADLINE, id="the server's deadline"),
    pytest.param(status(grpc.StatusCode.INTERNAL), Outcome.SERVER_FAULT, id="server fault"),
]


@pytest.mark.parametrize(("answer", "outcome"), GARBAGE)
async def test_whatever_is_no_score_is_a_cause_and_the_neutral_priority(connected, ranker, answer, outcome):
    hook = await connected()
    ranker.answer_item = answer
    assert await decide(hook) == Decision(NEUTRAL, outcome)
    assert {name for name, count in hook.counters.counts.items() if count} == {outcome}
    assert_nothing_left(hook)
    ranker.answer_item = item_reply
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


@pytest.mark.parametrize(("answer", "outcome"), GARBAGE)
async def test_the_breaker_opens_on_the_sidecars_failures_alone(connected, ranker, clock, answer, outcome):
    hook = await connected(breaker_failures=2, breaker_open_ms=1000)
    ranker.answer_item = answer
    outcomes = [(await decide(hook)).outcome for _ in range(3)]
    if outcome is Outcome.REFUSED:
        assert outcomes == [outcome] * 3
        return
    assert outcomes == [outcome, outcome, Outcome.BREAKER_OPEN]
    clock.now_s += 1
    assert [(await decide(hook)).outcome for _ in range(2)] == [outcome, Outcome.BREAKER_OPEN]
    ranker.answer_item = item_reply
    clock.now_s += 1
    assert [(await decide(hook)).outcome for _ in range(2)] == [Outcome.SCORED] * 2


async def test_a_burst_beyond_max_asks_does_not_open_the_breaker(connected, ranker):
    hook = await connected(max_asks=10, breaker_failures=1)
    outcomes = [decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(30)))]
    assert outcomes.count(Outcome.SCORED) == 10
    assert outcomes.count(Outcome.OVERLOADED) == 20
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


async def test_one_trial_at_a_time(connected, ranker, clock):
    hook = await connected(breaker_failures=1)
    ranker.answer_item = nonsense("quantile", 2.0)
    assert (await decide(hook)).outcome is Outcome.BAD_REPLY
    ranker.answer_item = item_reply
    clock.now_s += 1
    outcomes = [decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(10)))]
    assert sorted(outcomes) == [Outcome.BREAKER_OPEN] * 9 + [Outcome.SCORED]
    assert (await decide(hook)).outcome is Outcome.SCORED
