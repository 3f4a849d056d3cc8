"""Quantiles → priorities. Pure, and the only place that knows which way each engine counts.

Our direction is vLLM's: longer expected response = higher score = higher quantile = larger number = runs later. Engines that
count the other way are turned round here and nowhere else.

A quantile is a score's place among the calibration prompts, in [0, 1]. None means that the prompt has no score; such a prompt,
and one whose quantile is no number in [0, 1], is treated as a middling one, because 0 would jump the whole queue.
"""

import math
from collections.abc import Sequence

NEUTRAL_QUANTILE = 0.5
"""The quantile of a prompt that nobody scored."""

DEFAULT_WINDOW_MS = 40_000
"""How much older, in milliseconds, the shortest request counts against the longest. It is the starvation bound as well.

Measured on vLLM at 1.15 times its capacity with a predictor of tau 0.6, mean latency and longest wait in seconds: first come,
first served 9.2 to 10.1 and 10.6 to 12.0; 40,000 gave 7.25 and 20.4; 80,000 gave 6.94 and 24.6. Half the bound for nearly the
whole gain.
"""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def vllm_priority(quantile: float | None, arrival_ms: float, window_ms: int = DEFAULT_WINDOW_MS) -> int:
    """Return the priority for vLLM: arrival + window × quantile. Lower runs earlier, ties by arrival.

    `arrival_ms` is wall-clock time in milliseconds since the epoch, so that several API servers agree; fractions are dropped.
    `window_ms` is not negative; 0 means first come, first served.

    Starvation bound: nobody is overtaken by a request that arrives more than `window_ms` later. Such a request's number is
    larger even if it has quantile 0 and the waiting one has quantile 1.

    Always a real int within int64: a float or a string hangs vLLM's engine for ever, and a header beyond 64 bits is an HTTP 500
    there (vLLM 0.32.0). Raises ValueError for a time or window that is no number or a negative window.
    """
    if not math.isfinite(arrival_ms) or not math.isfinite(window_ms) or window_ms < 0:
        raise ValueError(f"arrival_ms and window_ms must be finite, window_ms not negative: {arrival_ms}, {window_ms}")
    # Floored, and never above the window (a product of floats could be, past 2**53), so the bound holds to the millisecond.
    handicap_ms = min(math.floor(window_ms * _known(quantile)), math.floor(window_ms))
    priority = math.floor(arrival_ms) + handicap_ms
    return max(_INT64_MIN, min(_INT64_MAX, priority))


def vllm_batch_priorities(quantiles: Sequence[float | None]) -> list[int]:
    """Return priorities for vLLM's offline `LLM.generate(prompts, priority=...)`: 0 for the shortest, equal quantiles equal.

    Same length and order as `quantiles`. A closed batch needs no starvation bound: it ends, and nobody joins it.
    """
    known = [_known(quantile) for quantile in quantiles]
    rank_of = {quantile: rank for rank, quantile in enumerate(sorted(set(known)))}
    return [rank_of[quantile] for quantile in known]


def sglang_priority(quantile: float | None, arrival_ms: float, window_ms: int = DEFAULT_WINDOW_MS) -> int:
    """Return the priority for SGLang, where larger runs earlier unless it was started with low values first. Same bound."""
    return -max(-_INT64_MAX, vllm_priority(quantile, arrival_ms, window_ms))


def tensorrt_llm_priority(quantile: float | None) -> float:
    """Return the priority for TensorRT-LLM: a float in [0, 1], larger runs earlier, its default 0.5.

    There is no room in it for the arrival time, so there is NO starvation bound: under lasting overload long requests wait as
    long as shorter ones keep coming.
    """
    return 1.0 - _known(quantile)


def _known(quantile: float | None) -> float:
    # The comparison is False for NaN as well. float() because numpy scalars must not leak into the result's type.
    return float(quantile) if quantile is not None and 0 <= quantile <= 1 else NEUTRAL_QUANTILE
