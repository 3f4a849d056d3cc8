"""PriorityHook: what to do with one request. Gate, sample, breaker, ask within the deadline, and fail open."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from vllm_client.errors import (
    BadReplyError,
    CredentialsError,
    DeadlineError,
    InvalidPromptsError,
    OverloadedError,
    ServerFaultError,
    UnavailableError,
)
from vllm_client.hook.asked import Asked
from vllm_client.hook.backlog import Backlog
from vllm_client.hook.breaker import CircuitBreaker, Ticket
from vllm_client.hook.counters import Counters
from vllm_client.hook.decision import Decision, Outcome
from vllm_client.hook.faults import FaultLog
from vllm_client.hook.host import DEFAULT_GATE, hook_logger
from vllm_client.hook.link import Link, LinkFullError, UnconnectedError
from vllm_client.hook.ordering import Ordering
from vllm_client.hook.patience import patience_ms
from vllm_client.hook.settings import HookSettings
from vllm_client.scores import ScoredBatch
from vllm_client.stream import SILENCE_S, UnseenError

_SHARE_STEPS = 1_000_000_000
"""Sampling counts in billionths: sums of whole numbers stay exact."""

_OUTCOMES: Mapping[type[Exception], Outcome] = {
    DeadlineError: Outcome.DEADLINE,
    UnseenError: Outcome.DEADLINE,
    OverloadedError: Outcome.OVERLOADED,
    LinkFullError: Outcome.OVERLOADED,
    UnavailableError: Outcome.UNAVAILABLE,
    UnconnectedError: Outcome.UNCONNECTED,
    InvalidPromptsError: Outcome.REFUSED,
    CredentialsError: Outcome.UNAVAILABLE,
    ServerFaultError: Outcome.SERVER_FAULT,
    BadReplyError: Outcome.BAD_REPLY,
}

_FAILURES = frozenset(
    {
        Outcome.DEADLINE,
        Outcome.OVERLOADED,
        Outcome.UNAVAILABLE,
        Outcome.SERVER_FAULT,
        Outcome.BAD_REPLY,
        Outcome.HOOK_FAULT,
    }
)
"""What speaks against asking again soon. Not REFUSED: that is the prompt's own fault and says nothing of the sidecar."""

MIN_LOOK_S = 0.1
"""Between two looks whether the sidecar says anything."""

_LEFT_ALONE = frozenset({Outcome.FCFS_ENGINE, Outcome.CLIENT_PRIORITY})


class PriorityHook:
    """One per process and event loop. Made anywhere; started, used and closed inside a running loop."""

    def __init__(
        self,
        settings: HookSettings,
        *,
        gate_in_flight: int = DEFAULT_GATE,
        room: int | None = None,
        counters: Counters | None = None,
        link: Link | None = None,
        wall_ms: Callable[[], float] = lambda: time.time() * 1000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts nothing. `gate_in_flight` is for a setting of -1. `room`: requests of this process that the engine runs at a time;
        None: unknown. Whoever hands in a link gives it the same counters."""
        logger = hook_logger()
        self.counters = counters or Counters(log_interval_s=settings.log_interval_s, logger=logger)
        self.gate_in_flight = gate_in_flight if settings.gate_in_flight < 0 else settings.gate_in_flight
        """Requests in flight below which nothing is asked. The host may change it once it knows the engine."""
        self.in_flight_elsewhere = 0
        """Requests in flight that are not inside `in_flight()`, where the host knows of such."""
        self.engine_obeys = True
        """The host sets False when the engine orders by arrival alone."""
        self._settings = settings
        self._room = room
        self._ordering = Ordering(settings)
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_open_ms)
        self._link = link or Link(settings, counters=self.counters, logger=logger)
        self._faults = FaultLog(logger, monotonic_s)
        self._wall_ms = wall_ms
        self._monotonic_s = monotonic_s
        self._in_flight = 0
        self._backlog = Backlog(room)
        self._share = round(settings.sample_share * _SHARE_STEPS)
        self._share_due = 0
        self._look_at_silence: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to connect, in the background. Idempotent; needs a running loop."""
        self.counters.set_gauge("shadow", int(self._settings.shadow))
        self._link.start()

    async def close(self) -> None:
        """Stop the background task and close the connection. Idempotent."""
        if self._look_at_silence is not None:
            self._look_at_silence.cancel()
            self._look_at_silence = None
        await self._link.close()
        self.counters.set_gauge("shadow", 0)
        self.counters.set_gauge("breaker_open", 0)

    @property
    def connected(self) -> bool:
        """Whether a request could be scored at this moment."""
        return self._link.connected

    def in_flight(self, sequences: int = 1) -> AbstractContextManager[float]:
        """Count one request for the load gate and the backlog, while inside; `sequences` where the host counts these. Entering gives the
        backlog that the request finds, in milliseconds."""
        return self._counted_in_flight(sequences)

    def now_ms(self) -> float:
        """The arrival clock: wall-clock milliseconds since the epoch, so that several API servers agree."""
        return self._wall_ms()

    async def decide(self, asked: Asked, arrival_ms: float, backlog_ms: float = 0.0) -> Decision:
        """Return the decision on one request that arrived at `arrival_ms`, within the deadline. Raises nothing but CancelledError.

        To be called inside `in_flight()`, so that the gate counts this request too, with the backlog that this gave.
        """
        try:
            outcome, batch = self._reason_not_to_ask(asked), None
            if outcome is None:
                outcome, batch = await self._ask(asked)
            return self._concluded(asked, arrival_ms, backlog_ms, outcome, batch)
        except Exception as error:
            return self._faulted(error, asked)

    def neutral(self, asked: Asked, arrival_ms: float, outcome: Outcome) -> Decision:
        """Return the decision on a request that is not to be scored, for a cause that the caller knows. Raises nothing."""
        try:
            # A middling one, which is where it is whatever the window.
            return self._concluded(asked, arrival_ms, 0.0, self._reason_to_leave_alone(asked) or outcome, None)
        except Exception as error:
            return self._faulted(error, asked)

    def _reason_to_leave_alone(self, asked: Asked) -> Outcome | None:
        if not self.engine_obeys and not self._settings.shadow:
            return Outcome.FCFS_ENGINE
        if asked.client_priority is not None and self._settings.client_priority == "keep":
            return Outcome.CLIENT_PRIORITY
        return None

    def _reason_not_to_ask(self, asked: Asked) -> Outcome | None:
        """The first that holds. Nothing is awaited between here and the question, so what it finds is still so then."""
        if (outcome := self._reason_to_leave_alone(asked)) is not None:
            return outcome
        if self._settings.policy == "equal":
            return Outcome.EQUAL
        if not asked.texts:
            return Outcome.NO_TEXT
        if self._in_flight + self.in_flight_elsewhere < self.gate_in_flight:
            return Outcome.GATED
        if not self._sampled():
            return Outcome.UNSAMPLED
        if self._breaker.refuses(self._monotonic_s()):
            return Outcome.BREAKER_OPEN
        if not self._link.connected:
            return Outcome.UNCONNECTED
        # Here and not by LinkFullError: a burst of our own making says nothing of the sidecar and must not open the breaker.
        return Outcome.OVERLOADED if self._link.full else None

    def _sampled(self) -> bool:
        """Whether it is a request's turn, spread evenly: of any n in a row share × n, give or take one."""
        self._share_due += self._share
        if self._share_due < _SHARE_STEPS:
            return False
        self._share_due -= _SHARE_STEPS
        return True

    async def _ask(self, asked: Asked) -> tuple[Outcome, ScoredBatch | None]:
        began_s = self._monotonic_s()
        ticket = self._breaker.enter(began_s)
        assert ticket is not None, "bug: asked although the breaker is open"
        outcome, batch, worked, patience_ms = None, None, None, self._patience_ms()
        if patience_ms > self._settings.deadline_ms:
            self._watch_for_silence()
        try:
            batch = await self._link.ask(asked.texts, patience_ms)
            outcome, worked = Outcome.SCORED, True
        except Exception as error:
            outcome = _OUTCOMES.get(type(error), Outcome.HOOK_FAULT)
            worked = False if outcome in _FAILURES and not self._is_excused(error, patience_ms) else None
            if outcome is Outcome.HOOK_FAULT:
                raise
        finally:
            # After a cancel too, without an outcome: a trial must not stay out for ever.
            self._settle(ticket, outcome, worked, began_s)
        return outcome, batch

    def _is_excused(self, error: Exception, patience_ms: float) -> bool:
        """Whether the failure of a question that was given `patience_ms` says nothing of the sidecar."""
        if isinstance(error, UnseenError):
            return True  # A busy loop of our own.
        # A rush has come since. Its first have the deadline of those who need not wait, and the sidecar has all of the others as well.
        # Whether it answers is seen by those who may wait longer, unless nothing comes at all.
        return isinstance(error, DeadlineError) and self._patience_ms() > patience_ms and self._link.silent_s < SILENCE_S

    def _watch_for_silence(self) -> None:
        """Let those go who wait because of a crowd, once nothing at all has come for a while. Their failures open the breaker."""
        if self._look_at_silence is None:
            left_s = max(SILENCE_S - self._link.silent_s, MIN_LOOK_S)
            self._look_at_silence = asyncio.get_running_loop().call_later(left_s, self._look)

    def _look(self) -> None:
        assert self._look_at_silence is not None, "bug: nobody asked for this look"
        late_s = asyncio.get_running_loop().time() - self._look_at_silence.when()
        self._look_at_silence = None
        # Where this loop stood still itself, replies may lie there unread: look again when it has had some turns.
        if self._link.silent_s >= SILENCE_S and late_s < MIN_LOOK_S:
            self._link.let_go()
        elif self._link.asked:
            self._watch_for_silence()

    def _patience_ms(self) -> float:
        in_flight = self._in_flight + self.in_flight_elsewhere
        return patience_ms(in_flight, self._room, self._settings.deadline_ms, self._settings.crowded_deadline_ms)

    def _settle(self, ticket: Ticket, outcome: Outcome | None, worked: bool | None, began_s: float) -> None:
        now_s, was_open = self._monotonic_s(), self._breaker.is_open
        self._breaker.leave(ticket, worked, now_s)
        if self._breaker.is_open and not was_open:
            # Of a sidecar that fails nobody waits for an answer, however long a crowd's patience is.
            self._link.let_go()
        self.counters.set_gauge("breaker_open", int(self._breaker.is_open))
        if outcome is not None:
            self.counters.observe_ask_s(now_s - began_s)
        if ticket.trial and outcome is Outcome.DEADLINE:
            self._link.recycle()

    def _concluded(
        self, asked: Asked, arrival_ms: float, backlog_ms: float, outcome: Outcome, batch: ScoredBatch | None
    ) -> Decision:
        # In shadow mode it is worked out all the same, so that its faults show.
        priority = None if outcome in _LEFT_ALONE else self._ordering.priority(asked, arrival_ms, backlog_ms, batch)
        self.counters.count(outcome)
        return Decision(None if self._settings.shadow else priority, outcome)

    def _faulted(self, error: Exception, asked: Asked) -> Decision:
        """The last resort. Nothing of the request counts but whether it is to be left alone: what it says may be what hurt."""
        with contextlib.suppress(Exception):
            self._faults.tell(error)
            self.counters.count(Outcome.HOOK_FAULT)
        if self._settings.shadow or self._reason_to_leave_alone(asked) is not None:
            return Decision(None, Outcome.HOOK_FAULT)
        return Decision(self._ordering.unknown(self._wall_ms()), Outcome.HOOK_FAULT)

    @contextlib.contextmanager
    def _counted_in_flight(self, sequences: int) -> Iterator[float]:
        before = self._in_flight + self.in_flight_elsewhere
        self._in_flight += sequences
        backlog_ms = self._backlog.arrived(before, sequences, self._monotonic_s())
        self._tell_in_flight()
        try:
            yield backlog_ms
        finally:
            self._in_flight -= sequences
            self._tell_in_flight()

    def _tell_in_flight(self) -> None:
        self.counters.set_gauge("in_flight", self._in_flight)
        self.counters.set_gauge("backlog_seconds", self._backlog.of(self._in_flight + self.in_flight_elsewhere) / 1000)
