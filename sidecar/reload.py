"""Swap bundles while serving: on request, read every ranker's folder again, and put what is new in the place of what serves.

A new bundle is verified, opened, proven and timed beside the running one. Only then one reference changes; calls that began with
the old one end with it. A bundle that fails on the way is refused and the old one goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar import memory
from sidecar.errors import StartError
from sidecar.loading import LoadedRanker
from sidecar.observer import Observer
from sidecar.rankers import LiveRanker, Rankers

_log = logging.getLogger(__name__)


class Reloader:
    """Reloads on request, one ranker at a time, one reload at a time. To be used on the event loop's thread.

    load: from a folder to a proven ranker; runs on a thread beside the loop and raises StartError for one that cannot serve.
    go_live: starts its threads; runs on the loop.
    """

    def __init__(
        self,
        rankers: Rankers,
        folders: Mapping[str, Path],
        load: Callable[[Path], LoadedRanker],
        go_live: Callable[[str, LoadedRanker], LiveRanker],
        observer: Observer,
    ) -> None:
        self._rankers = rankers
        self._folders = folders
        self._load = load
        self._go_live = go_live
        self._observer = observer
        self._requested = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    def request(self) -> None:
        """Ask for a reload. Asked again while one runs, one more follows it."""
        self._requested.set()

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            for name, folder in self._folders.items():
                await self.reload(name, folder)

    async def reload(self, name: str, folder: Path) -> None:
        """Read one ranker's folder again and swap if it holds another bundle now. Never raises for a bad bundle."""
        before = self._rankers.get(name)
        try:
            loaded = await asyncio.to_thread(self._load, folder)
        except Exception as error:
            # Whatever it was, the old bundle still serves, and the next request must find us waiting for it.
            why = " ".join(str(error).split()) if isinstance(error, StartError) else f"a bug in ours: {error!r}"
            _log.error("reload refused, bundle=%s goes on ranker=%s: %s", before.bundle_id, name, why)
            self._observer.reloaded(name, "refused")
            return
        if loaded.ranker.manifest.bundle_id == before.bundle_id:
            _log.info("reload found the same bundle=%s ranker=%s", before.bundle_id, name)
            self._observer.reloaded(name, "unchanged")
            return
        live = self._go_live(name, loaded)
        retiring = asyncio.create_task(self._retire(self._rankers.replace(live)))
        # The set keeps the task from being collected while it waits.
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self._observer.reloaded(name, "swapped")
        _log.info("swapped ranker=%s bundle=%s, before it bundle=%s", name, live.bundle_id, before.bundle_id)

    async def close(self) -> None:
        """Close what still waits for its last calls. They get UNAVAILABLE."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _retire(self, old: LiveRanker) -> None:
        try:
            await old.unused()
        finally:
            await old.close()
        del old  # the last reference: only now is there memory to give back
        await asyncio.to_thread(memory.give_back)
