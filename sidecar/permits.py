"""The right to wait. Taken before any work is done for a call, returned when the call is answered, whatever the answer."""

import asyncio

from sidecar.errors import NotServingError, OverloadedError


class Permits:
    """`max_prompts` permits, one per prompt, and a bound on the text they hold. Everything happens on the event loop's thread."""

    def __init__(self, max_prompts: int, max_chars: int) -> None:
        self._max_prompts = max_prompts
        self._max_chars = max_chars
        self._prompts = 0
        self._chars = 0
        self._closed = False
        self._all_returned = asyncio.Event()
        self._all_returned.set()

    @property
    def taken(self) -> int:
        """Prompts of calls that are admitted and not yet answered."""
        return self._prompts

    @property
    def taken_chars(self) -> int:
        """Characters of those prompts."""
        return self._chars

    def take(self, prompts: int, chars: int) -> None:
        """Take what one call needs, at once and whole.

        Raises OverloadedError when it is not there (waiting for it would help nobody) and NotServingError after close().
        """
        if self._closed:
            raise NotServingError("the server is stopping")
        if self._prompts + prompts > self._max_prompts:
            raise OverloadedError(f"{self._prompts} prompts are waiting, {self._max_prompts} may; use the neutral priority")
        if self._chars + chars > self._max_chars:
            raise OverloadedError(f"{self._chars} characters are waiting, {self._max_chars} may; use the neutral priority")
        self._prompts += prompts
        self._chars += chars
        self._all_returned.clear()

    def give_back(self, prompts: int, chars: int) -> None:
        """Return what one take() took."""
        self._prompts -= prompts
        self._chars -= chars
        assert self._prompts >= 0, "bug in ours: more permits returned than taken"
        assert self._chars >= 0, "bug in ours: more characters returned than taken"
        if self._prompts == 0:
            self._all_returned.set()

    def close(self) -> None:
        """Admit nothing from now on. What was admitted stays admitted."""
        self._closed = True

    async def all_returned(self) -> None:
        """Wait until no admitted call is unanswered. The caller brings the deadline."""
        await self._all_returned.wait()
