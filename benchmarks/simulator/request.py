"""What is simulated: a request as a client sends it, what a ranker says of it, and what became of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Tokens: at least 1 each."""

    arrival_ms: float
    prompt_tokens: int
    output_tokens: int
    """Of its response: known to the engine only when the last one is made."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a ranker says of a prompt, as the sidecar does. p90_tokens is not below expected_tokens, the median."""

    quantile: float
    expected_tokens: float
    p90_tokens: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, done. Times as its client sees them, on the clock of the arrivals.

    queued_ms: in the engine's waiting queue, again after a preemption included. preemptions: how often it lost what it had.
    """

    request: Request
    first_token_ms: float
    finished_ms: float
    queued_ms: float
    preemptions: int
