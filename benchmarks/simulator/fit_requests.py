"""How long a step takes, and what lies between client and engine, from the single requests that real runs kept: linear least squares,
no simulation in between.

The time between two tokens of a request is that of the steps in between, and what was in these steps is known from the tokens that
came meanwhile, its own and the others': a first token tells of a prompt that was read, each further one of its context.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from benchmarks.simulator.step_model import StepModel

KeptRequests = Mapping[str, Sequence[Any]]
"""See benchmarks.bench_vllm.requests."""

Array = npt.NDArray[np.float64]

WINDOW_STEPS = 20
"""Of a request's steps that make one equation: enough that a token some milliseconds late is little, and few enough to tell full
engines from empty ones."""

LEAST_CONSTANT_MS = 0.001
"""Requests that always ran in the same company do not tell a step's constant part from the rest. A step takes time all the same."""


def fit_requests(runs: Sequence[KeptRequests]) -> StepModel:
    """The model that explains best how long the tokens of these runs took. No part of it is negative."""
    parts = [_equations(run) for run in runs]
    features, times_ms = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    # Each step is late or not on its own: the error of some steps together grows like the root of their number.
    weights = 1 / np.sqrt(features[:, :1])
    scale = (features * weights).max(axis=0)
    scale[scale == 0] = 1.0
    solution, _ = nnls(features * weights / scale, times_ms * weights[:, 0])
    constant_ms, *rest = (float(value) for value in solution / scale)
    return StepModel(max(constant_ms, LEAST_CONSTANT_MS), *rest)


def around_times_ms(run: KeptRequests, max_num_seqs: int, step_model: StepModel) -> list[float]:
    """Milliseconds from the client to the engine and back, of each request that found a free place in an engine at work: its time to the
    first token beyond the step that makes it and the half one that it waits for on average."""
    sent_s, e2e_s, prompts, outputs = (_column(run, name) for name in ("sent_s", "e2e_s", "prompt_tokens", "output_tokens"))
    # Of a sequence at any time: long ones are there for longer.
    context = float((outputs * (prompts + outputs / 2)).sum() / outputs.sum())
    times_ms = []
    for sent, ttft_s, prompt_tokens in zip(sent_s, _column(run, "ttft_s"), prompts, strict=True):
        others = int(((sent_s < sent) & (sent_s + e2e_s > sent)).sum())
        if 0 < others < max_num_seqs:
            own_step_ms = step_model.step_ms(others + 1, prompt_tokens, others * context)
            times_ms.append(float(1000 * ttft_s - own_step_ms - step_model.step_ms(others, 0, others * context) / 2))
    return times_ms


def _equations(run: KeptRequests) -> tuple[Array, Array]:
    """Steps, sequences, prompt tokens and context of some steps in a row, summed; and their time in milliseconds."""
    tokens = [_token_times_s(run, row) for row in range(len(run["sent_s"]))]
    prompts = _column(run, "prompt_tokens")
    times_s = np.concatenate(tokens)
    order = np.argsort(times_s, kind="stable")
    number = np.concatenate([np.arange(len(each)) for each in tokens])
    prompt = np.repeat(prompts, [len(each) for each in tokens])
    held = np.stack([np.ones(len(number)), np.where(number == 0, prompt, 0), np.where(number == 0, 0, prompt + number)], axis=1)
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(held[order], axis=0)])
    features, times_ms = [], []
    for steps, begin_s, end_s in (window for each in tokens for window in _windows(each)):
        # Half a step later: all tokens of the first step have come, a little late or not, and none of the next.
        half_s = (end_s - begin_s) / steps / 2
        first, last = np.searchsorted(times_s[order], (begin_s + half_s, end_s + half_s))
        features.append((steps, *(sums[last] - sums[first])))
        times_ms.append(1000 * (end_s - begin_s))
    return np.asarray(features, dtype=float).reshape(-1, 4), np.asarray(times_ms)


def _windows(times_s: Array) -> Iterator[tuple[int, float, float]]:
    """Steps, begin and end of each window of a request. The last one may be shorter; a single token has none."""
    edges = [*range(0, len(times_s) - 1, WINDOW_STEPS), len(times_s) - 1]
    for begin, end in pairwise(edges):
        yield end - begin, float(times_s[begin]), float(times_s[end])


def _token_times_s(run: KeptRequests, row: int) -> Array:
    """When each token of a request came: as was seen, or evenly where several came at once.

    What the client takes for the first token is a chunk that names the role and has none. So there are as many gaps as tokens, and the
    first of them ends with the first token.
    """
    first_s, last_s = run["sent_s"][row] + run["ttft_s"][row], run["sent_s"][row] + run["e2e_s"][row]
    count, gaps_s = int(run["output_tokens"][row]), run["gaps_s"][row]
    if len(gaps_s) != count:
        return np.linspace(first_s, last_s, count)
    times_s: Array = first_s + np.cumsum(gaps_s)
    return times_s


def _column(run: KeptRequests, name: str) -> Array:
    return np.asarray(run[name], dtype=float)
