"""How long the engine needs for those who wait: the estimate beside a queue whose pace is known, and that the hook goes by it."""

import contextlib
import heapq
import math
import random

import pytest
from hook_rig import ARRIVAL_MS, ASKED, Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_client.hook.asked import Asked
from vllm_client.hook.backlog import Backlog


def found_by(room: int, arrivals_s: list[float], services_s: list[float]) -> list[tuple[float, float]]:
    """For each arrival, in seconds: how long the engine really needs for those who wait, who are served in their order, and the backlog."""
    backlog, free_s, ends_s, found = Backlog(room), [0.0] * room, [], []
    begins: list[tuple[float, float]] = []
    for arrival_s, service_s in zip(arrivals_s, services_s, strict=True):
        ends_s = [end_s for end_s in ends_s if end_s > arrival_s]
        needed_s = sum(service for begin_s, service in begins if begin_s > arrival_s) / room
        found.append((needed_s, backlog.arrived(len(ends_s), 1, arrival_s) / 1000))
        begin_s = max(heapq.heappop(free_s), arrival_s)
        heapq.heappush(free_s, begin_s + service_s)
        begins.append((begin_s, service_s))
        ends_s.append(begin_s + service_s)
    return found


@settings(deadline=None)
@given(st.integers(1, 32), st.floats(0.1, 10), st.floats(1.1, 3), st.floats(0, 1e6))
def test_under_overload_it_finds_what_the_engine_needs(room: int, service_s: float, load: float, start_s: float):
    count, between_s = 40 * room, service_s / room / load
    *_, (needed_s, found_s) = found_by(room, [start_s + place * between_s for place in range(count)], [service_s] * count)
    assert needed_s > service_s
    assert found_s == pytest.approx(needed_s, rel=0.25)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [0.8, 1.2])
def test_a_rush_upon_an_idle_engine_is_not_taken_for_more_than_it_is(seed: int, load: float):
    """The first to leave come all at once, after a time in which nobody did."""
    room, draw = 64, random.Random(seed)
    arrivals_s = [draw.random() for _ in range(80)]
    while len(arrivals_s) < 1_000:
        arrivals_s.append(max(arrivals_s) + draw.expovariate(load * room / 15))
    found = found_by(room, sorted(arrivals_s), [draw.lognormvariate(2.6, 0.5) for _ in arrivals_s])
    assert max(found_s - needed_s for needed_s, found_s in found) < 15
    if load > 1:
        assert found[-1][1] == pytest.approx(found[-1][0], rel=0.3)


def test_it_follows_an_engine_that_becomes_slower():
    backlog, now_s = Backlog(4), 0.0
    for pace_s in (1.0, 3.0):
        for _ in range(100):  # one comes, one goes: nine are in flight before each
            now_s += pace_s
            found_ms = backlog.arrived(9, 1, now_s)
        assert found_ms == pytest.approx(5_000 * pace_s, rel=0.01)


def test_idle_times_say_nothing_of_the_pace():
    backlog = Backlog(2)
    for now_s in range(9):
        found_ms = backlog.arrived(4, 1, now_s)
    assert found_ms == pytest.approx(2_000)
    for now_s, before in ((1_000.0, 0), (2_000.0, 1)):
        assert backlog.arrived(before, 1, now_s) == 0
    for before in (2, 3, 4):
        found_ms = backlog.arrived(before, 1, 2_000.0)
    assert found_ms == pytest.approx(2_000)
    assert [backlog.of(in_flight) for in_flight in (0, 2, 3, 12)] == pytest.approx([0, 0, 1_000, 10_000])


def test_a_request_of_many_samples_is_as_many():
    """Of eight each; one comes and one goes each second, which leaves 16 running and 24 waiting."""
    backlog = Backlog(16)
    for now_s in range(40):
        found_ms = backlog.arrived(40, 8, now_s)
    assert found_ms == pytest.approx(3_000)


@pytest.mark.parametrize("room", [None, 1, 16])
def test_before_anybody_has_left_nothing_is_known(room: int | None):
    backlog = Backlog(room)
    assert [backlog.arrived(before, 1, 0.01 * before) for before in range(100)] == [0.0] * 100


def test_the_time_before_the_first_arrival_is_nobodys():
    backlog = Backlog(4)
    assert [backlog.arrived(20 - second, 0, 1e6 + second) for second in range(6)] == pytest.approx([0, 0, 0, 0, 0, 11_000])


def test_without_a_known_room_there_is_none():
    backlog = Backlog(None)
    assert {backlog.arrived(1_000, 1, float(second)) for second in range(100)} == {0.0}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 100), st.floats(0, 1e6)), max_size=50), st.integers(1, 512))
def test_it_is_a_sane_number_whatever_the_engine_says(steps: list[tuple[int, int, float]], room: int):
    """What is in flight elsewhere is somebody else's count: it may jump."""
    backlog, now_s = Backlog(room), 0.0
    for before, entering, later_s in steps:
        now_s += later_s
        found_ms = backlog.arrived(before, entering, now_s)
        assert 0 <= found_ms < math.inf
        assert found_ms == 0 or before > room


async def test_the_hook_gives_who_finds_a_queue_a_longer_window(connected, clock: Clock):
    """Two run and five wait; each second one comes and one goes: a backlog of 5 s, four times of which are 20."""
    hook = await connected(room=2, window_ms=10_000)
    arrival_ms = int(ARRIVAL_MS)
    with contextlib.ExitStack() as crowd, contextlib.ExitStack() as last:
        for _ in range(7):
            crowd.enter_context(hook.in_flight())
        for _ in range(100):
            clock.now_s += 1
            last.close()
            backlog_ms = last.enter_context(hook.in_flight())
        assert backlog_ms == pytest.approx(5_000, rel=1e-3)
        assert hook.counters.gauges["backlog_seconds"] == pytest.approx(6, rel=1e-3)
        # The scripted quantile is 0.25. The window grew by 10 s: half of them are off, and a quarter is on.
        assert (await hook.decide(ASKED, ARRIVAL_MS, backlog_ms)).priority == pytest.approx(
            arrival_ms + 2_500 - 5_000 + 2_500, abs=2
        )
        # A middling one is where it was, and so is one that found no queue, whoever has come since.
        assert (await hook.decide(Asked(), ARRIVAL_MS, backlog_ms)).priority == pytest.approx(arrival_ms + 5_000, abs=1)
        assert (await hook.decide(ASKED, ARRIVAL_MS)).priority == arrival_ms + 2_500
        last.close()
        hook.in_flight_elsewhere = 3
        with hook.in_flight(2) as more_ms:
            assert more_ms == pytest.approx(8_000, rel=1e-3)
            assert hook.counters.gauges["in_flight"] == 9
            assert hook.counters.gauges["backlog_seconds"] == pytest.approx(10, rel=1e-3)
        hook.in_flight_elsewhere = 0
    assert hook.counters.gauges["backlog_seconds"] == 0
