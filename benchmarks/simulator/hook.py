"""The hook's part, simulated: whether a request is asked about, how long that holds it, and its priority, which vllm_client makes."""

from dataclasses import dataclass, field

from benchmarks.simulator.request import Estimate, Request
from vllm_client.priority import POLICIES, WINDOW_BACKLOGS, Facts, PolicyName, PolicySettings


@dataclass(frozen=True, slots=True)
class Hook:
    """Of one API server. gate_in_flight: requests in flight below which nothing is asked. ask_ms: what a score takes. window_backlogs: as
    many times the backlog `ageing` makes its window, where that is longer."""

    policy: PolicyName = "equal"
    settings: PolicySettings = field(default_factory=PolicySettings)
    gate_in_flight: int = 0
    ask_ms: float = 0.0
    window_backlogs: float = WINDOW_BACKLOGS

    def place(self, request: Request, estimate: Estimate | None, in_flight: int, backlog_ms: float) -> tuple[int, float]:
        """Its priority, and for how many milliseconds it is held. in_flight: this one included. backlog_ms: that it finds."""
        asked = self.policy != "equal" and estimate is not None and in_flight >= self.gate_in_flight
        known = estimate if asked else None
        facts = Facts(
            arrival_ms=request.arrival_ms,
            quantile=None if known is None else known.quantile,
            expected_tokens=None if known is None else known.expected_tokens,
            prompt_tokens=request.prompt_tokens,
            # The policy's own factor is a constant; of a longer backlog it makes the window of a larger one.
            backlog_ms=backlog_ms * self.window_backlogs / WINDOW_BACKLOGS,
        )
        return POLICIES[self.policy](facts, self.settings), self.ask_ms if asked else 0.0
