"""One engine, as vLLM V1 schedules: read in v1/core/sched/scheduler.py of 0.32.0, and compared with that class itself in tests/vllm.

In every step each running job decodes one token, in the order of admission; a prompt that did not fit into the token budget goes on
being read. When blocks run out, the running job with the largest key loses what it has and waits again. Unless that happened, waiting
jobs are then admitted in the order of their keys, as long as there are slots, tokens of the budget, and blocks for all tokens that a
job has so far. With its last token a job gives its slot to the next step, or to the one after that when the next one has been
scheduled already.

Left out: prefix caching, speculative decoding, adapters, grammars, watermarks, transfers of KV caches.
"""

import heapq
from bisect import bisect_right
from dataclasses import dataclass, field

from benchmarks.simulator.decoding import Decoding
from benchmarks.simulator.disciplines import NEVER, Discipline, Key
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.job import Job
from benchmarks.simulator.step_model import StepModel, Stretch
from benchmarks.simulator.waiting import waiting_for


@dataclass(slots=True)
class _Step:
    """What is scheduled for one step. begun: jobs whose prompts are read to the end, so that they make a token."""

    sequences: int = 0
    prefill_tokens: int = 0
    context_tokens: int = 0
    budget: int = 0
    begun: list[Job] = field(default_factory=list)
    made_room: bool = False


class Engine:
    """Jobs are submitted in the order of their arrival, each after `run_until` its arrival. Times in ticks.

    fast_forward: jump over steps in which nothing changes. It changes nothing but the time it takes.
    """

    def __init__(
        self, settings: EngineSettings, step_model: StepModel, discipline: Discipline, *, fast_forward: bool = True
    ) -> None:
        self.steps = 0
        self.preemptions = 0
        self.deepest_queue = 0
        """Most jobs that a step left waiting: those it admitted are not counted, nor does vLLM count them."""
        self._settings = settings
        self._ticks = step_model.in_ticks()
        self._discipline = discipline
        self._fast_forward = fast_forward
        self._incoming: list[tuple[int, int, Job]] = []
        self._waiting = waiting_for(discipline)
        self._running: list[Job] = []
        """In order of admission."""
        self._prefilling: Job | None = None
        """The one whose prompt is not yet read to its end: always the last one, since it takes the rest of the budget."""
        self._decoding = Decoding(settings.block_tokens)
        self._ended: list[Job] = []
        """Jobs whose last token is made in a step that still runs: nobody knows yet that they are done."""
        self._free_blocks = settings.kv_blocks
        self._now = 0
        """When the next step is scheduled."""
        self._last_step_ends = 0
        self._submitted = 0
        self._finished: list[int] = []

    def submit(self, job: Job) -> None:
        """A job that enters at `job.entered`, not before the time that the engine was run until. Raises ValueError for one that no
        empty engine could run."""
        longest = job.request.prompt_tokens + job.request.output_tokens - 1
        if self._settings.blocks_for(longest) > self._settings.kv_blocks:
            raise ValueError(f"{longest} tokens do not fit into {self._settings.kv_blocks} blocks")
        self._submitted += 1
        heapq.heappush(self._incoming, (job.entered, job.index, job))

    def unfinished(self, now: int) -> int:
        """Jobs that were submitted and are not done at `now`, a time that the engine was run until."""
        return self._submitted - bisect_right(self._finished, now)

    def run_until(self, limit: int | None) -> None:
        """Take every scheduling decision that falls before `limit`; None: until everybody is done."""
        while limit is None or self._now < limit:
            if not self._running and not self._waiting:
                if not self._incoming or (limit is not None and self._incoming[0][0] >= limit):
                    return
                self._now = max(self._now, self._incoming[0][0])
            self._schedule(limit)

    def _schedule(self, limit: int | None) -> None:
        """One step, and those that follow it and are like it."""
        self._release_ended()
        self._take_incoming()
        self._reconsider()
        step = self._run_on()
        if not step.made_room:
            self._admit(step)
        self.deepest_queue = max(self.deepest_queue, len(self._waiting))
        if step.sequences:
            self._execute(step, limit)
        else:
            assert step.made_room or self._ended or not (self._running or self._waiting), "bug in ours: an engine stands still"
            self._now = max(self._now, self._last_step_ends)

    def _release_ended(self) -> None:
        known, self._ended = self._ended, self._decoding.pop_ended(self.steps - 1)
        if self._now >= self._last_step_ends:
            known, self._ended = known + self._ended, []
        for job in known:
            self._running.remove(job)
            self._free_blocks += self._settings.blocks_for(job.request.prompt_tokens + job.request.output_tokens - 1)

    def _take_incoming(self) -> None:
        while self._incoming and self._incoming[0][0] <= self._now:
            job = heapq.heappop(self._incoming)[2]
            job.waiting_since = self._now
            self._waiting.push(job, self._now)

    def _reconsider(self) -> None:
        """Throw out the running job with the largest key when that pays, one at a time. vLLM never does."""
        every = self._discipline.reconsider_steps
        if every == NEVER or self.steps % every or not self._waiting or self._prefilling:
            return
        first = self._waiting.first(self._now)
        blocks = self._settings.blocks_for(first.tokens_to_prefill)
        if len(self._running) < self._settings.max_num_seqs and blocks <= self._free_blocks:
            return
        candidates = [job for job in self._running if job not in self._ended]
        if not candidates:
            return
        worst = max(candidates, key=self._key)
        held_tokens = self._decoding.cached_tokens(worst, self.steps)
        if blocks > self._free_blocks + self._settings.blocks_for(held_tokens):
            return
        if self._discipline.displaces(self._discipline.key(first, first.made_tokens, self._now), self._key(worst), held_tokens):
            self._running.remove(worst)
            self._preempt(worst, scheduled_tokens=0)

    def _run_on(self) -> _Step:
        """Schedule the running jobs, all of them when the blocks are enough."""
        decoding, job = self._decoding, self._prefilling
        budget = self._settings.max_num_batched_tokens - decoding.count
        chunk = min(job.tokens_to_prefill - job.prefilled_tokens, budget) if job else 0
        blocks = decoding.blocks_needed(self.steps) + (self._blocks_to_read(job, chunk) if job else 0)
        if blocks > self._free_blocks:
            return self._run_on_short_of_blocks()
        self._free_blocks -= blocks
        step = _Step(sequences=decoding.count, context_tokens=decoding.context_tokens(self.steps), budget=budget)
        if job and chunk:
            self._read(job, chunk, step)
        return step

    def _run_on_short_of_blocks(self) -> _Step:
        """The same one job after the other, as vLLM goes about it: whoever needs a block that is not there takes it from the one with
        the largest key. When that is itself, it goes, and those after it pause for this step."""
        step = _Step(budget=self._settings.max_num_batched_tokens, made_room=True)
        scheduled: dict[Job, int] = {}
        index = 0
        while index < len(self._running) and step.budget > 0:
            job = self._running[index]
            if job in self._ended:
                index += 1
                continue
            if reads := job is self._prefilling:
                tokens = min(job.tokens_to_prefill - job.prefilled_tokens, step.budget)
                blocks = self._blocks_to_read(job, tokens)
            else:
                tokens, blocks = 1, int(self._decoding.needs_block(job, self.steps))
            victim = None
            while blocks > self._free_blocks and victim is not job:
                victim = max(self._running, key=self._key)
                place = self._running.index(victim)
                index -= place < index
                del self._running[place]
                step.budget += scheduled.get(victim, 0)
                self._preempt(victim, scheduled.pop(victim, 0))
            if victim is job:
                break
            self._free_blocks -= blocks
            scheduled[job] = tokens
            if reads:
                self._read(job, tokens, step)
            else:
                step.budget -= 1
            index += 1
        for job in self._running[index:] if scheduled else ():  # without anybody there is no step to sit out
            if job is not self._prefilling and job not in self._ended:
                self._decoding.remove(job)
                job.zero_step += 1
                self._decoding.add(job)
        decoding = [job for job in scheduled if job is not self._prefilling and job not in step.begun]
        step.sequences += len(decoding)
        step.context_tokens = sum(self._decoding.cached_tokens(job, self.steps) + 1 for job in decoding)
        return step

    def _admit(self, step: _Step) -> None:
        """Waiting jobs, the first that does not fit stops the rest."""
        while self._waiting and len(self._running) < self._settings.max_num_seqs and step.budget > 0:
            job = self._waiting.first(self._now)
            if self._settings.blocks_for(job.tokens_to_prefill) > self._free_blocks:
                break
            self._waiting.take(job)
            job.queued += self._now - job.waiting_since
            self._running.append(job)
            self._prefilling = job
            chunk = min(job.tokens_to_prefill, step.budget)
            self._free_blocks -= self._settings.blocks_for(chunk)
            self._read(job, chunk, step)

    def _execute(self, step: _Step, limit: int | None) -> None:
        for job in step.begun:
            job.zero_step = self.steps - job.made_tokens
            self._decoding.add(job)
        cost = self._ticks
        stretch = Stretch(
            cost.constant
            + cost.per_sequence * step.sequences
            + cost.per_prefill_token * step.prefill_tokens
            + cost.per_context_token * step.context_tokens,
            cost.per_context_token * step.sequences,
        )
        begins = max(self._now, self._last_step_ends)
        count = self._steps_alike(step, stretch, begins, limit)
        self._free_blocks -= self._decoding.blocks_over(self.steps + 1, count - 1)
        self._last_step_ends = begins + stretch.duration(count)
        for job in step.begun:
            if job.first_token is None:
                job.first_token = self._last_step_ends
        self.steps += count
        for job in self._decoding.ending(self.steps - 1):
            job.finished = self._last_step_ends
            self._finished.append(job.finished)
        # Asynchronously, the next step is scheduled as soon as this one begins.
        begun = begins + stretch.duration(count - 1)
        self._now = begun if self._settings.async_scheduling else self._last_step_ends

    def _steps_alike(self, step: _Step, stretch: Stretch, begins: int, limit: int | None) -> int:
        """How many steps from this one on differ in nothing but the context: nobody comes, ends, or runs out of blocks."""
        if not self._fast_forward or step.prefill_tokens or step.made_room or self._ended:
            return 1
        every = self._discipline.reconsider_steps
        bounds = [
            self._decoding.steps_to_next_end(self.steps),
            1 + self._decoding.steps_with_blocks(self.steps + 1, self._free_blocks),
        ]
        if self._waiting and every != NEVER:
            bounds.append(every - self.steps % every)
        if self._waiting and self._discipline.moves and len(self._running) < self._settings.max_num_seqs:
            bounds.append(1)
        # A step is scheduled when it begins, or when the one before it does.
        ahead = int(self._settings.async_scheduling)
        for time in (limit, self._incoming[0][0] if self._incoming else None):
            if time is not None:
                bounds.append(max(1, stretch.begun_before(time - begins) + ahead))
        return min(bounds)

    def _read(self, job: Job, chunk: int, step: _Step) -> None:
        """Let the prefilling job read the next `chunk` tokens, for which it has the blocks."""
        job.prefilled_tokens += chunk
        step.sequences += 1
        step.prefill_tokens += chunk
        step.budget -= chunk
        if job.prefilled_tokens == job.tokens_to_prefill:
            self._prefilling = None
            step.begun.append(job)

    def _blocks_to_read(self, job: Job, chunk: int) -> int:
        return self._settings.blocks_for(job.prefilled_tokens + chunk) - self._settings.blocks_for(job.prefilled_tokens)

    def _preempt(self, job: Job, scheduled_tokens: int) -> None:
        """Send a job that was taken out of the running ones back to the queue, without its blocks. scheduled_tokens: of this step."""
        self.preemptions += 1
        job.preemptions += 1
        if job in self._ended:
            self._ended.remove(job)
            self._free_blocks += self._settings.blocks_for(job.request.prompt_tokens + job.request.output_tokens - 1)
            return
        if job is self._prefilling:
            self._prefilling = None
            held = job.prefilled_tokens
        else:
            held = self._decoding.cached_tokens(job, self.steps) + scheduled_tokens
            self._decoding.remove(job)
            job.made_tokens = self.steps - job.zero_step
        self._free_blocks += self._settings.blocks_for(held)
        job.prefilled_tokens = 0
        job.waiting_since = self._now
        self._waiting.push(job, self._now)

    def _key(self, job: Job) -> Key:
        """Of a running job."""
        made = job.made_tokens if job is self._prefilling else min(self.steps - job.zero_step, job.request.output_tokens)
        return self._discipline.key(job, made, self._now)
