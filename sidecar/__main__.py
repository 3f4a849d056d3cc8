"""The composition root: builds everything, in order, and nothing else does.

Up: settings → verified bundles → sessions → golden prompts → engine → bind → SERVING. What fails on the way stops the start with
one line and exit code 1. SIGHUP: see reload. Down, on SIGTERM or SIGINT: see Server.stop. Exit code 0.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from sidecar import memory, settings_source
from sidecar.access.access import Access
from sidecar.engine import Engine, EngineLimits
from sidecar.errors import ServerEndedError, StartError
from sidecar.health import LIFECYCLE, Health, ranker_component
from sidecar.lane import Lane
from sidecar.loading import LoadedRanker, go_live, load_ranker
from sidecar.permits import Permits
from sidecar.rankers import Rankers
from sidecar.reload import Reloader
from sidecar.server import Server
from sidecar.settings import Settings
from sidecar.signals import handle_from_the_start, handled_signals
from sidecar.telemetry import logs
from sidecar.telemetry.telemetry import Telemetry, telemetry

_log = logging.getLogger("sidecar")

SWITCH_S = 0.0005
"""How long a thread keeps Python to itself while another asks for it. Python's own 5 ms is what a whole prompt takes on a CPU core.
With this, 64 callers got 3% more through on two cores, and one caller waited as long as before."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a stop signal. Returns the exit code."""
    # Tokenizing runs where we put it; the tokenizer's own pool, one thread per core, would fight the model threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = sys.argv[1:] if arguments is None else arguments
    handle_from_the_start()
    memory.arrange()
    sys.setswitchinterval(SWITCH_S)
    try:
        if settings_source.PRINT_FLAG in arguments:
            print("\n".join(settings_source.table(Settings, arguments, os.environ)))
            return 0
        settings = Settings.load(arguments, os.environ)
        logs.configure(settings.log_level, settings.log_format)
        access = Access.open(settings)
        folders = settings.bundle_folders()
        with telemetry(metrics_address=settings.metrics_address, tracing=settings.tracing, rankers=folders) as seen_by:
            loaded = {name: load_ranker(folder, settings) for name, folder in folders.items()}
            # What is loaded by now stays; keeping it out of every later collection takes their pauses from the tail of latency.
            gc.freeze()
            asyncio.run(serve(settings, access, loaded, seen_by))
    except StartError as error:
        # One line, whatever a library put into its message.
        logs.last_words("sidecar cannot start: " + " ".join(str(error).split()))
        return 1
    except ServerEndedError as error:
        logs.last_words(f"sidecar failed: {error}: {error.__cause__!r}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(settings: Settings, access: Access, loaded: dict[str, LoadedRanker], seen_by: Telemetry) -> None:
    """Build engine and server around the loaded rankers, serve until a stop signal, stop in order."""
    observer = seen_by.observer
    health = Health(LIFECYCLE, *map(ranker_component, loaded))
    observer.watch_health(lambda: health.serving)
    start_ranker = partial(go_live, settings=settings, health=health, observer=observer)
    # Taken out one by one: whoever else held them would keep their models in memory after a swap.
    rankers = Rankers({name: start_ranker(name, loaded.pop(name)) for name in list(loaded)})
    engine = Engine(
        rankers,
        Lane("tokenizer"),
        Lane("ngram"),
        Permits(settings.max_waiting_prompts, settings.max_waiting_chars),
        Permits(settings.max_waiting_prompts, settings.max_waiting_chars),
        EngineLimits(
            max_prompts_per_call=settings.max_prompts_per_call,
            max_wait_s=settings.max_wait_s,
            reserve_ms=settings.reserve_ms,
            tier_fallback=settings.tier_fallback,
        ),
        observer=observer,
    )
    reloader = Reloader(rankers, settings.bundle_folders(), partial(load_ranker, settings=settings), start_ranker, observer)
    server = Server(
        engine,
        health,
        max_message_bytes=settings.max_message_bytes,
        max_stream_items=settings.max_stream_items,
        access=access,
        seen_by=seen_by,
    )
    with handled_signals(on_reload=reloader.request) as stop_requests:
        try:
            address = await server.start(settings.address)
        except BaseException:
            await engine.close()
            raise
        reloading = asyncio.create_task(reloader.run())
        _log.info("serving address=%s rankers=%s", address, ",".join(rankers.names))
        asked = asyncio.create_task(stop_requests.first.wait())
        ended = asyncio.create_task(server.ended())
        await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        fault = ended.exception() if ended.done() else None
        reloading.cancel()
        await server.stop(settings.grace_s, stop_requests.again)
        await reloader.close()
        if not asked.done():
            # A process that lives on without its port would be found by nobody: health cannot be asked, and nothing restarts it.
            asked.cancel()
            raise ServerEndedError("the gRPC server ended without being asked to") from fault
        await ended
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
