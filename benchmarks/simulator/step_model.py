"""How long a step of an engine takes: linear in what it holds, with few parameters.

Time is counted in whole ticks, so that a jump over a thousand steps ends at exactly the moment at which a thousand single steps do.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

TICKS_PER_MS = 10**9
"""A tick is a picosecond: a token of context costs tens of thousands of them, and an hour still fits into 53 bits."""


def ticks(ms: float) -> int:
    return round(ms * TICKS_PER_MS)


def milliseconds(count: int) -> float:
    return count / TICKS_PER_MS


@dataclass(frozen=True, slots=True)
class StepModel:
    """Milliseconds of a step: the constant, and for each sequence in it, each prompt token that is read, each token of context that
    the decoding sequences look back on. A recomputed token counts as a prompt token. Raises ValueError unless time passes."""

    constant_ms: float
    per_sequence_ms: float = 0.0
    per_prefill_token_ms: float = 0.0
    per_context_token_ms: float = 0.0

    def __post_init__(self) -> None:
        rest = (self.per_sequence_ms, self.per_prefill_token_ms, self.per_context_token_ms)
        if not (self.constant_ms > 0 and all(0 <= value < math.inf for value in (*rest, self.constant_ms))):
            raise ValueError(f"a step takes a positive time and no part of it a negative one, not {self}")

    def step_ms(self, sequences: float, prefill_tokens: float, context_tokens: float) -> float:
        return (
            self.constant_ms
            + self.per_sequence_ms * sequences
            + self.per_prefill_token_ms * prefill_tokens
            + self.per_context_token_ms * context_tokens
        )

    def in_ticks(self) -> "StepTicks":
        parts = (self.constant_ms, self.per_sequence_ms, self.per_prefill_token_ms, self.per_context_token_ms)
        constant, *rest = (ticks(part) for part in parts)
        return StepTicks(max(constant, 1), *rest)


class StepTicks(NamedTuple):
    """A StepModel in whole ticks."""

    constant: int
    per_sequence: int
    per_prefill_token: int
    per_context_token: int


class Stretch(NamedTuple):
    """Steps that follow each other: the first takes `first` ticks, each further one `growth` more than the one before it."""

    first: int
    growth: int

    def duration(self, steps: int) -> int:
        """Of the first `steps` of them together."""
        return steps * self.first + self.growth * (steps * (steps - 1) // 2)

    def begun_before(self, duration: int) -> int:
        """How many of them begin within the first `duration` ticks, the one that begins at 0 included. 0 when there is no time."""
        if duration <= 0:
            return 0
        if self.growth == 0:
            return (duration - 1) // self.first + 1
        # The largest n with duration(n - 1) < the given one: a quadratic inequality, solved in whole numbers.
        linear = 2 * self.first - self.growth
        n = (math.isqrt(linear * linear + 8 * self.growth * duration) - linear) // (2 * self.growth) + 1
        while self.duration(n - 1) >= duration:
            n -= 1
        while self.duration(n) < duration:
            n += 1
        return n
