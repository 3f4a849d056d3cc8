"""The starvation bound that each policy states, on a model of vLLM's queue: kept by whatever traffic, and reached."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import Arrival, Run, run_queue

from vllm_client.priority import POLICIES, Facts, PolicySettings, combined, known, window_of

NOW_MS = 1_790_000_000_000
CLASS_DELAYS_MS = (0, 0, 40, 150)
LONGEST_TOKENS = 40

Requests = Sequence[tuple[Facts, int, int, int | None]]
"""Facts, milliseconds that the hook holds it, true length in tokens, the client's own priority."""

facts = st.builds(
    Facts,
    # Fractions, because the clock has them.
    arrival_ms=st.integers(0, 200) | st.floats(0, 200),
    quantile=st.none() | st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    expected_tokens=st.none() | st.floats(0, 1e4),
    prompt_tokens=st.floats(0, 1e5),
    backlog_ms=st.just(0.0) | st.floats(0, 200),
    max_tokens=st.none() | st.integers(1, 10_000),
    samples=st.integers(1, 8),
    class_delay_ms=st.sampled_from(CLASS_DELAYS_MS),
)
client_priorities = st.none() | st.integers(-5, 5) | st.integers(-(10**30), 10**30)
traffic = st.lists(
    st.tuples(facts, st.integers(0, 10), st.integers(1, LONGEST_TOKENS), client_priorities), min_size=10, max_size=30
)
windows = st.integers(1, 200)
slot_counts = st.integers(1, 3)
# From hardly more than one long response, so that running requests are evicted all the time, to no limit.
rooms = st.none() | st.integers(LONGEST_TOKENS, LONGEST_TOKENS + 20)


# A run takes milliseconds, on a busy machine many.
many = settings(max_examples=60, deadline=None)


def settings_of(window_ms: int) -> PolicySettings:
    """Rates at which the costs of this traffic lie on both sides of the windows, and a limit that some windows grow to."""
    return PolicySettings(
        window_ms=window_ms, max_window_ms=300, prefill_ms_per_token=0.001, decode_ms_per_token=0.1, stretch=1.0
    )


def window_of_both(policy: str, numbers: PolicySettings, one: Facts, other: Facts) -> float:
    """What bounds who overtakes whom, class delays aside."""
    if policy == "cost":
        return numbers.window_ms
    return math.ceil((window_of(one.backlog_ms, numbers) + window_of(other.backlog_ms, numbers)) / 2)


def served(requests: Requests, priority_of: Callable[[Facts], int], slots: int, token_room: int | None = None) -> Run:
    arrivals = [
        Arrival(priority=priority_of(facts), entered_ms=math.floor(facts.arrival_ms) + held_ms, tokens=tokens)
        for facts, held_ms, tokens, _ in requests
    ]
    run = run_queue(arrivals, slots, token_room)
    assert sorted(run.finished) == list(range(len(requests)))
    return run


def lead_ms(requests: Requests, overtaker: int, overtaken: int) -> int:
    """By how much the overtaken one arrived earlier, in whole milliseconds of the hook's clock."""
    return math.floor(requests[overtaker][0].arrival_ms) - math.floor(requests[overtaken][0].arrival_ms)


@pytest.mark.parametrize("policy", ["ageing", "cost"])
@many
@given(traffic, windows, slot_counts, rooms)
def test_nobody_is_overtaken_by_who_comes_more_than_the_window_later(policy, requests, window_ms, slots, token_room):
    numbers = settings_of(window_ms)
    run = served(requests, lambda facts: POLICIES[policy](facts, numbers), slots, token_room)
    for overtaker, overtaken in run.overtakings:
        own_ms, other_ms = requests[overtaken][0].class_delay_ms, requests[overtaker][0].class_delay_ms
        lead = lead_ms(requests, overtaker, overtaken)
        both_ms = window_of_both(policy, numbers, requests[overtaker][0], requests[overtaken][0])
        assert both_ms <= max(window_ms, numbers.max_window_ms)
        assert lead <= both_ms + own_ms
        if own_ms == other_ms:
            assert lead <= both_ms


@pytest.mark.parametrize("policy", ["ageing", "cost"])
@many
@given(traffic, windows, slot_counts, rooms, st.integers(0, 100), st.integers(0, 100))
def test_combining_adds_twice_the_limit_and_no_more(policy, requests, window_ms, slots, token_room, step_ms, limit_ms):
    numbers = settings_of(window_ms)
    asked = {id(facts): client_priority for facts, _, _, client_priority in requests}

    def priority_of(facts: Facts) -> int:
        own, client_priority = POLICIES[policy](facts, numbers), asked[id(facts)]
        return own if client_priority is None else combined(own, client_priority, step_ms, limit_ms)

    run = served(requests, priority_of, slots, token_room)
    for overtaker, overtaken in run.overtakings:
        moves = sum(requests[one][3] is not None for one in (overtaker, overtaken))
        both_ms = window_of_both(policy, numbers, requests[overtaker][0], requests[overtaken][0])
        bound_ms = both_ms + requests[overtaken][0].class_delay_ms + moves * limit_ms
        assert lead_ms(requests, overtaker, overtaken) <= bound_ms


@many
@given(traffic, windows, slot_counts, rooms)
def test_equal_overtakes_nobody(requests, window_ms, slots, token_room):
    numbers = settings_of(window_ms)
    assert served(requests, lambda facts: POLICIES["equal"](facts, numbers), slots, token_room).overtakings == set()


@many
@given(traffic, slot_counts)
def test_equal_serves_in_order_of_arrival(requests, slots):
    run = served(requests, lambda facts: POLICIES["equal"](facts, PolicySettings()), slots)
    entered = [math.floor(facts.arrival_ms) + held_ms for facts, held_ms, _, _ in requests]
    assert run.started == sorted(range(len(requests)), key=lambda index: (entered[index], index))


@pytest.mark.parametrize("policy", ["ageing", "cost"])
@many
@given(traffic, slot_counts)
def test_a_window_of_zero_serves_each_class_in_order_of_arrival(policy, requests, slots):
    run = served(requests, lambda facts: POLICIES[policy](facts, PolicySettings(window_ms=0)), slots)
    for overtaker, overtaken in run.overtakings:
        if requests[overtaker][0].class_delay_ms == requests[overtaken][0].class_delay_ms:
            assert lead_ms(requests, overtaker, overtaken) <= 0


@many
@given(traffic, slot_counts, rooms)
def test_shortest_lets_only_lower_quantiles_overtake(requests, slots, token_room):
    run = served(requests, lambda facts: POLICIES["shortest"](facts, PolicySettings()), slots, token_room)
    for overtaker, overtaken in run.overtakings:
        assert known(requests[overtaker][0].quantile) < known(requests[overtaken][0].quantile)


# One slot, busy; a long request waits; short ones keep coming, each as the one before it ends.


def pursued(short_count: int, every_ms: int = 10, **of_short: int | None) -> Requests:
    busy = (Facts(arrival_ms=0, quantile=0.0), 0, every_ms, None)
    long = (Facts(arrival_ms=1, quantile=1.0), 0, every_ms, None)
    short = [
        (Facts(arrival_ms=every_ms * place, quantile=0.0), 0, every_ms, of_short.get("client_priority"))
        for place in range(1, short_count + 1)
    ]
    return [busy, long, *short]


@pytest.mark.parametrize("short_count", [10, 100, 1_000])
def test_shortest_starves_without_bound(short_count):
    requests = pursued(short_count)
    run = served(requests, lambda facts: POLICIES["shortest"](facts, PolicySettings()), slots=1)
    assert run.started[-1] == 1
    assert run.started_ms[1] == 10 * (short_count + 1)


@pytest.mark.parametrize("short_count", [10, 100, 1_000])
def test_ageing_ends_the_wait_of_the_same_request(short_count):
    numbers = PolicySettings(window_ms=50)
    run = served(pursued(short_count), lambda facts: POLICIES["ageing"](facts, numbers), slots=1)
    # Counts as 1 + 50: those that came at 10, 20, 30, 40 and 50 go first.
    assert run.started_ms[1] == 60


@pytest.mark.parametrize("short_count", [10, 100, 1_000])
def test_a_kept_client_priority_knows_no_bound(short_count):
    """Why `client_priority` says so: a small number is before every time since the epoch, even one meant as "later"."""
    requests = pursued(short_count, client_priority=7)
    asked = {id(facts): client_priority for facts, _, _, client_priority in requests}

    def priority_of(facts: Facts) -> int:
        kept = asked[id(facts)]
        return POLICIES["ageing"](facts, PolicySettings(window_ms=50)) + NOW_MS if kept is None else kept

    assert served(requests, priority_of, slots=1).started[-1] == 1


# Each bound is reached: the largest lead that is no wait too many, and the next one.

LONG = {"quantile": 1.0, "expected_tokens": 1e9}
SHORT = {"quantile": 0.0, "expected_tokens": 0.0}


def overtakes(
    policy: str,
    after_ms: int,
    *,
    own_delay_ms: int = 0,
    other_delay_ms: int = 0,
    moves_ms: int = 0,
    own_backlog_ms: float = 0,
    other_backlog_ms: float = 0,
) -> bool:
    """Whether the shortest request goes before the longest, which arrived `after_ms` before it; the slot is busy all the while."""
    numbers = PolicySettings(window_ms=100, max_window_ms=300)
    long = Facts(arrival_ms=NOW_MS, class_delay_ms=own_delay_ms, backlog_ms=own_backlog_ms, **LONG)
    short = Facts(arrival_ms=NOW_MS + after_ms, class_delay_ms=other_delay_ms, backlog_ms=other_backlog_ms, **SHORT)
    late, early = POLICIES[policy](long, numbers), POLICIES[policy](short, numbers)
    if moves_ms:
        late, early = combined(late, 10**30, 1, moves_ms), combined(early, -(10**30), 1, moves_ms)
    busy = Arrival(priority=0, entered_ms=0, tokens=2_000)
    arrivals = [busy, Arrival(priority=late, entered_ms=1, tokens=1), Arrival(priority=early, entered_ms=2, tokens=1)]
    return run_queue(arrivals, slots=1).started == [0, 2, 1]


@pytest.mark.parametrize("policy", ["ageing", "cost"])
@pytest.mark.parametrize(
    ("bound_ms", "circumstances"),
    [
        (100, {}),
        (100, {"own_delay_ms": 30, "other_delay_ms": 30}),
        (130, {"own_delay_ms": 30}),
        (110, {"own_delay_ms": 30, "other_delay_ms": 20}),
        (140, {"moves_ms": 20}),
        (170, {"own_delay_ms": 30, "moves_ms": 20}),
    ],
    ids=["alike", "same class", "delayed class", "two classes", "combined", "combined and delayed"],
)
def test_the_bound_is_reached_to_the_millisecond(policy, bound_ms, circumstances):
    assert overtakes(policy, bound_ms - 1, **circumstances)
    # At the bound itself the numbers are equal, and the earlier arrival wins.
    assert not overtakes(policy, bound_ms, **circumstances)
    assert not overtakes(policy, bound_ms + 1, **circumstances)


@pytest.mark.parametrize(
    ("own_backlog_ms", "other_backlog_ms", "bound_ms"),
    [(25, 25, 100), (50, 50, 200), (50, 0, 150), (0, 50, 150), (50, 75, 250), (1e9, 1e9, 300)],
)
def test_a_grown_window_bounds_by_the_mean_of_both(own_backlog_ms, other_backlog_ms, bound_ms):
    backlogs = {"own_backlog_ms": own_backlog_ms, "other_backlog_ms": other_backlog_ms}
    assert overtakes("ageing", bound_ms - 1, **backlogs)
    assert not overtakes("ageing", bound_ms, **backlogs)


# The model itself.


def test_the_model_breaks_ties_by_arrival_and_then_by_id():
    busy = Arrival(priority=0, entered_ms=0, tokens=9)
    late, early, twin = (Arrival(priority=7, entered_ms=entered_ms, tokens=1) for entered_ms in (3, 2, 2))
    lower = Arrival(priority=-7, entered_ms=4, tokens=1)
    run = run_queue([busy, late, early, twin, lower], slots=1)
    assert run.started == [0, 4, 2, 3, 1]
    assert run.overtakings == {(4, 1), (4, 2), (4, 3)}


def test_the_model_evicts_the_largest_number_and_takes_it_back():
    first = Arrival(priority=9, entered_ms=0, tokens=6)
    second = Arrival(priority=1, entered_ms=1, tokens=6)
    run = run_queue([first, second], slots=2, token_room=8)
    # They hold 5 and 3 tokens when there is no room left; the second ends, then the first comes back and ends.
    assert run.evictions == 1
    assert (run.started, run.finished) == ([0, 1, 0], [1, 0])
    assert run.overtakings == {(1, 0)}
