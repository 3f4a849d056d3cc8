"""How long the engine needs for those who wait: the estimate beside a queue whose pace is known, and that the hook goes by it."""

import contextlib
import heapq

import pytest
from hook_rig import ARRIVAL_MS, Clock, decide
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_client.hook.asked import Asked
from vllm_client.hook.backlog import Backlog
from vllm_client.priority import PolicySettings, window_of


def estimates(room: int, service_s: float, arrivals_s: list[float]) -> list[tuple[int, float]]:
    """Of each arrival: how many wait, and what the backlog is said to be. Each request keeps one of `room` places for `service_s`."""
    backlog, free_s, ends_s, found = Backlog(room), [0.0] * room, [], []
    for arrival_s in arrivals_s:
        while ends_s and ends_s[0] <= arrival_s:
            heapq.heappop(ends_s)
        found.append((max(len(ends_s) - room, 0), backlog.arrived(len(ends_s) + 1, arrival_s)))
        heapq.heappush(free_s, max(heapq.heappop(free_s), arrival_s) + service_s)
        heapq.heappush(ends_s, max(free_s))
    return found


@settings(deadline=None)
@given(st.integers(1, 32), st.floats(0.1, 10), st.floats(1.1, 3), st.floats(0, 1e6))
def test_under_overload_it_finds_what_the_engine_needs(room: int, service_s: float, load: float, start_s: float):
    between_s = service_s / room / load
    *_, (waiting, found_ms) = estimates(room, service_s, [start_s + place * between_s for place in range(40 * room)])
    assert waiting > room
    assert found_ms == pytest.approx(1000 * waiting * service_s / room, rel=0.25)


def test_it_follows_an_engine_that_becomes_slower():
    backlog, now_s = Backlog(4), 0.0
    for pace_s in (1.0, 3.0):
        for _ in range(100):  # one comes, one goes: ten are in flight all the time
            now_s += pace_s
            found_ms = backlog.arrived(10, now_s)
        # Nine before it, four of which run.
        assert found_ms == pytest.approx(5_000 * pace_s, rel=0.01)


def test_idle_times_say_nothing_of_the_pace():
    backlog = Backlog(2)
    backlog.arrived(5, 0.0)
    backlog.arrived(5, 1.0)
    assert backlog.arrived(5, 2.0) == 2_000
    assert backlog.arrived(1, 1_000.0) == 0
    assert backlog.arrived(2, 2_000.0) == 0
    for count in (3, 4, 5):
        found_ms = backlog.arrived(count, 2_000.0)
    assert found_ms == pytest.approx(2_000)
    assert [backlog.of(in_flight) for in_flight in (0, 2, 3, 12)] == pytest.approx([0, 0, 1_000, 10_000])


@pytest.mark.parametrize("room", [None, 1, 16])
def test_before_anybody_has_left_nothing_is_known(room: int | None):
    backlog = Backlog(room)
    assert [backlog.arrived(count, 0.01 * count) for count in range(1, 100)] == [0.0] * 99


def test_without_a_known_room_there_is_none():
    backlog = Backlog(None)
    assert {backlog.arrived(1_000, float(second)) for second in range(100)} == {0.0}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 1e6)), max_size=50), st.integers(1, 512))
def test_it_is_a_sane_number_whatever_the_engine_says(steps: list[tuple[int, float]], room: int):
    """What is in flight elsewhere is somebody else's count: it may jump."""
    backlog, now_s = Backlog(room), 0.0
    for in_flight, later_s in steps:
        now_s += later_s
        found_ms = backlog.arrived(in_flight, now_s)
        assert 0 <= found_ms < float("inf")
        assert found_ms == 0 or in_flight - 1 > room


async def test_the_hook_gives_who_finds_a_queue_a_longer_window(connected, clock: Clock):
    """Two run and six wait; each second one comes and one goes: a backlog of 6 s, four times of which are 24."""
    hook = await connected(room=2, window_ms=10_000, window_growth=3)
    arrival_ms = int(ARRIVAL_MS)
    with contextlib.ExitStack() as crowd:
        for _ in range(7):
            crowd.enter_context(hook.in_flight())
        leaving = contextlib.ExitStack()
        for _ in range(100):
            clock.now_s += 1
            leaving.close()
            leaving.enter_context(hook.in_flight())
        assert hook.counters.gauges["backlog_seconds"] == pytest.approx(6, rel=0.1)
        grown_ms = window_of(1000 * 5 * hook.counters.gauges["backlog_seconds"] / 6, PolicySettings(window_ms=10_000))
        # A quarter of the window, and a quarter less of what it grew by; the scripted quantile is 0.25.
        expected = arrival_ms + 2_500 - (grown_ms - 10_000) / 4
        assert (await decide(hook)).priority == pytest.approx(expected, abs=1)
        assert 18_000 < grown_ms < 22_000
        # A middling one is where it was.
        assert (await decide(hook, Asked())).priority == arrival_ms + 5_000
        leaving.close()
    assert hook.counters.gauges["backlog_seconds"] == 0
    with hook.in_flight():
        assert (await decide(hook)).priority == arrival_ms + 2_500
