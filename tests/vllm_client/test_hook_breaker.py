"""The circuit breaker on a made-up clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_client.hook.breaker import CircuitBreaker

WORKED, FAILED, UNKNOWN = True, False, None


def ask(breaker: CircuitBreaker, worked: bool | None, now_s: float) -> None:
    ticket = breaker.enter(now_s)
    assert ticket is not None
    breaker.leave(ticket, worked, now_s)


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(failures_to_open=3, open_ms=1000)


@pytest.fixture
def opened(breaker) -> CircuitBreaker:
    """Opened at second 10, so until 11."""
    for _ in range(3):
        ask(breaker, FAILED, 10)
    return breaker


def test_failures_in_a_row_open_it(breaker):
    for _ in range(2):
        ask(breaker, FAILED, 10)
    assert not breaker.is_open
    ask(breaker, FAILED, 10)
    assert breaker.is_open
    assert breaker.refuses(10)
    assert breaker.enter(10) is None


def test_a_success_starts_the_row_again(breaker):
    for worked in (FAILED, FAILED, WORKED, FAILED, FAILED):
        ask(breaker, worked, 10)
    assert not breaker.is_open


def test_an_ask_without_a_verdict_neither_counts_nor_clears(breaker):
    for worked in (FAILED, UNKNOWN, FAILED, UNKNOWN):
        ask(breaker, worked, 10)
    assert not breaker.is_open
    ask(breaker, FAILED, 10)
    assert breaker.is_open


def test_after_the_time_exactly_one_trial_is_let_through(opened):
    assert opened.enter(10.999) is None
    trial = opened.enter(11)
    assert trial is not None
    assert trial.trial
    assert [opened.enter(now_s) for now_s in (11, 12, 1000)] == [None, None, None]


def test_the_trials_success_closes_it(opened):
    ask(opened, WORKED, 11)
    assert not opened.is_open
    for _ in range(2):  # And the row of failures begins anew.
        ask(opened, FAILED, 11)
    assert not opened.is_open


def test_the_trials_failure_opens_it_for_as_long_again(opened):
    ask(opened, FAILED, 11.5)
    assert opened.enter(12.499) is None
    ask(opened, WORKED, 12.5)
    assert not opened.is_open


def test_a_trial_that_vanishes_leaves_the_next_one_to_be_the_trial(opened):
    ask(opened, UNKNOWN, 11)
    assert opened.is_open
    trial = opened.enter(11)
    assert trial is not None
    assert trial.trial
    assert opened.enter(11) is None


@pytest.mark.parametrize("worked", [WORKED, FAILED, UNKNOWN])
def test_old_news_changes_nothing(breaker, worked):
    early = [breaker.enter(9) for _ in range(4)]
    for _ in range(3):
        ask(breaker, FAILED, 10)
    breaker.leave(early[0], worked, 10.5)
    assert breaker.is_open
    trial = breaker.enter(11)  # Not later, for a failure that began before it opened.
    breaker.leave(early[1], worked, 11)
    assert breaker.enter(11) is None  # The trial is still out.
    breaker.leave(trial, WORKED, 11)
    breaker.leave(early[2], worked, 11)
    breaker.leave(early[3], worked, 11)
    ask(breaker, FAILED, 11)
    assert not breaker.is_open


def test_asking_whether_it_refuses_changes_nothing(opened):
    assert not any(opened.refuses(11) for _ in range(10))
    assert opened.enter(11) is not None
    assert opened.refuses(11)


@given(
    failures_to_open=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["enter", WORKED, FAILED, UNKNOWN]), st.integers(0, 9), st.integers(0, 700))),
)
def test_whatever_happens_one_trial_at_a_time_and_none_early_and_never_stuck(failures_to_open, steps):
    breaker = CircuitBreaker(failures_to_open, 1000)
    now_s, out, opened_at_s = 0.0, [], None
    for step, which, later_ms in steps:
        now_s += later_ms / 1000
        was_open = breaker.is_open
        if step == "enter":
            ticket = breaker.enter(now_s)
            assert was_open == breaker.is_open
            if ticket is None:
                assert was_open
                assert now_s - opened_at_s < 1 or any(other.trial for other in out)
            else:
                assert ticket.trial == was_open
                assert not ticket.trial or (now_s - opened_at_s >= 1 and not any(other.trial for other in out))
                out.append(ticket)
        elif out:
            ticket = out.pop(which % len(out))
            breaker.leave(ticket, step, now_s)
            if breaker.is_open and (not was_open or (ticket.trial and step is FAILED)):
                assert step is FAILED
                opened_at_s = now_s
            if was_open and not breaker.is_open:
                assert ticket.trial
                assert step is WORKED
    for ticket in out:
        breaker.leave(ticket, UNKNOWN, now_s)
    ask(breaker, WORKED, now_s + 1)
    assert not breaker.is_open
