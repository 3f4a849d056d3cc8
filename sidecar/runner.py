"""Waiting prompts, worker threads, answers. Which prompts run together is decided in `batching`, how they run in the scorer.

One worker thread per allotted core. A free worker itself picks the next batch under the lock, so that nothing is handed over
between batches and no timer is needed: a lone prompt runs at once, and batches form by themselves while others run. Each
finished batch makes one hop back to the event loop, which alone touches futures.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sidecar.batching import BatchLimits, CostModel, next_batch
from sidecar.errors import CallError, DeadlineError, ModelError, NotServingError, ScoringFailedError
from sidecar.load import LoadEstimate, LoopLag
from sidecar.niceness import step_back
from sidecar.observer import Observer
from sidecar.scorer import Scorer, TokenizedPrompt
from sidecar.tier_rule import Expectation
from sidecar.waiting import Waiting

JOIN_S = 10.0
"""How long close() waits for a running batch. One batch is bounded by max_batch_tokens, a second or two on a slow core."""

PROBE_S = 1.0
"""How often a failed model is tried while nobody calls. Load balancers send nothing to a red server, so without a probe one
failure would keep it red for ever."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """scores: one per prompt, same order. queue_time_ns: until the last prompt entered a batch. infer_time_ns: the longest run."""

    scores: list[float]
    queue_time_ns: int
    infer_time_ns: int


@dataclass(slots=True, eq=False)
class _Call:
    """One caller, waiting for all of its prompts."""

    answer: asyncio.Future[RunResult]
    deadline_ns: int | None
    queued_ns: int
    scores: list[float]
    unscored: int
    entries: "list[_Entry]" = field(default_factory=list)
    started_ns: int = 0
    infer_time_ns: int = 0


@dataclass(slots=True, eq=False)
class _Entry:
    """One prompt waiting. The probe is an entry without a call."""

    prompt: TokenizedPrompt
    length: int
    call: _Call | None = None
    index: int = 0

    @property
    def deadline_ns(self) -> int | None:
        return None if self.call is None else self.call.deadline_ns

    def time_left_ms(self, now_ns: int) -> float:
        return math.inf if self.deadline_ns is None else (self.deadline_ns - now_ns) / 1e6


class BatchRunner:
    """Scores lists of tokenized prompts in batches. All methods belong to the event loop's thread.

    name: the ranker's, as the observer is told. on_health is called on that thread with False when a batch failed and with True
    when one succeeded again. clock: monotonic, nanoseconds; deadlines are points on it.
    """

    def __init__(
        self,
        scorer: Scorer,
        cost: CostModel,
        limits: BatchLimits,
        *,
        workers: int,
        window_prompts: int,
        on_health: Callable[[bool], None],
        name: str = "",
        observer: Observer | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        probe_s: float = PROBE_S,
    ) -> None:
        self._scorer = scorer
        self._cost = cost
        self._name = name
        self._observer = observer or Observer()
        self._limits = limits
        self._window_prompts = window_prompts
        self._on_health = on_health
        self._clock = clock
        self._probe_s = probe_s
        # Guarded by the condition's lock: everything down to _closed.
        self._changed = threading.Condition()
        self._waiting: Waiting[_Entry] = Waiting()
        self._load = LoadEstimate(cost, workers)
        self._ends_ns: dict[int, int] = {}  # when the batch of each busy worker is expected to end, by thread
        self._idle_workers = 0
        self._last_failed = False
        self._closed = False
        # Of the event loop's thread alone.
        self._calls: set[_Call] = set()
        self._lag = LoopLag()
        self._healthy = True
        self._loop = asyncio.get_running_loop()
        self._threads = [threading.Thread(target=self._work, name=f"model-{n}", daemon=True) for n in range(workers)]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the system gives no more threads; those it gave must not stay
            self.stop()
            raise

    @property
    def waiting_prompts(self) -> int:
        """Prompts that are in no batch yet."""
        return len(self._waiting)

    @property
    def unanswered_calls(self) -> int:
        """Calls whose caller is still waiting."""
        return len(self._calls)

    def expect(self, prompts: Sequence[TokenizedPrompt]) -> tuple[Expectation, float]:
        """What the encoder would take for a call of these prompts that came now, and how late the event loop is, in milliseconds."""
        lengths = [_length(prompt) for prompt in prompts]
        now = self._clock()
        with self._changed:
            running_ms = [max(end_ns - now, 0) / 1e6 for end_ns in self._ends_ns.values()]
            expected = self._load.expect(lengths, len(self._waiting), self._waiting.tokens, running_ms, now)
        return expected, self._lag.lag_ms(now)

    async def score(self, prompts: Sequence[TokenizedPrompt], deadline_ns: int | None = None) -> RunResult:
        """Score all of the prompts or none. A cancelled caller's prompts are dropped unless they run already.

        Raises DeadlineError when the deadline passes, and as soon as it is certain to pass before a batch could end;
        ScoringFailedError when one of its batches fails; NotServingError when the runner is closed.
        """
        now = self._clock()
        if deadline_ns is not None and now >= deadline_ns:
            raise DeadlineError("the deadline passed before the prompts could be queued")
        call = _Call(self._loop.create_future(), deadline_ns, now, [0.0] * len(prompts), len(prompts))
        call.entries = [_Entry(prompt, _length(prompt), call, n) for n, prompt in enumerate(prompts)]
        with self._changed:
            if self._closed:
                raise NotServingError("the server is stopping")
            self._waiting.add(call.entries)
            self._changed.notify(len(call.entries))
        self._calls.add(call)
        timer = None if deadline_ns is None else self._loop.call_later((deadline_ns - now) / 1e9, self._time_is_up, call)
        try:
            return await call.answer
        finally:
            if timer is not None:
                timer.cancel()
            self._calls.discard(call)
            if call.unscored:
                self._drop(call)
            # Nothing is left for the garbage collector, which seldom looks, while each circle keeps this runner and its model: entries
            # and their call refer to each other, and the traceback of an error in the answer refers to this frame.
            call.entries.clear()
            del call

    def stop_reporting(self) -> None:
        """From now on this runner's failures are its callers' alone: on_health is not called any more."""
        self._on_health = _nobody

    def stop(self) -> None:
        """Answer everybody who still waits with NotServingError, and start nothing more."""
        for call in self._calls:
            self._answer(call, NotServingError("the server is stopping"))
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    async def close(self) -> None:
        """Stop, let the running batches end, and with them the workers."""
        self.stop()
        give_up = time.monotonic() + JOIN_S
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(give_up - time.monotonic(), 0))
            if thread.is_alive():
                _log.error("a model run did not end within %g s; leaving it behind", JOIN_S)

    # --- on the event loop's thread ---

    @staticmethod
    def _answer(call: _Call, outcome: RunResult | CallError) -> None:
        # The one place that answers callers. A caller that left has a cancelled future, which counts as done.
        if call.answer.done():
            return
        if isinstance(outcome, RunResult):
            call.answer.set_result(outcome)
        else:
            call.answer.set_exception(outcome)

    def _drop(self, call: _Call) -> None:
        with self._changed:
            self._waiting.remove(call.entries)

    def _time_is_up(self, call: _Call) -> None:
        assert call.deadline_ns is not None, "bug in ours: a timer without a deadline"
        now = self._clock()
        self._lag.lagged(max(now - call.deadline_ns, 0) / 1e6, now)
        self._expire((call,))

    def _expire(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            self._answer(call, DeadlineError("the prompts could not be scored before the deadline"))

    def _deliver(self, batch: Sequence[_Entry], scores: list[float] | None, started_ns: int, infer_time_ns: int) -> None:
        now = self._clock()
        self._lag.lagged((now - started_ns - infer_time_ns) / 1e6, now)
        self._set_health(scores is not None)
        if scores is None:
            for call in {entry.call for entry in batch if entry.call is not None}:
                # The rest of a failed call is not worth running: a call is scored whole or not at all.
                self._drop(call)
                self._answer(call, ScoringFailedError("the model failed on this batch"))
            return
        for entry, score in zip(batch, scores, strict=True):
            if entry.call is not None:
                self._add_score(entry.call, entry.index, score, started_ns, infer_time_ns)

    def _add_score(self, call: _Call, index: int, score: float, started_ns: int, infer_time_ns: int) -> None:
        call.scores[index] = score
        call.started_ns = max(call.started_ns, started_ns)
        call.infer_time_ns = max(call.infer_time_ns, infer_time_ns)
        call.unscored -= 1
        if not call.unscored:
            self._answer(call, RunResult(call.scores, call.started_ns - call.queued_ns, call.infer_time_ns))

    def _set_health(self, healthy: bool) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            self._on_health(healthy)

    # --- on worker threads ---

    def _work(self) -> None:
        step_back()
        while batch := self._take():
            started_ns = self._clock()
            scores = self._run(batch)
            took_ns = self._clock() - started_ns
            self._post(self._deliver, batch, scores, started_ns, took_ns)
            tokens = sum(entry.length for entry in batch)
            # Not _healthy: that one changes on the loop's thread, when this worker may already be asleep without a timeout.
            with self._changed:
                self._last_failed = scores is None
                del self._ends_ns[threading.get_ident()]
                if scores is not None:  # how soon a model fails says nothing of how long it takes
                    self._load.ran(len(batch), tokens, took_ns / 1e6, started_ns + took_ns)
            padded_tokens = len(batch) * max(entry.length for entry in batch)
            self._observer.batch_ran(self._name, len(batch), tokens, padded_tokens, took_ns / 1e9, scores is not None)

    def _take(self) -> list[_Entry]:
        """Wait for work and return the next batch; an empty one means stop."""
        with self._changed:
            while not self._closed:
                if self._waiting:
                    if batch := self._choose():
                        return batch
                    continue
                self._idle_workers += 1
                woken = self._changed.wait(self._probe_s if self._last_failed else None)
                self._idle_workers -= 1
                if not woken and self._last_failed and not self._waiting:
                    return self._begun([_Entry(TokenizedPrompt(np.zeros(1, dtype=np.int64), truncated=False), 1)])
        return []

    def _choose(self) -> list[_Entry]:
        """Take the next batch out of the oldest waiting entries; empty when none of those could be done in time. Holds the lock."""
        window = self._waiting.oldest(self._window_prompts)
        now = self._clock()
        slowdown = self._load.slowdown(now)
        lengths = [entry.length for entry in window]
        time_left_ms = None
        if any(entry.deadline_ns is not None for entry in window):
            time_left_ms = [entry.time_left_ms(now) / slowdown for entry in window]
            late = [
                entry
                for entry, length, left_ms in zip(window, lengths, time_left_ms, strict=True)
                if self._cost.run_ms(1, length) > left_ms
            ]
            if late:
                # Their callers hear of it at once; the others are looked at again without them.
                self._waiting.remove(late)
                self._post(self._expire, list({entry.call: None for entry in late}))
                return []
        try:
            chosen = next_batch(lengths, self._cost, self._limits, self._idle_workers + 1, time_left_ms)
        except Exception:
            # A fault of the policy must not end this thread and leave callers waiting; the oldest prompt alone is always a batch.
            _log.exception("a bug in ours: the batching policy failed on the lengths %s", lengths)
            chosen = [0]
        batch = [window[position] for position in chosen]
        self._waiting.remove(batch)
        return self._begun(batch)

    def _begun(self, batch: list[_Entry]) -> list[_Entry]:
        now = self._clock()
        run_ms = self._load.run_ms(len(batch), max(entry.length for entry in batch), now)
        self._ends_ns[threading.get_ident()] = now + int(run_ms * 1e6)
        return batch

    def _run(self, batch: Sequence[_Entry]) -> list[float] | None:
        """One model run. None when it failed; the log says why, without a word of any prompt."""
        try:
            scores = self._scorer.score([entry.prompt for entry in batch])
            if scores.shape != (len(batch),):
                raise ModelError(f"the scorer returned shape {list(scores.shape)} for {len(batch)} prompts")
            if not np.isfinite(scores).all():
                raise ModelError("the scorer returned a score that is not finite")
        except ModelError as error:
            _log.error("a batch failed: %s", error)
            return None
        except Exception as error:
            # Only the type: the text of a foreign exception may quote its input.
            _log.error("a batch failed with %s", type(error).__name__)
            return None
        return list(map(float, scores))

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: close() had given up on this thread, and nobody is left to answer.
            _log.debug("a batch ended after its event loop")


def _nobody(well: bool) -> None:
    """Takes no notice."""


def _length(prompt: TokenizedPrompt) -> int:
    # A tokenizer may add nothing to the empty text; the session reads that as one padding token.
    return max(len(prompt.token_ids), 1)
