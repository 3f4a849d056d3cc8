"""From a bundle folder to a live ranker: verify, open, prove on the golden prompts, time it. At the start and for every swap."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from sidecar import cost_model
from sidecar.batching import BatchLimits, CostModel
from sidecar.errors import ModelError, WarmUpError
from sidecar.health import Health, ranker_component
from sidecar.observer import Observer
from sidecar.ranker import Ranker
from sidecar.rankers import LiveRanker
from sidecar.runner import BatchRunner
from sidecar.session import CPU, CUDA
from sidecar.settings import CUDA_WORKERS, Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedRanker:
    """A proven ranker and what its batches cost on this machine."""

    ranker: Ranker
    cost: CostModel


def load_ranker(folder: Path, settings: Settings) -> LoadedRanker:
    """Load and prove a bundle. Takes a second or so and may run on any thread.

    Raises BundleError, ProviderError, WarmUpError, or SettingsError when the settings do not fit the bundle.
    """
    _log.debug("loading folder=%s", folder)
    workers, threads = settings.cpu_threads()
    ranker = Ranker.load(folder, settings.provider, threads, workers)
    max_tokens = ranker.manifest.input.max_tokens
    settings.check_fits(max_tokens)
    try:
        # A run of ONNX Runtime's on one core is timed by its thread's own clock: a bundle is also loaded beside one that serves.
        on_this_thread = threads == 1 and ranker.execution_provider == CPU
        clock = time.thread_time_ns if on_this_thread else time.perf_counter_ns
        return LoadedRanker(ranker, cost_model.measure(ranker.encoder.scorer, max_tokens, clock))
    except ModelError as error:
        raise WarmUpError(f"bundle {folder}: a batch cannot be run: {error}") from error


def go_live(name: str, loaded: LoadedRanker, settings: Settings, health: Health, observer: Observer) -> LiveRanker:
    """Start the threads of a loaded ranker. On the event loop's thread. `health` needs the ranker's component."""
    ranker, cost = loaded.ranker, loaded.cost
    workers, _ = settings.cpu_threads()
    if ranker.execution_provider == CUDA:
        workers = settings.workers or CUDA_WORKERS

    # Without a word of the live ranker itself: the circle would keep it, and its model's memory, long after a swap.
    def on_health(well: bool) -> None:
        _log.log(
            logging.INFO if well else logging.ERROR, "model %s ranker=%s", "recovered" if well else "failed, NOT_SERVING", name
        )
        health.set(ranker_component(name), well)

    runner = BatchRunner(
        ranker.encoder.scorer,
        cost,
        BatchLimits(settings.max_batch_prompts, settings.max_batch_tokens),
        workers=workers,
        window_prompts=settings.window_prompts,
        on_health=on_health,
        name=name,
        observer=observer,
    )
    live = LiveRanker(name, ranker, runner)
    health.set(ranker_component(name), True)
    observer.watch_waiting(name, lambda: runner.waiting_prompts)
    observer.serving(name, live.bundle_id, ranker.manifest.model_name, ranker.execution_provider)
    _log.info(
        "ranker ready name=%s bundle=%s provider=%s workers=%d fixed_ms=%.3f per_token_ms=%.5f",
        name,
        live.bundle_id,
        ranker.execution_provider,
        workers,
        cost.fixed_ms,
        cost.per_token_ms,
    )
    return live
