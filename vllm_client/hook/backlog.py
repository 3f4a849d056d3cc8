"""Pure: how long the engine needs for the requests that wait, from their number at each arrival."""

HALF_LIFE_ROOMS = 4
"""After so many times as many requests as run at a time have left, what was seen before counts half."""


class Backlog:
    """The pace at which requests leave while others wait, and what it makes of those that wait now. One per process.

    Who leaves without having been served, cancelled or refused, counts like the others: then the pace looks faster than it is, and the
    backlog shorter.
    """

    def __init__(self, room: int | None) -> None:
        """room: requests that run at a time; None: unknown, and so is the backlog."""
        self._room = room
        self._in_flight = 0
        self._seen_s: float | None = None
        self._left = 0.0
        self._crowded_s = 0.0

    def arrived(self, before: int, entering: int, now_s: float) -> float:
        """Return the backlog in milliseconds that a request finds which arrives at `now_s`, 0 when nobody waits or nothing is known yet.

        before: requests in flight, without the `entering` ones. now_s: of a clock that does not go back.
        """
        # Since the last arrival their number has only fallen. Where it is still the room, all of it was busy all the time; any other
        # time says how fast requests come, not how fast they could leave.
        if self._room is not None and self._seen_s is not None and before >= self._room:
            left = max(self._in_flight - before, 0)
            keep = 0.5 ** (left / (HALF_LIFE_ROOMS * self._room))
            self._left = self._left * keep + left
            self._crowded_s = self._crowded_s * keep + now_s - self._seen_s
        self._in_flight, self._seen_s = before + entering, now_s
        return self.of(before)

    def of(self, in_flight: int) -> float:
        """Return the backlog in milliseconds of so many requests."""
        # Of an engine that was idle before a rush, the first to leave come late and the next ones at once: only a whole room of them
        # tells the pace.
        if self._room is None or self._left < self._room:
            return 0.0
        return 1000 * max(in_flight - self._room, 0) * self._crowded_s / self._left
