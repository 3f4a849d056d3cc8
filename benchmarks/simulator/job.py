"""A request inside an engine."""

from dataclasses import dataclass

from benchmarks.simulator.request import Estimate, Request


@dataclass(slots=True, eq=False)
class Job:
    """One request in an engine, from its entry to its last token. Compared by identity. Times in ticks."""

    index: int
    request: Request
    priority: int
    """As the hook made it: lower runs earlier."""
    estimate: Estimate | None
    entered: int
    """When the engine got it; vLLM breaks ties by it."""

    # While it waits or is being prefilled.
    made_tokens: int = 0
    """Response tokens that it had when it last stopped decoding."""
    prefilled_tokens: int = 0
    """Of prompt and response so far, what the KV cache holds."""
    waiting_since: int = 0
    # While it decodes.
    zero_step: int = 0
    """The step in which it would have made its very first token, had it decoded ever since: before step s it has s - zero_step."""
    # What became of it.
    first_token: int | None = None
    finished: int | None = None
    queued: int = 0
    preemptions: int = 0

    @property
    def last_step(self) -> int:
        """The step that makes its last token, while it decodes."""
        return self.zero_step + self.request.output_tokens - 1

    @property
    def tokens_to_prefill(self) -> int:
        """Prompt and the response so far: all that must be in the KV cache before the next token is made."""
        return self.request.prompt_tokens + self.made_tokens
