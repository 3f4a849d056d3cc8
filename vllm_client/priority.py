"""What is known of a request → its priority in vLLM. Pure: no clock, no socket, no thread. Each policy states its starvation bound.

Direction, everywhere here: longer expected response = higher score = higher quantile = larger number = runs later. vLLM runs the
lowest number first and breaks ties by arrival.

Clock: `arrival_ms` is wall-clock time in milliseconds since the epoch, so that several API servers agree. Fractions are dropped.

A quantile is a score's place among the calibration prompts, in [0, 1]. None means that the prompt has no score; such a prompt,
and one whose quantile is no number in [0, 1], is treated as a middling one, because 0 would jump the whole queue.

Every result is a real int within int64. A float or a string hangs vLLM's engine for ever, and a header beyond 64 bits is an HTTP
500 there (both seen in vLLM 0.32.0).

Bounds: "overtaken" means that another request is taken from vLLM's waiting queue first. A bound counts whole milliseconds of the
arrival clock; what clocks of several servers differ by comes on top. It holds for priorities that were all made by one policy
with the same settings.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

NEUTRAL_QUANTILE = 0.5
"""The quantile of a prompt that nobody scored."""

DEFAULT_WINDOW_MS = 40_000
"""How much older, in milliseconds, the shortest request counts against the longest, at the least."""

DEFAULT_MAX_WINDOW_MS = 600_000
"""The same at the most, when many wait."""

WINDOW_BACKLOGS = 4.0
"""As many times the backlog the window of `ageing` is, where that is longer than it is by itself. When requests wait longer than the
window, who is old goes first whatever its length. docs/decisions/0015 says what other numbers bring."""

SHORTEST_LEVELS = 1_000_000
"""Steps into which `shortest` divides the quantiles: finer than a calibration set of any size can tell apart."""

MAX_COUNT = 1e12
"""More tokens, samples or milliseconds count as this many. Clients write them, in JSON with as many digits as they like."""

PolicyName = Literal["ageing", "cost", "shortest", "equal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one request when its priority is made."""

    arrival_ms: float
    """When it arrived, in milliseconds since the epoch. Finite."""
    quantile: float | None = None
    """Of its score, in [0, 1]; None: unscored."""
    expected_tokens: float | None = None
    """Median response length in tokens, of one sample; None: unscored."""
    prompt_tokens: float = 0.0
    """Length of the whole prompt in tokens, an estimate. 0: unknown, prefill counts as free."""
    max_tokens: int | None = None
    """The caller's own limit on response tokens; None: no limit."""
    samples: int = 1
    """How many responses are asked for at once, as `n` and lists of prompts do."""
    backlog_ms: float = 0.0
    """How long the engine needs for the requests that wait already, in milliseconds. 0: nobody waits, or unknown."""
    class_delay_ms: int = 0
    """How much later the request counts as having arrived because of its traffic class. Not negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Numbers of the policies, checked when made. Raises ValueError naming the setting."""

    window_ms: int = DEFAULT_WINDOW_MS
    """See `ageing` and `cost`. 0: first come, first served."""
    max_window_ms: int = DEFAULT_MAX_WINDOW_MS
    """How far the window of `ageing` may grow. 0, or anything below `window_ms`: it stays."""
    prefill_ms_per_token: float = 0.1
    """What one prompt token costs the engine, in milliseconds. For `cost`; docs/vllm.md says how to measure it."""
    decode_ms_per_token: float = 20.0
    """What one response token costs: the time of one engine step, in milliseconds. For `cost`."""
    stretch: float = 4.0
    """Milliseconds of delay for each millisecond of expected cost. For `cost`. 0: first come, first served; larger: closer to
    shortest job first, up to the window."""

    def __post_init__(self) -> None:
        for name in ("window_ms", "max_window_ms", "prefill_ms_per_token", "decode_ms_per_token", "stretch"):
            value = getattr(self, name)
            # Compared, not converted: math.isfinite overflows on a whole number that no float can hold.
            if not 0 <= value <= sys.float_info.max:
                raise ValueError(f"{name} must be a finite number, 0 or more, not {value}")


def ageing(facts: Facts, settings: PolicySettings) -> int:
    """Arrival + class delay + window × quantile: the default. The window grows with the queue.

    It is `window_ms`, or WINDOW_BACKLOGS × the backlog at arrival where that is longer, up to `max_window_ms`. Half of what it grew by
    is taken off again, so that it grows around the middle: who comes with a longer window is not put behind all who came with a
    shorter one.

    Starvation bound: nobody is overtaken by a request of the same class that arrives later by more than the mean of the two
    requests' windows, so never more than `max_window_ms` (`window_ms`, if that is more); nor by any that arrives later by more than
    that + its own class delay. Such a request's number is larger even if it has quantile 0 and the waiting one has quantile 1.
    """
    window_ms = window_of(facts.backlog_ms, settings)
    half_growth_ms = (window_ms - settings.window_ms) / 2
    return _aged(facts, window_ms * known(facts.quantile) - half_growth_ms, window_ms - half_growth_ms)


def window_of(backlog_ms: float, settings: PolicySettings) -> float:
    """The window of `ageing` for a request that finds such a backlog, in milliseconds. One that is no number counts as 0."""
    if settings.window_ms == 0:
        return 0.0  # First come, first served, however many wait.
    return max(settings.window_ms, min(WINDOW_BACKLOGS * _count(backlog_ms), settings.max_window_ms))


def cost(facts: Facts, settings: PolicySettings) -> int:
    """Arrival + class delay + stretch × expected cost in milliseconds, at most the window.

    The cost is that of the prompt's tokens and of the expected response tokens, capped by `max_tokens`, times the samples. An
    unscored request counts as half a window, or as its cap when that is less: whoever asks for one token is short, scored or not.

    Starvation bound: as for `ageing` with a window that does not grow, since no delay exceeds it.
    """
    cap_ms = math.inf if facts.max_tokens is None else _cost_ms(facts, settings, facts.max_tokens)
    tokens = facts.expected_tokens
    if settings.stretch == 0:
        delay_ms = 0.0  # Not a product: 0 × infinity is no number.
    elif tokens is not None and 0 <= tokens < math.inf:
        delay_ms = settings.stretch * min(_cost_ms(facts, settings, tokens), cap_ms)
    else:
        delay_ms = min(settings.window_ms * NEUTRAL_QUANTILE, settings.stretch * cap_ms)
    return _aged(facts, delay_ms, settings.window_ms)


def shortest(facts: Facts, settings: PolicySettings) -> int:
    """The quantile alone, in millionths; arrival breaks ties.

    Starvation bound: NONE. A long request waits for as long as shorter ones keep coming. It is overtaken only by requests of a
    lower quantile. Class delays do not count. For experiments, and for queues that are known to run empty.
    """
    return math.floor(known(facts.quantile) * SHORTEST_LEVELS)


def equal(facts: Facts, settings: PolicySettings) -> int:
    """0 for everybody: first come, first served on the priority scheduler, the honest control of every comparison.

    Starvation bound: nobody is overtaken at all. Class delays do not count.
    """
    return 0


POLICIES: Mapping[PolicyName, Callable[[Facts, PolicySettings], int]] = {
    "ageing": ageing,
    "cost": cost,
    "shortest": shortest,
    "equal": equal,
}

CLOCKED: frozenset[PolicyName] = frozenset({"ageing", "cost"})
"""Policies whose numbers are milliseconds since the epoch, so that delays can be added to them."""


def combined(own: int, client_priority: int, step_ms: int, limit_ms: int) -> int:
    """A clocked policy's priority moved by what the client itself asked for: `step_ms` for each unit of its priority.

    `client_priority` counts as in vLLM, lower is earlier. The move is at most `limit_ms` either way, so with it the policy's
    starvation bound grows by twice that and no more, whatever clients write: once for who asked to run later, once for who
    asked to run earlier.
    """
    return int64(own + max(-limit_ms, min(limit_ms, client_priority * step_ms)))


def vllm_priority(quantile: float | None, arrival_ms: float, window_ms: int = DEFAULT_WINDOW_MS) -> int:
    """`ageing` for callers that set priorities themselves, with a window that does not grow. Raises ValueError for a time or
    window that is no number."""
    return ageing(Facts(arrival_ms=arrival_ms, quantile=quantile), PolicySettings(window_ms=window_ms))


def known(quantile: float | None) -> float:
    """The quantile, or the neutral one for None and nonsense. A plain float: numpy scalars must not leak into a priority."""
    # The comparison is False for NaN as well.
    return float(quantile) if quantile is not None and 0 <= quantile <= 1 else NEUTRAL_QUANTILE


def int64(number: int) -> int:
    """The nearest number that vLLM can hold, as a plain int, whatever numeric type came in."""
    return int(max(-(2**63), min(2**63 - 1, number)))


def dense_ranks(quantiles: Sequence[float | None]) -> list[int]:
    """Priorities for a closed batch, as vLLM's offline `LLM.generate` takes: 0 for the shortest, equal quantiles equal.

    Same length and order as `quantiles`. A closed batch needs no starvation bound: it ends, and nobody joins it.
    """
    values = [known(quantile) for quantile in quantiles]
    rank_of = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [rank_of[value] for value in values]


def _aged(facts: Facts, delay_ms: float, most_ms: float) -> int:
    # Compared, not converted, as above. NaN fails too.
    if not -math.inf < facts.arrival_ms < math.inf:
        raise ValueError(f"arrival_ms must be finite, not {facts.arrival_ms}")
    # Floored, and never above the most (a product of floats could be, past 2**53), so the bound holds to the millisecond.
    delay = math.floor(min(delay_ms, most_ms))
    return int64(math.floor(facts.arrival_ms) + max(int(facts.class_delay_ms), 0) + delay)


def _cost_ms(facts: Facts, settings: PolicySettings, response_tokens: float) -> float:
    prefill_ms = settings.prefill_ms_per_token * _count(facts.prompt_tokens)
    return prefill_ms + settings.decode_ms_per_token * _count(response_tokens) * max(_count(facts.samples), 1.0)


def _count(number: float) -> float:
    # 0 for NaN as well. Finite, so that no product with a rate of 0 is NaN.
    return float(min(number, MAX_COUNT)) if number > 0 else 0.0
