"""Pure: when to stop asking a sidecar that fails, and when to try it again. No clock: the time is an argument.

    closed     everything may ask; `failures_to_open` failures in a row open it
    open       nothing may ask, for `open_ms`
    half-open  after that one trial may ask: its success closes the breaker, its failure opens it again for as long

A trial that ends without a verdict, because its caller has gone, leaves the next one to be the trial.
"""

from typing import NamedTuple


class Ticket(NamedTuple):
    """The right to ask once. Given back with `CircuitBreaker.leave`."""

    epoch: int
    """How often the breaker had opened or closed."""
    trial: bool
    """The one that decides whether the breaker closes."""


class CircuitBreaker:
    """Times are seconds on any one clock that never goes back."""

    def __init__(self, failures_to_open: int, open_ms: float) -> None:
        self._failures_to_open = failures_to_open
        self._open_s = open_ms / 1000
        self._failures = 0
        self._open_until_s: float | None = None
        self._trial_out = False
        self._epoch = 0

    @property
    def is_open(self) -> bool:
        """Open or half-open."""
        return self._open_until_s is not None

    def refuses(self, now_s: float) -> bool:
        """Whether `enter` would refuse. Changes nothing."""
        return self._open_until_s is not None and (self._trial_out or now_s < self._open_until_s)

    def enter(self, now_s: float) -> Ticket | None:
        """Return the right to ask, or None. Every ticket must come back through `leave`."""
        if self.refuses(now_s):
            return None
        self._trial_out = self.is_open
        return Ticket(self._epoch, self._trial_out)

    def leave(self, ticket: Ticket, worked: bool | None, now_s: float) -> None:
        """Give a ticket back. `worked`: did the other side do its part; None: nothing was learned."""
        # Whoever began before the breaker last opened or closed brings old news, and is no trial.
        if ticket.epoch != self._epoch:
            return
        if ticket.trial:
            self._trial_out = False
        if worked:
            self._failures = 0
            if ticket.trial:
                self._turn(None)
        elif worked is False:
            self._failures += 1
            if ticket.trial or self._failures >= self._failures_to_open:
                self._turn(now_s + self._open_s)

    def _turn(self, open_until_s: float | None) -> None:
        self._open_until_s = open_until_s
        self._failures = 0
        self._epoch += 1
