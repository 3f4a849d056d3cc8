"""An engine around a fake model that tests hold by the hand: it runs when told to, and answers or fails as told."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pars.v1 import bundle_pb2, ranker_pb2
from sidecar.batching import BatchLimits, CostModel
from sidecar.calibration import Calibrator
from sidecar.engine import Engine, EngineLimits, ScoredCall
from sidecar.lane import Lane
from sidecar.observer import Observer
from sidecar.permits import Permits
from sidecar.ranker import Ranker, TierScorer
from sidecar.rankers import LiveRanker, Rankers
from sidecar.runner import BatchRunner
from sidecar.scorer import TokenizedPrompt

WAIT_S = 10.0
"""Deadline of every wait in these tests. Reached only when something is broken."""


class FakeClock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class FakeTokenizer:
    """One token per character, so that prompts are told apart by their length."""

    max_chars = 1_000

    def encode(self, prompts: Sequence[str]) -> list[TokenizedPrompt]:
        return [TokenizedPrompt(np.arange(len(prompt), dtype=np.int64), truncated=False) for prompt in prompts]


class HeldTokenizer(FakeTokenizer):
    """A tokenizer that announces each call and then waits to be let go."""

    def __init__(self) -> None:
        self.texts: list[int] = []
        self._started = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def encode(self, prompts: Sequence[str]) -> list[TokenizedPrompt]:
        self.texts.append(len(prompts[0]))
        self._started.release()
        assert self._go.acquire(timeout=WAIT_S), "the test never let this text go"
        return super().encode(prompts)

    async def started(self) -> None:
        """Wait until one more call is being tokenized."""
        assert await asyncio.to_thread(self._started.acquire, timeout=WAIT_S), "nothing was tokenized"

    def let_go(self, calls: int = 1) -> None:
        self._go.release(calls)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing announces."""
    give_up = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < give_up, "it never happened"
        await asyncio.sleep(0.001)


def length_scores(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.array([len(prompt.token_ids) for prompt in batch], dtype=np.float32)


class HeldScorer:
    """A model that announces each batch and then waits to be let go. `outcome` makes the scores or raises."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.outcome: Callable[[Sequence[TokenizedPrompt]], np.ndarray] = length_scores
        self._started = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._free = False

    def score(self, batch: Sequence[TokenizedPrompt]) -> np.ndarray:
        self.batches.append([len(prompt.token_ids) for prompt in batch])
        outcome = self.outcome
        self._started.release()
        if not self._free:
            assert self._go.acquire(timeout=WAIT_S), "the test never let this batch go"
        return outcome(batch)

    async def started(self) -> None:
        """Wait until one more batch is running."""
        assert await asyncio.to_thread(self._started.acquire, timeout=WAIT_S), "no batch was started"

    def let_go(self, batches: int = 1) -> None:
        self._go.release(batches)

    def run_free(self) -> None:
        """Hold no batch from now on, and let go the running ones."""
        self._free = True
        self._go.release(100)


class WatchedRunner(BatchRunner):
    """Says when a worker has posted something to the event loop."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.posted = threading.Semaphore(0)
        super().__init__(*arguments, **named)

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        super()._post(callback, *arguments)
        self.posted.release()

    @property
    def threads(self) -> list[threading.Thread]:
        return self._threads

    def hold_loop_until_posted(self) -> None:
        """Block the event loop's thread until a worker has posted: the batch has ended and nobody knows it yet."""
        assert self.posted.acquire(timeout=WAIT_S), "no batch ended"


def calibrator() -> Calibrator:
    return Calibrator(
        bundle_pb2.Calibration(
            scores=[0, 100], quantiles=[0, 1], expected_tokens=[10, 1000], expected_tokens_p90=[20, 3000], prompt_count=2
        )
    )


FIXED_COST = CostModel(fixed_ms=1e-3, per_token_ms=1e-9)
"""A model that only gains from batches, so that the policy forms one of all that fit; and so quick that any deadline leaves time."""


class RecordingObserver(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.scored_as: list[tuple[str, str]] = []
        self.reloads: list[tuple[str, str]] = []

    def scored(self, ranker: str, tier: str, reason: str, prompts: int, queue_s: float) -> None:
        self.scored_as.append((tier, reason))

    def reloaded(self, ranker: str, outcome: str) -> None:
        self.reloads.append((ranker, outcome))


class Rig:
    """Everything around one engine. Batches hold one prompt each unless told otherwise; use inside a running loop."""

    def __init__(
        self,
        *,
        workers: int = 1,
        capacity: int = 8,
        max_chars: int = 1_000_000,
        max_prompts_per_call: int = 8,
        tier_fallback: bool = False,
        reserve_ms: float = 0.0,
        max_wait_s: float = 1_000.0,
        cost: CostModel = FIXED_COST,
        max_batch_prompts: int = 1,
        probe_s: float = 1_000.0,
        lane: Lane | None = None,
        tokenizer: Any = None,
        with_ngram: bool = True,
    ) -> None:
        self.clock = FakeClock()
        self.scorer = HeldScorer()
        self.ngram = HeldScorer()
        self.ngram.run_free()
        self.health: list[bool] = []
        self.health_changed = asyncio.Event()
        self.permits = Permits(capacity, max_chars)
        self.ngram_permits = Permits(capacity, max_chars)
        self.observer = RecordingObserver()
        self.lane = lane or Lane("tokenizer")
        self.ngram_lane = Lane("ngram")
        self._runner_options: dict[str, Any] = {
            "workers": workers,
            "window_prompts": 128,
            "on_health": self._note_health,
            "observer": self.observer,
            "clock": self.clock,
            "probe_s": probe_s,
        }
        self._limits = BatchLimits(max_batch_prompts, 100_000)
        self._cost = cost
        self._tokenizer = tokenizer or FakeTokenizer()
        self._with_ngram = with_ngram
        self.runners: list[WatchedRunner] = []
        self.rankers = Rankers({"default": self.make_live(self.scorer)})
        self.engine = Engine(
            self.rankers,
            self.lane,
            self.ngram_lane,
            self.permits,
            self.ngram_permits,
            EngineLimits(max_prompts_per_call, max_wait_s=max_wait_s, reserve_ms=reserve_ms, tier_fallback=tier_fallback),
            observer=self.observer,
            clock=self.clock,
        )
        self.tasks: list[asyncio.Task[ScoredCall]] = []

    @property
    def runner(self) -> WatchedRunner:
        """The first bundle's."""
        return self.runners[0]

    def make_live(self, scorer: HeldScorer, bundle_id: str = "0123456789abcdef", name: str = "default") -> LiveRanker:
        """A ranker around a fake model, running; not yet the engine's."""
        runner = WatchedRunner(scorer, self._cost, self._limits, **self._runner_options)
        self.runners.append(runner)
        ranker = Ranker(
            manifest=bundle_pb2.BundleManifest(bundle_id=bundle_id),
            execution_provider="FakeExecutionProvider",
            tokenizer=self._tokenizer,
            encoder=TierScorer(ranker_pb2.TIER_ENCODER, scorer, calibrator()),
            ngram=TierScorer(ranker_pb2.TIER_NGRAM, self.ngram, calibrator()) if self._with_ngram else None,
        )
        return LiveRanker(name, ranker, runner)

    def _note_health(self, well: bool) -> None:
        self.health.append(well)
        self.health_changed.set()

    async def call(self, *lengths: int, timeout_s: float | None = None, tier: int = 0) -> asyncio.Task[ScoredCall]:
        """Start a call with prompts of these lengths and let it come as far as it gets without a batch ending."""
        task = asyncio.ensure_future(self.engine.score(["x" * length for length in lengths], tier, timeout_s))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def running(self, *lengths: int, timeout_s: float | None = None) -> asyncio.Task[ScoredCall]:
        """Start a call and wait until a batch of it runs."""
        task = await self.call(*lengths, timeout_s=timeout_s)
        await self.scorer.started()
        return task

    async def running_on(self, scorer: HeldScorer, *lengths: int) -> asyncio.Task[ScoredCall]:
        """The same on a model that has taken the place of the first."""
        task = await self.call(*lengths)
        await scorer.started()
        return task

    async def answer(self, task: asyncio.Task[ScoredCall]) -> list[float]:
        """The scores a call was answered with; raises what it was refused with."""
        return (await asyncio.wait_for(task, WAIT_S)).scores

    async def assert_clean(self) -> None:
        """Every caller has its answer, and no permit, entry, backlog or task is left."""
        _, pending = await asyncio.wait(self.tasks, timeout=WAIT_S)
        assert not pending, "a caller was left waiting"
        for permits in (self.permits, self.ngram_permits):
            assert permits.taken == 0
            assert permits.taken_chars == 0
        for runner in self.runners:
            assert runner.waiting_prompts == 0
            assert runner.unanswered_calls == 0
        assert self.lane.backlog_chars == self.ngram_lane.backlog_chars == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def close(self) -> None:
        self.scorer.run_free()
        await self.engine.close()
        for runner in self.runners:
            await runner.close()
