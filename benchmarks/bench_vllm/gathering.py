"""Gathers the runs that are missing, one after the other, as long as there is time; each is kept as soon as it is there."""

import datetime
import http.client
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.bench_vllm.arms import Arm, arm_named
from benchmarks.bench_vllm.bench_serve import Load
from benchmarks.bench_vllm.figures import FIGURES, figures_of, run_figures, why_not_clean
from benchmarks.bench_vllm.kept_runs import KEY, key_of
from benchmarks.bench_vllm.plan import Planned, multiple, planned
from benchmarks.bench_vllm.requests import result_of
from benchmarks.bench_vllm.run import measure_capacity, run_arm
from benchmarks.bench_vllm.site import Bench, Site
from benchmarks.process import ProcessError
from benchmarks.report import plain
from vllm_client import RankerClientError

MAX_TRIES = 2
"""Of a run that is not clean, counting those of earlier calls. All are counted in the report."""

MAX_ERRORS = 3
"""Runs in a row of which nothing came: something is broken, and going on would only use up tries."""

SMOKE_CAPACITY = 0.95
"""Of what padded steps allow at most: taken for granted in a smoke run instead of measured."""

ERROR = "error"
"""The key of a try of which nothing came but a message."""

WENT_WRONG = (ProcessError, RankerClientError, OSError, http.client.HTTPException)
"""What a run may raise once it has begun: its engine, its ranker, or a connection to one of them."""

Run = Mapping[str, Any]


class Gathering:
    """The runs of a bench: which there are, which are missing. budget_s: begin none after so many seconds; None: go on to the end."""

    def __init__(self, bench: Bench, site: Site, budget_s: float | None = None) -> None:
        self._bench, self._site = bench, site
        self._deadline_s = None if budget_s is None else time.monotonic() + budget_s
        self._errors_in_a_row = 0
        self._loads: dict[tuple[str, int], Load] = {}
        self._capacity: dict[str, Any] | None = None

    def gather(self, low_load: Callable[[int], None]) -> None:
        """Make what is missing: all of repetition 1, then `low_load(1)`, and so on. A call tries each run once. Raises ProcessError when
        nothing works, RecordsError."""
        for repetition in range(1, max(self._bench.starts, self._bench.latency_starts) + 1):
            for run in self.planned(repetition) if self.in_time() else ():
                tries = self.tries(run)
                if len(tries) < MAX_TRIES and all(self.why_not_clean(each) for each in tries) and self.in_time():
                    self._try(run)
            if self.in_time() and repetition <= self._bench.latency_starts:
                low_load(repetition)

    def in_time(self) -> bool:
        """Whether another run may begin."""
        return self._deadline_s is None or time.monotonic() < self._deadline_s

    def planned(self, repetition: int) -> list[Planned]:
        if repetition > self._bench.starts:
            return []
        return list(planned(self._bench.arms, self._bench.loads, repetition))

    def tries(self, run: Planned) -> list[dict[str, Any]]:
        """All tries of a run that are kept; none while it is not known what the engine can do."""
        return [] if self.capacity() is None else self._site.kept.tries(run.name, self.depends_on(run))

    def why_not_clean(self, one_try: Run) -> str | None:
        """None for a clean one."""
        if ERROR in one_try:
            return str(one_try[ERROR])
        return why_not_clean(self.figures(one_try), self._bench.settings.step_ms)

    def figures(self, one_try: Run) -> dict[str, Any]:
        """As a report has them, of a run that is known from one alone; else made anew."""
        return one_try[FIGURES] if FIGURES in one_try else run_figures(one_try, self._bench.settings.step_ms)

    def load(self, load: str, repetition: int) -> Load:
        """The requests and their times. Raises ProcessError when it is not known what the engine can do."""
        if (load, repetition) not in self._loads:
            replay, capacity = self._bench.replay(load, repetition), self.capacity()
            if capacity is None:
                raise ProcessError("what the engine can do has not been measured")
            its_multiple = multiple(load)
            # Rounded as in reports, so that a report says all that makes its runs what they are.
            rate = plain(
                math.inf if its_multiple is None else its_multiple * capacity["tokens_per_s"] / replay.mean_output_tokens
            )
            self._loads[load, repetition] = Load(replay, len(replay.requests), rate, self._bench.seed_of(repetition))
        return self._loads[load, repetition]

    def depends_on(self, run: Planned) -> dict[str, Any]:
        """What makes it another run when it changes."""
        arm, load = arm_named(run.arm), self.load(run.load, run.repetition)
        return {
            **self._site.common,
            **(self._site.asking if arm.ranker == "sidecar" else {}),
            "settings": self._bench.settings,
            "arm": _arm_json(arm),
            "rate": str(load.request_rate),
            "replay": load.replay.sha256,
            "requests": load.requests,
            "seed": load.seed,
        }

    def capacity(self) -> dict[str, Any] | None:
        """Tokens per second of the full engine, measured where there is none yet and there is time; None: there was none.

        Measured until it is clean, MAX_TRIES times at most; then the largest counts. So it never changes once it is there.
        """
        if self._capacity is None:
            self._capacity = self._find_capacity()
        return self._capacity

    def _find_capacity(self) -> dict[str, Any] | None:
        settings = self._bench.settings
        if self._bench.smoke:
            return {"tokens_per_s": SMOKE_CAPACITY * settings.max_num_seqs * 1000 / settings.step_ms, "measured": False}
        replay = self._bench.common_replay()
        depends_on = {
            **self._site.common,
            "max_num_seqs": settings.max_num_seqs,
            "step_ms": settings.step_ms,
            "replay": replay.sha256,
        }
        # Before the machine's own, which differs in some digit: another capacity means other rates, with which none of the report's runs
        # would be known again.
        if reported := self._site.kept.reported(depends_on):
            return reported[0]
        while True:
            tries = self._site.kept.tries("capacity", depends_on)
            figures = [figures_of(result_of(each)) for each in tries]
            whys = [why_not_clean(each, settings.step_ms) for each in figures]
            clean = [each for each, why in zip(figures, whys, strict=True) if why is None]
            if clean or len(tries) >= MAX_TRIES:
                most = clean[0] if clean else max(figures, key=lambda each: float(each["output_tokens_per_s"]))
                return {
                    "tokens_per_s": plain(most["output_tokens_per_s"]),
                    "measured": True,
                    "tries": len(tries),
                    "clean": bool(clean),
                    KEY: key_of(depends_on),
                }
            if not self.in_time():
                return None
            _say("what the engine can do")
            measured = measure_capacity(self._site.paced, settings, replay, self._bench.seed)
            self._site.kept.add("capacity", depends_on, {**self._site.origin(), **measured})

    def _try(self, run: Planned) -> None:
        differs = self._site.kept.differs(run.name, self.depends_on(run))
        _say(f"{run.name}{' again, other than then: ' + ', '.join(differs) if differs else ''}")
        origin, load = self._site.origin(), self.load(run.load, run.repetition)
        try:
            happened = run_arm(self._site.paced, arm_named(run.arm), self._bench.settings, self._bench.bundle, load)
            self._errors_in_a_row = 0
        except WENT_WRONG as error:
            happened = {ERROR: str(error) or repr(error)}
            self._errors_in_a_row += 1
        kept = self._site.kept.add(run.name, self.depends_on(run), {**run._asdict(), **origin, **happened})
        if why := self.why_not_clean(kept):
            _say(f"{run.name} is not clean: {why}")
        if self._errors_in_a_row >= MAX_ERRORS:
            raise ProcessError(f"{MAX_ERRORS} runs in a row failed, the last one with: {happened[ERROR]}")


def _arm_json(arm: Arm) -> dict[str, Any]:
    return {"name": arm.name, "ranker": arm.ranker, "hook": arm.hook}


def _say(what: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {what}", file=sys.stderr, flush=True)
