"""The composition root: builds everything, in order, and nothing else does.

Up: settings → verified bundle → session → golden prompts → engine → bind → SERVING. What fails on the way stops the start with
one line and exit code 1. Down, on SIGTERM or SIGINT: see Server.stop. Exit code 0.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Sequence

from sidecar import cost_model, settings_source
from sidecar.batching import BatchLimits, CostModel
from sidecar.engine import Engine
from sidecar.errors import StartError
from sidecar.health import Health
from sidecar.lane import TokenizerLane
from sidecar.permits import Permits
from sidecar.ranker import Ranker
from sidecar.runner import BatchRunner
from sidecar.server import Server, stop_signals
from sidecar.session import CUDA
from sidecar.settings import CUDA_WORKERS, DEFAULT_RANKER, Settings

_log = logging.getLogger("sidecar")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a stop signal. Returns the exit code."""
    # Tokenizing runs where we put it; the tokenizer's own pool, one thread per core, would fight the model threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if settings_source.PRINT_FLAG in arguments:
            print("\n".join(settings_source.table(Settings, arguments, os.environ)))
            return 0
        settings = Settings.load(arguments, os.environ)
        logging.basicConfig(
            stream=sys.stderr, level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        workers, threads = settings.cpu_threads()
        ranker = Ranker.load(settings.bundle_folders()[DEFAULT_RANKER], settings.provider, threads)
        max_tokens = ranker.manifest.input.max_tokens
        settings.check_fits(max_tokens)
        cost = cost_model.measure(ranker.encoder.scorer, max_tokens)
        if ranker.execution_provider == CUDA:
            workers = settings.workers or CUDA_WORKERS
        # What is loaded by now stays; keeping it out of every later collection takes their pauses from the tail of latency.
        gc.freeze()
        asyncio.run(serve(settings, ranker, cost, workers))
    except StartError as error:
        # One line, whatever a library put into its message.
        print("sidecar cannot start:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(settings: Settings, ranker: Ranker, cost: CostModel, workers: int) -> None:
    """Build engine and server around a loaded ranker, serve until a stop signal, stop in order."""
    health = Health("model", "lifecycle")
    health.set("model", True)

    def on_health(well: bool) -> None:
        _log.log(logging.INFO if well else logging.ERROR, "model %s", "recovered" if well else "failed, NOT_SERVING")
        health.set("model", well)

    runner = BatchRunner(
        ranker.encoder.scorer,
        cost,
        BatchLimits(settings.max_batch_prompts, settings.max_batch_tokens),
        workers=workers,
        window_prompts=settings.window_prompts,
        on_health=on_health,
    )
    engine = Engine(
        ranker,
        runner,
        TokenizerLane(),
        Permits(settings.max_waiting_prompts),
        max_prompts_per_call=settings.max_prompts_per_call,
    )
    server = Server(engine, health, max_message_bytes=settings.max_message_bytes, max_stream_items=settings.max_stream_items)
    with stop_signals() as stop_requests:
        try:
            address = await server.start(settings.address)
        except BaseException:
            await engine.close()
            raise
        _log.info(
            "serving bundle=%s address=%s provider=%s workers=%d fixed_ms=%.3f per_token_ms=%.5f",
            ranker.manifest.bundle_id,
            address,
            ranker.execution_provider,
            workers,
            cost.fixed_ms,
            cost.per_token_ms,
        )
        await stop_requests.first.wait()
        await server.stop(settings.grace_s, stop_requests.again)
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
