"""vLLM's waiting and running requests under `--scheduling-policy priority`, in one loop: who is taken before whom.

Mirrors what was read in vLLM 0.32.0:
- v1/core/sched/request_queue.py and v1/request.py `__lt__`: a heap, lowest (priority, arrival time, request id) first. That arrival
  time is the engine's own, stamped when the server renders the prompt, so after the hook held the request: `entered_ms` here.
- v1/core/sched/scheduler.py `schedule`: the running ones first, each needing room for one more token; where there is none, the
  running one with the largest (priority, arrival time) loses its room and goes back to the waiting queue with its priority as it
  was. (When it is the very one that needs the room, vLLM lets those after it pause for this step; here they go on.) Only when
  nobody was evicted in this step are waiting ones admitted, in order, as long as there are slots, and room for all tokens so far:
  the first that does not fit stops the rest. A waiting request evicts nobody.

Left out, since there vLLM passes over a waiting request for reasons that no priority can change: grammars being compiled, LoRA
adapters beyond their limit, key-value caches on their way from elsewhere. Left out as harmless to the order: token budgets and
chunked prefill, which stop the admission of everybody behind the first.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request as the engine gets it."""

    priority: int
    entered_ms: int
    """When it enters the waiting queue; the engine's arrival time."""
    tokens: int
    """Length of the response, at least 1. A step makes one token and takes one millisecond."""


@dataclass
class Run:
    """What happened. Requests are named by their index, which is their request id as well."""

    started: list[int] = field(default_factory=list)
    """In order of admission; an evicted request is admitted more than once."""
    started_ms: dict[int, int] = field(default_factory=dict)
    """First admission of each."""
    finished: list[int] = field(default_factory=list)
    overtakings: set[tuple[int, int]] = field(default_factory=set)
    """(overtaker, overtaken): the first, which entered later, was admitted or stayed while the second had to wait or to leave."""
    evictions: int = 0


def run_queue(arrivals: Sequence[Arrival], slots: int, token_room: int | None = None) -> Run:
    """Serve them all, `slots` at a time.

    `token_room` is the number of tokens that the running requests may hold together; None: no such limit, so nobody is ever
    evicted. It must hold the longest response, as vLLM demands of a model's length.
    """
    longest = max(arrival.tokens for arrival in arrivals)
    room = slots * longest if token_room is None else token_room
    assert room >= longest
    run = Run()
    coming = sorted(range(len(arrivals)), key=lambda index: (arrivals[index].entered_ms, index), reverse=True)
    waiting: list[tuple[int, int, int]] = []
    running: list[int] = []
    made = [0] * len(arrivals)
    held = [0] * len(arrivals)
    clock_ms = 0

    def key(index: int) -> tuple[int, int, int]:
        return arrivals[index].priority, arrivals[index].entered_ms, index

    def note(taken: int, left: int) -> None:
        if arrivals[taken].entered_ms > arrivals[left].entered_ms:
            run.overtakings.add((taken, left))

    while coming or waiting or running:
        if not waiting and not running:
            clock_ms = max(clock_ms, arrivals[coming[-1]].entered_ms)
        while coming and arrivals[coming[-1]].entered_ms <= clock_ms:
            heapq.heappush(waiting, key(coming.pop()))

        evicted = False
        scheduled: list[int] = []
        if sum(held) + len(running) <= room:
            for index in running:
                held[index] += 1
            scheduled, running = running, []
        while running:
            index = running[0]
            while sum(held) == room and index is not None:
                # As in vLLM, of all that run, those already scheduled in this step included; the id plays no part here.
                victim = max(scheduled + running, key=lambda one: key(one)[:2])
                (scheduled if victim in scheduled else running).remove(victim)
                held[victim] = 0
                heapq.heappush(waiting, key(victim))
                run.evictions += 1
                evicted = True
                for other in scheduled + running:
                    note(other, victim)
                if victim == index:
                    index = None
            if index is not None:
                held[index] += 1
                running.remove(index)
                scheduled.append(index)
        running = scheduled

        while not evicted and waiting and len(running) < slots:
            index = waiting[0][2]
            if sum(held) + made[index] + 1 > room:
                break
            heapq.heappop(waiting)
            held[index] = made[index] + 1
            running.append(index)
            run.started.append(index)
            run.started_ms.setdefault(index, clock_ms)
            for _, _, other in waiting:
                note(index, other)

        clock_ms += 1
        for index in list(running):
            made[index] += 1
            if made[index] == arrivals[index].tokens:
                running.remove(index)
                held[index] = 0
                run.finished.append(index)
    return run
