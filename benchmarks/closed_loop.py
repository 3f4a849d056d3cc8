"""What all closed-loop callers share, whatever they call: each sends its next call when the last one is answered."""

import itertools
from collections.abc import Iterator, Sequence

TIMEOUT_S = 30.0
"""So that a slow answer is measured instead of given up. A server that hangs shows as a call out of time."""

AFTER_FAILURE_S = 0.05
"""A caller's pause after a failed call: a server that refuses at once would be flooded otherwise."""


def prompt_batches(prompts: Sequence[str], first_prompt: int, prompts_per_call: int) -> Iterator[list[str]]:
    """The prompts of one call after the other, again and again, from `first_prompt` on."""
    endless = itertools.cycle(prompts)
    for _ in range(first_prompt % len(prompts)):
        next(endless)
    while True:
        yield list(itertools.islice(endless, prompts_per_call))
