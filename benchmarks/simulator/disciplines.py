"""In what order an engine takes jobs: first come first served, a priority made on arrival, and what knows more or decides later.

vLLM itself can do the first two. The others are there to see what a priority that is made once leaves on the table.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from benchmarks.simulator.job import Job
from benchmarks.simulator.remaining import mean_remaining
from benchmarks.simulator.request import Estimate

NOBODY_KNOWS = Estimate(quantile=0.5, expected_tokens=200.0, p90_tokens=800.0)
"""For a job without an estimate, where a discipline needs one: about what a chat model answers."""

NEVER = 0


class Key(NamedTuple):
    """The smallest runs first; the largest makes room. Ties go to who entered first."""

    rank: float
    entered: int


class Discipline(Protocol):
    """An order of jobs."""

    @property
    def moves(self) -> bool:
        """Whether the order of waiting jobs changes while they wait."""

    @property
    def reconsider_steps(self) -> int:
        """Every how many steps a waiting job may take the place of a running one. NEVER: only when one ends, as in vLLM."""

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        """Its place, with so many response tokens made."""

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        """Whether it pays to throw the running one out, whose `lost_tokens` must be read again later. Asked every reconsider_steps."""


@dataclass(frozen=True)
class FirstCome:
    """First come, first served: vLLM's own default."""

    moves = False
    reconsider_steps = NEVER

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        return Key(0, job.entered)

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        return False


@dataclass(frozen=True)
class StaticPriority:
    """The priority that the hook made, once: vLLM under --scheduling-policy priority."""

    moves = False
    reconsider_steps = NEVER

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        return Key(job.priority, job.entered)

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        return False


@dataclass(frozen=True)
class PredictedRemaining:
    """Least expected work first, known better the longer a job runs. Others may take its place when it turns out long.

    prompt_weight: response tokens that a prompt token is worth, in this class and the next ones.
    """

    prompt_weight: float = 0.0
    reconsider_steps: int = 16
    moves = False

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        unread = job.tokens_to_prefill - job.prefilled_tokens
        return Key(mean_remaining(job.estimate or NOBODY_KNOWS, made_tokens) + self.prompt_weight * unread, job.entered)

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        return waiting.rank + self.prompt_weight * lost_tokens < running.rank


@dataclass(frozen=True)
class TrueRemaining:
    """Shortest remaining processing time, by an oracle. It throws out whatever has more left than who waits, reading it again included.

    With one slot and nothing to read that is the best there is for the mean. In a batch it need not be: while a prompt is read again,
    everybody else's step takes longer. With reconsider_steps NEVER it throws nobody out.
    """

    prompt_weight: float = 0.0
    reconsider_steps: int = 1
    moves = False

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        unread = job.tokens_to_prefill - job.prefilled_tokens
        return Key(job.request.output_tokens - made_tokens + self.prompt_weight * unread, job.entered)

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        return waiting.rank + self.prompt_weight * lost_tokens < running.rank


@dataclass(frozen=True)
class ResponseRatio:
    """Highest response ratio next: time since entry over expected work. It ages by itself, without a window."""

    prompt_weight: float = 0.0
    moves = True
    reconsider_steps = NEVER

    def key(self, job: Job, made_tokens: int, now: int) -> Key:
        expected = max((job.estimate or NOBODY_KNOWS).expected_tokens, 1.0)
        work = expected + self.prompt_weight * job.request.prompt_tokens
        return Key((job.entered - now) / work, job.entered)

    def displaces(self, waiting: Key, running: Key, lost_tokens: int) -> bool:
        return False
