"""The rankers of this process by name, each replaceable while it serves. A call keeps the one it began with to its end."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sidecar.errors import InvalidRequestError
from sidecar.ranker import Ranker
from sidecar.runner import BatchRunner


class LiveRanker:
    """A loaded ranker with the threads that run its encoder. Everything happens on the event loop's thread."""

    def __init__(self, name: str, ranker: Ranker, runner: BatchRunner) -> None:
        self.name = name
        self.ranker = ranker
        self.runner = runner
        self._calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def bundle_id(self) -> str:
        return self.ranker.manifest.bundle_id

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Around one call: until its end unused() waits."""
        self._calls += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._unused.set()

    async def unused(self) -> None:
        """Wait until the calls that began with this ranker are answered. Each call's own deadline bounds that."""
        await self._unused.wait()

    async def close(self) -> None:
        """Answer everybody who still waits with NotServingError and stop the threads."""
        await self.runner.close()


class Rankers:
    """Live rankers by name; the first one given is the default, which the empty name means too."""

    def __init__(self, live: Mapping[str, LiveRanker]) -> None:
        assert live, "bug in ours: a server without a ranker"
        self._live = dict(live)
        self._default = next(iter(live))
        self._retiring: set[LiveRanker] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the default first."""
        return tuple(self._live)

    def get(self, name: str) -> LiveRanker:
        """The ranker a request means. Raises InvalidRequestError for one that is not there."""
        live = self._live.get(name or self._default)
        if live is None:
            raise InvalidRequestError("this server has no ranker of that name; GetBundle lists those it has")
        return live

    def replace(self, live: LiveRanker) -> LiveRanker:
        """From now on this one answers under its name. Returns the one before it, which its calls still need: see retire."""
        before = self._live[live.name]
        before.runner.stop_reporting()
        self._retiring.add(before)
        self._live[live.name] = live
        return before

    async def retire(self, before: LiveRanker) -> None:
        """Close a replaced ranker after its last call, and forget it."""
        try:
            await before.unused()
        finally:
            await before.close()
            self._retiring.discard(before)

    async def close(self) -> None:
        """Answer everybody who still waits with NotServingError, at once, and stop all threads, those of replaced ones too."""
        everybody = (*self._live.values(), *self._retiring)
        for live in everybody:
            live.runner.stop()
        await asyncio.gather(*(live.close() for live in everybody))
