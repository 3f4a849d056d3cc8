"""The jobs that make one token in every step, known by their sums: what a step needs of them takes no loop over them.

A job that decodes has `step - zero_step` response tokens before a step, and one more after it. In the KV cache is all but the
newest token, so before that step it holds prompt + step - zero_step - 1 tokens, and it needs a new block whenever that fills
whole blocks.
"""

import heapq
from collections.abc import Iterator

from benchmarks.simulator.job import Job


class Decoding:
    """Their sums, for blocks of `block_tokens` tokens."""

    def __init__(self, block_tokens: int) -> None:
        self.count = 0
        self._block_tokens = block_tokens
        self._crossing = [0] * block_tokens
        """How many need a new block in the steps with this remainder."""
        self._context_offset = 0
        self._by_last_step: dict[int, list[Job]] = {}
        self._last_steps: list[int] = []
        """A heap of the keys, with some that are gone."""

    def add(self, job: Job) -> None:
        """From the step after the next token on."""
        self.count += 1
        self._crossing[self._remainder(job)] += 1
        self._context_offset += job.request.prompt_tokens - job.zero_step
        if job.last_step not in self._by_last_step:
            self._by_last_step[job.last_step] = []
            heapq.heappush(self._last_steps, job.last_step)
        self._by_last_step[job.last_step].append(job)

    def remove(self, job: Job) -> None:
        """One that has not made its last token."""
        self._subtract(job)
        ending = self._by_last_step[job.last_step]
        ending.remove(job)
        if not ending:
            del self._by_last_step[job.last_step]

    def pop_ended(self, step: int) -> list[Job]:
        """Take out those whose last token was made in `step`."""
        ended = self._by_last_step.pop(step, [])
        for job in ended:
            self._subtract(job)
        return ended

    def ending(self, step: int) -> Iterator[Job]:
        """Those that make their last token in `step`."""
        yield from self._by_last_step.get(step, ())

    def steps_to_next_end(self, step: int) -> int:
        """Steps from `step` on up to and with the one that makes somebody's last token. There must be somebody."""
        while self._last_steps[0] not in self._by_last_step:
            heapq.heappop(self._last_steps)
        return self._last_steps[0] - step + 1

    def blocks_needed(self, step: int) -> int:
        """New blocks that all of them need in `step`."""
        return self._crossing[step % self._block_tokens]

    def needs_block(self, job: Job, step: int) -> bool:
        return step % self._block_tokens == self._remainder(job)

    def cached_tokens(self, job: Job, step: int) -> int:
        """In the KV cache before `step`."""
        return job.request.prompt_tokens + step - job.zero_step - 1

    def blocks_over(self, step: int, steps: int) -> int:
        """New blocks that they need in `steps` steps from `step` on, if none joins or leaves."""
        rounds, rest = divmod(steps, self._block_tokens)
        return rounds * self.count + sum(self.blocks_needed(step + further) for further in range(rest))

    def steps_with_blocks(self, step: int, free_blocks: int) -> int:
        """For how many steps from `step` on that many blocks are enough. There must be somebody."""
        # In a whole round each of them needs one.
        rounds, left = divmod(free_blocks, self.count)
        for further in range(self._block_tokens):
            left -= self.blocks_needed(step + further)
            if left < 0:
                return rounds * self._block_tokens + further
        raise AssertionError("bug in ours: fewer blocks were left than a round needs")

    def context_tokens(self, step: int) -> int:
        """That they look back on in `step`, the newest included. In the next step it is one more for each of them."""
        return self.count * step + self._context_offset

    def _subtract(self, job: Job) -> None:
        self.count -= 1
        self._crossing[self._remainder(job)] -= 1
        self._context_offset -= job.request.prompt_tokens - job.zero_step

    def _remainder(self, job: Job) -> int:
        return (job.zero_step + 1 - job.request.prompt_tokens) % self._block_tokens
