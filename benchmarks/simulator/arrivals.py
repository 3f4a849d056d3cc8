"""When requests arrive. Milliseconds, ascending, the same for the same seed."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np


def as_bench_serve(count: int, requests_per_s: float, seed: int) -> list[float]:
    """The times at which `vllm bench serve --request-rate … --seed …` sends, as its get_request draws them (vLLM 0.32.0): a Poisson
    process, stretched so that the last one comes when the rate says."""
    rng = np.random.RandomState(seed)
    sent_s = list(accumulate(rng.gamma(shape=1.0, scale=1.0 / requests_per_s) for _ in range(count)))
    stretch = count / requests_per_s / sent_s[-1]
    return [1000 * stretch * time_s for time_s in sent_s]


def poisson(count: int, requests_per_s: float, seed: int) -> list[float]:
    gaps = np.random.default_rng(seed).exponential(1000 / requests_per_s, count)
    times: list[float] = np.cumsum(gaps).tolist()
    return times


def from_rates(requests_per_s: Sequence[float], window_s: float, seed: int) -> list[float]:
    """A Poisson process whose rate is constant within each window."""
    expected = np.concatenate([[0.0], np.cumsum(np.asarray(requests_per_s) * window_s)])
    rng = np.random.default_rng(seed)
    # As many as a process of rate 1 makes until the expected number, spread evenly over it and taken back to time.
    drawn = np.sort(rng.uniform(0.0, expected[-1], rng.poisson(expected[-1])))
    edges_ms = 1000 * window_s * np.arange(len(expected))
    times: list[float] = np.interp(drawn, expected, edges_ms).tolist()
    return times
