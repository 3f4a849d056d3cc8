"""Which scorer answers a call, given its time and what it would take. Pure: milliseconds in, a verdict out.

The rule: the encoder when it is expected to be done in time; else the n-gram scorer, where the call and the settings allow it and
there is time for that; else a refusal that says whether the queue or the work is what takes too long.
"""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """ENCODER and NGRAM: that one answers. The other two refuse: with a shorter queue it would fit; it never would."""

    ENCODER = "encoder"
    NGRAM = "ngram"
    QUEUE_TOO_LONG = "queue_too_long"
    NO_TIME = "no_time"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the encoder is expected to take for one call, in milliseconds.

    queue_ms: until its first batch could start. work_ms: from there until its last batch ends.
    """

    queue_ms: float
    work_ms: float


@dataclass(frozen=True, slots=True)
class Reserve:
    """Milliseconds before a deadline that belong to the way back.

    fixed_ms: network and reply, from the settings. lag_ms: how late this process runs what is due, as measured lately.
    ngram_ms: what the n-gram scorer would take for this call, so that there is time for it when the encoder turns out late.
    """

    fixed_ms: float
    lag_ms: float
    ngram_ms: float

    @property
    def total_ms(self) -> float:
        return self.fixed_ms + self.lag_ms + self.ngram_ms


def fixed_reserve_ms(reserve_ms: float, call_ms: float) -> float:
    """The settings' reserve, but at most half of the time that a call has in all: a short deadline must leave the encoder some."""
    return min(reserve_ms, call_ms / 2)


def choose(time_left_ms: float, expected: Expectation, reserve: Reserve, *, ngram_allowed: bool) -> Verdict:
    """Decide by what is expected. time_left_ms: until the caller's deadline.

    The n-gram scorer may use the reserve: an answer that is likely, not certain, to arrive in time is worth its few microseconds.
    """
    usable_ms = time_left_ms - reserve.total_ms
    if expected.queue_ms + expected.work_ms <= usable_ms:
        return Verdict.ENCODER
    if ngram_allowed and reserve.ngram_ms < time_left_ms:
        return Verdict.NGRAM
    return Verdict.QUEUE_TOO_LONG if expected.work_ms <= usable_ms else Verdict.NO_TIME
