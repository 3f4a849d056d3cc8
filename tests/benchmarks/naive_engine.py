"""vLLM V1's scheduler once more, one request and one step after the other, without sums, jumps or heaps: what the simulator must equal.

Written from v1/core/sched/scheduler.py and v1/engine/core.py of vLLM 0.32.0. A step takes one millisecond. With async scheduling a step is
scheduled when the one before it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Naive:
    """One request. arrival and ends: in milliseconds, which are steps."""

    arrival: int
    prompt_tokens: int
    output_tokens: int
    priority: int = 0
    computed: int = 0
    made: int = 0
    """Response tokens that are made or being made."""
    blocks: int = 0
    ends: list[int] = field(default_factory=list)
    """When each of its tokens came."""
    preemptions: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.made

    @property
    def rank(self) -> tuple[int, int]:
        return self.priority, self.arrival


def run_naive(
    requests: Sequence[Naive], *, slots: int, budget: int, blocks: int, block_tokens: int, asynchronous: bool
) -> None:
    """Serve the requests until they are done."""
    coming = sorted(requests, key=lambda each: each.arrival)
    waiting: list[Naive] = []
    running: list[Naive] = []
    in_flight: list[tuple[int, list[Naive]]] = []
    """Steps whose results are not known yet: when each ends, and who makes a token in it."""
    now = last_end = 0

    def free_blocks() -> int:
        return blocks - sum(each.blocks for each in running)

    def new_blocks(each: Naive, tokens: int) -> int:
        return -(-(each.computed + tokens) // block_tokens) - each.blocks

    while coming or waiting or running:
        while in_flight and in_flight[0][0] <= now:
            end, makers = in_flight.pop(0)
            for each in makers:
                each.ends.append(end)
                if len(each.ends) == each.output_tokens:
                    (running if each in running else waiting).remove(each)
        while coming and coming[0].arrival <= now:
            waiting.append(coming.pop(0))

        left = budget
        scheduled: dict[Naive, int] = {}
        preempted = False
        index = 0
        while index < len(running) and left > 0:
            each = running[index]
            if each.made == each.output_tokens:  # the last one is on its way
                index += 1
                continue
            tokens = min(each.tokens - each.computed, left)
            while each in running and new_blocks(each, tokens) > free_blocks():
                victim = max(running, key=lambda one: one.rank)
                index -= running.index(victim) < index
                running.remove(victim)
                waiting.append(victim)
                left += scheduled.pop(victim, 0)
                victim.computed = victim.blocks = 0
                victim.preemptions += 1
                preempted = True
            if each not in running:
                break
            each.blocks += new_blocks(each, tokens)
            scheduled[each] = tokens
            left -= tokens
            index += 1
        while not preempted and waiting and left > 0 and len(running) < slots:
            each = min(waiting, key=lambda one: (one.rank, requests.index(one)))
            if -(-each.tokens // block_tokens) > free_blocks():
                break
            tokens = min(each.tokens, left)
            waiting.remove(each)
            running.append(each)
            each.blocks += new_blocks(each, tokens)
            scheduled[each] = tokens
            left -= tokens

        if scheduled:
            for each, tokens in scheduled.items():
                each.computed += tokens
            makers = [each for each in scheduled if each.computed == each.tokens]
            for each in makers:
                each.made += 1
            begins = max(now, last_end)
            last_end = begins + 1
            in_flight.append((last_end, makers))
            now = begins if asynchronous else last_end
        elif now < last_end:
            now = last_end
        elif not preempted and coming:
            now = max(now, coming[0].arrival)
