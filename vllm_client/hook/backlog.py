"""Pure: how long the engine needs for the requests that wait, from their number at each arrival."""

HALF_LIFE_ROOMS = 4
"""After so many times as many requests as run at a time have left, what was seen before counts half."""


class Backlog:
    """The pace at which requests leave while others wait, and what it makes of those that wait now. One per process."""

    def __init__(self, room: int | None) -> None:
        """room: requests that run at a time; None: unknown, and so is the backlog."""
        self._room = room
        self._in_flight = 0
        self._seen_s = 0.0
        self._left = 0.0
        self._crowded_s = 0.0

    def arrived(self, in_flight: int, now_s: float) -> float:
        """Return the backlog in milliseconds that a request finds which arrives at `now_s`, 0 when nobody waits or nothing is known yet.

        in_flight: requests, this one included. now_s: of a clock that does not go back.
        """
        if self._room is None:
            return 0.0
        before = in_flight - 1
        # Since the last arrival their number has only fallen. Where it is still the room, all of it was busy all the time; any other
        # time says how fast requests come, not how fast they could leave.
        if before >= self._room:
            left = max(self._in_flight - before, 0)
            keep = 0.5 ** (left / (HALF_LIFE_ROOMS * self._room))
            self._left = self._left * keep + left
            self._crowded_s = self._crowded_s * keep + now_s - self._seen_s
        self._in_flight, self._seen_s = in_flight, now_s
        return self.of(before)

    def of(self, in_flight: int) -> float:
        """Return the backlog in milliseconds of so many requests."""
        waiting = 0 if self._room is None else in_flight - self._room
        return 1000 * waiting * self._crowded_s / self._left if waiting > 0 and self._left > 0 else 0.0
