"""Swap bundles while serving: on request, read every ranker's folder again, and put what is new in the place of what serves.

A new bundle is verified, opened, proven and timed beside the running one. Only then one reference changes; calls that began with
the old one end with it. A bundle that fails on the way is refused and the old one goes on.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from sidecar import memory
from sidecar.errors import StartError
from sidecar.loading import LoadedRanker
from sidecar.observer import Observer
from sidecar.rankers import LiveRanker, Rankers

Result = TypeVar("Result")

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
        if not await self._swapped(name, folder):
            # What was loaded for nothing is gone by now.
            await on_a_thread(memory.give_back)

    async def _swapped(self, name: str, folder: Path) -> bool:
        before = self._rankers.get(name)
        try:
            loaded = await on_a_thread(lambda: self._load(folder))
            if loaded.ranker.manifest.bundle_id == before.bundle_id:
                _log.info("reload found the same bundle=%s ranker=%s", before.bundle_id, name)
                self._observer.reloaded(name, "unchanged")
                return False
            live = self._go_live(name, loaded)
        except Exception as error:
            # Whatever it was, the old bundle still serves, and the next request must find us waiting for it.
            expected = isinstance(error, StartError)
            why = " ".join(str(error).split()) if expected else f"a bug in ours: {error!r}"
            _log.error(
                "reload refused, bundle=%s goes on ranker=%s: %s",
                before.bundle_id,
                name,
                why,
                exc_info=None if expected else error,
            )
            self._observer.reloaded(name, "refused")
            return False
        retiring = asyncio.create_task(self._retire(self._rankers.replace(live)))
        # The set keeps the task from being collected while it waits.
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self._observer.reloaded(name, "swapped")
        _log.info("swapped ranker=%s bundle=%s, before it bundle=%s", name, live.bundle_id, before.bundle_id)
        return True

    async def close(self) -> None:
        """Wait for no replaced ranker's last calls any more. They get UNAVAILABLE."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _retire(self, before: LiveRanker) -> None:
        await self._rankers.retire(before)
        del before  # the last reference: only now is there memory to give back
        await on_a_thread(memory.give_back)


async def on_a_thread(work: Callable[[], Result]) -> Result:
    """Like asyncio.to_thread, but a process that ends does not wait for it: a bundle may lie on a disk that does not answer."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():  # whoever waited has left
            return
        if error is None:
            future.set_result(cast(Result, result))
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="reload", daemon=True).start()
    return await future
