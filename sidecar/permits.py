"""The right to wait. Taken before any work is done for a call, returned when the call is answered, whatever the answer."""

import asyncio

from sidecar.errors import NotServingError, OverloadedError


class Permits:
    """`capacity` permits, one per prompt. Not thread-safe: everything happens on the event loop's thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0
        self._closed = False
        self._all_returned = asyncio.Event()
        self._all_returned.set()

    @property
    def taken(self) -> int:
        """Prompts of calls that are admitted and not yet answered."""
        return self._taken

    def take(self, count: int) -> None:
        """Take `count` permits at once or none.

        Raises OverloadedError when fewer are left (waiting for them would help nobody) and NotServingError after close().
        """
        if self._closed:
            raise NotServingError("the server is stopping")
        if self._taken + count > self._capacity:
            raise OverloadedError(f"{self._taken} prompts are waiting, {self._capacity} may; use the neutral priority")
        self._taken += count
        self._all_returned.clear()

    def give_back(self, count: int) -> None:
        """Return what one take() took."""
        self._taken -= count
        assert self._taken >= 0, "bug in ours: more permits returned than taken"
        if self._taken == 0:
            self._all_returned.set()

    def close(self) -> None:
        """Admit nothing from now on. What was admitted stays admitted."""
        self._closed = True

    async def all_returned(self) -> None:
        """Wait until no admitted call is unanswered. The caller brings the deadline."""
        await self._all_returned.wait()
