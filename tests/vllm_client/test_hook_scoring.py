"""PriorityHook on its good days, against a real gRPC server: what it asks, what it does not, and the priority that comes of it."""

import contextlib
import time

import pytest
from hook_rig import ARRIVAL_MS, ASKED, NEUTRAL, SCORED, assert_nothing_left, decide, nonsense

from vllm_client.hook.asked import Asked
from vllm_client.hook.decision import Decision, Outcome
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings


async def test_a_scored_request_has_the_policys_priority(connected):
    hook = await connected()
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
    assert hook.counters.counts[Outcome.SCORED] == 1
    assert_nothing_left(hook)


async def test_of_several_texts_the_longest_response_counts_and_the_cost_of_all(connected):
    texts = ("x" * 10, "x" * 75, "x" * 35)  # Quantiles 0.1, 0.75, 0.35; expected tokens 100, 750, 350; mean 400.
    hook = await connected()
    asked = Asked(texts=texts, prompt_chars=120)
    assert await decide(hook, asked) == Decision(1_700_000_000_000 + 30_000, Outcome.SCORED)

    costly = await connected(policy="cost", prefill_ms_per_token=1, decode_ms_per_token=1, stretch=1, window_ms=1_000_000)
    # 126 prompt tokens (2 more than characters, for each text) and 400 × 3 texts × 2 samples.
    two_each = Asked(texts=texts, prompt_chars=120, samples=2)
    assert await decide(costly, two_each) == Decision(1_700_000_000_000 + 126 + 2400, Outcome.SCORED)
    # A prompt of which the ranker saw the beginning counts by its characters: 4,000 / 4.
    long = Asked(texts=("x" * 10,), prompt_chars=4000, max_tokens=50)
    assert await decide(costly, long) == Decision(1_700_000_000_000 + 1000 + 50, Outcome.SCORED)


async def test_the_class_delay_counts_scored_or_not(connected, ranker):
    hook = await connected()
    batch_class = Asked(texts=ASKED.texts, class_delay_ms=7_000)
    assert await decide(hook, batch_class) == Decision(SCORED + 7_000, Outcome.SCORED)
    assert hook.neutral(batch_class, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(NEUTRAL + 7_000, Outcome.TOO_LARGE)


async def test_an_unscored_request_is_a_middling_one_that_keeps_its_own_limits(hooked, nobody):
    hook = hooked(nobody, policy="cost", prefill_ms_per_token=1, decode_ms_per_token=1, stretch=1)
    one_token = Asked(texts=("hello",), prompt_chars=400, max_tokens=1, samples=3)
    assert await decide(hook, one_token) == Decision(1_700_000_000_000 + 100 + 3, Outcome.UNCONNECTED)
    unlimited = Asked(texts=("hello",), prompt_chars=400)
    assert await decide(hook, unlimited) == Decision(NEUTRAL, Outcome.UNCONNECTED)


async def test_text_that_cannot_be_sent_is_refused(connected, ranker):
    hook = await connected()
    assert await decide(hook, Asked(texts=("\ud800",))) == Decision(NEUTRAL, Outcome.REFUSED)
    assert ranker.requests == []


# What is not asked.


@pytest.fixture
async def watched(connected, ranker):
    """A hook of these settings, and the number of questions that reached the sidecar."""

    async def make(**settings):
        hook = await connected(**settings)
        return hook, lambda: len(ranker.requests)

    return make


async def test_no_text_means_no_question(watched):
    hook, questions = await watched()
    assert await decide(hook, Asked()) == Decision(NEUTRAL, Outcome.NO_TEXT)
    assert questions() == 0


async def test_below_the_gate_nothing_is_asked(watched):
    hook, questions = await watched(gate_in_flight=3)
    with contextlib.ExitStack() as in_flight:
        for expected in (Outcome.GATED, Outcome.GATED, Outcome.SCORED, Outcome.SCORED):
            in_flight.enter_context(hook.in_flight())
            assert (await decide(hook)).outcome is expected
        assert hook.counters.gauges["in_flight"] == 4
    assert hook.counters.gauges["in_flight"] == 0
    with hook.in_flight():
        assert await decide(hook) == Decision(NEUTRAL, Outcome.GATED)
    assert questions() == 2


def test_the_gate_is_the_settings_where_it_says_and_else_the_hosts():
    assert PriorityHook(HookSettings()).gate_in_flight == 4
    assert PriorityHook(HookSettings(), gate_in_flight=32).gate_in_flight == 32
    assert PriorityHook(HookSettings(gate_in_flight=7), gate_in_flight=32).gate_in_flight == 7
    assert PriorityHook(HookSettings(gate_in_flight=0), gate_in_flight=32).gate_in_flight == 0


async def test_a_request_that_fails_is_no_longer_in_flight(watched):
    hook, _ = await watched()
    with pytest.raises(ZeroDivisionError), hook.in_flight():
        raise ZeroDivisionError
    assert hook.counters.gauges["in_flight"] == 0


@pytest.mark.parametrize("share", [0, 0.1, 1 / 3, 0.5, 0.7, 0.999, 1])
async def test_the_sampled_share_is_exact_and_even(hooked, nobody, share):
    hook = hooked(nobody, sample_share=share)
    for total in range(1, 2001):
        assert (await decide(hook)).outcome in (Outcome.UNSAMPLED, Outcome.UNCONNECTED)
        taken = hook.counters.counts[Outcome.UNCONNECTED]
        assert abs(taken - total * share) <= 1
    assert abs(hook.counters.counts[Outcome.UNCONNECTED] - 2000 * share) < 1


async def test_an_unsampled_request_is_neutral(watched):
    hook, questions = await watched(sample_share=0)
    assert await decide(hook) == Decision(NEUTRAL, Outcome.UNSAMPLED)
    assert questions() == 0


async def test_under_the_equal_policy_everybody_is_0(watched):
    hook, questions = await watched(policy="equal")
    assert await decide(hook) == Decision(0, Outcome.EQUAL)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.UNREADABLE) == Decision(0, Outcome.UNREADABLE)
    assert questions() == 0


async def test_an_engine_that_orders_by_arrival_gets_nothing(watched):
    hook, questions = await watched()
    hook.engine_obeys = False
    assert await decide(hook) == Decision(None, Outcome.FCFS_ENGINE)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.FCFS_ENGINE)
    assert questions() == 0


async def test_in_shadow_mode_all_is_asked_and_nothing_is_set(watched, ranker):
    hook, questions = await watched(shadow=True)
    hook.engine_obeys = False  # Shadow mode is for such engines too.
    assert await decide(hook) == Decision(None, Outcome.SCORED)
    assert await decide(hook, Asked()) == Decision(None, Outcome.NO_TEXT)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.TOO_LARGE)
    ranker.answer_item = nonsense("quantile", 2.0)
    assert await decide(hook) == Decision(None, Outcome.BAD_REPLY)
    assert questions() == 2
    assert hook.counters.gauges["shadow"] == 1
    await hook.close()
    assert hook.counters.gauges["shadow"] == 0


@pytest.mark.parametrize("client_priority", [0, -5, 10**30])
async def test_a_clients_priority_that_is_kept_is_left_alone(watched, client_priority):
    hook, questions = await watched()
    own = Asked(texts=ASKED.texts, client_priority=client_priority)
    assert await decide(hook, own) == Decision(None, Outcome.CLIENT_PRIORITY)
    assert hook.neutral(own, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.CLIENT_PRIORITY)
    assert questions() == 0


@pytest.mark.parametrize(("client_priority", "moved_ms"), [(0, 0), (-3, -300), (3, 300), (10**30, 2000), (-(10**30), -2000)])
async def test_a_clients_priority_that_is_combined_moves_ours_within_the_limit(connected, client_priority, moved_ms):
    hook = await connected(client_priority="combine", client_step_ms=100, client_limit_ms=2000)
    own = Asked(texts=ASKED.texts, client_priority=client_priority)
    assert await decide(hook, own) == Decision(SCORED + moved_ms, Outcome.SCORED)
    assert hook.neutral(own, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(NEUTRAL + moved_ms, Outcome.TOO_LARGE)


async def test_a_clients_priority_that_is_overridden_does_not_count(connected):
    hook = await connected(client_priority="override")
    assert await decide(hook, Asked(texts=ASKED.texts, client_priority=-5)) == Decision(SCORED, Outcome.SCORED)


def test_the_arrival_clock_is_the_wall_clock_in_milliseconds():
    before = time.time() * 1000
    assert before <= PriorityHook(HookSettings()).now_ms() <= time.time() * 1000
