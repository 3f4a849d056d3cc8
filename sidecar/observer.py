"""What there is to see of a running sidecar, as plain calls. This one looks away; sidecar.telemetry.metrics counts.

Engine, runner, servicer and reload tell an Observer, so that none of them knows what counts or where the figures go.
The RPCs themselves are watched from outside their handlers, see sidecar.telemetry.observed.
"""

from collections.abc import Callable
from typing import Literal

TierReason = Literal["asked", "encoder", "no_time", "overload", "late"]
"""Why a tier answered. encoder: the usual way. asked: the caller asked for the n-gram tier. The rest are the n-gram scorer's: no_time: the
encoder would not have been done in time; overload: no permit was left; late: the encoder was tried and was not done in time."""

RejectionCause = Literal["unauthenticated", "invalid", "overload", "deadline", "stopping", "model", "bug"]
"""Why a call or a stream's item failed. The causes of our own errors stand beside their classes; unauthenticated: no known token, so
that no handler saw the call; bug: everything else."""

ReloadOutcome = Literal["swapped", "unchanged", "refused"]


class Observer:
    """Told of everything, on whichever thread it happens. Every method must be quick, must not raise and needs its own locks.

    Names of rankers are the server's own; nothing here ever holds prompt text.
    """

    def watch_health(self, serving: Callable[[], bool]) -> None:
        """Whoever wants to know whether the server is SERVING may ask this, from any thread."""

    def scored(self, ranker: str, tier: str, reason: TierReason, prompts: int, queue_s: float) -> None:
        """A call or item was answered. tier: encoder or ngram. queue_s: from token ids until its last prompt entered a batch."""

    def rejected(self, cause: RejectionCause) -> None:
        """A call or item was answered with an error."""

    def batch_ran(self, ranker: str, prompts: int, tokens: int, padded_tokens: int, seconds: float, ok: bool) -> None:
        """One model run ended, on a worker's thread. tokens: without padding."""

    def watch_waiting(self, ranker: str, prompts: Callable[[], int]) -> None:
        """From now on this says how many of the ranker's prompts wait for a batch."""

    def serving(self, ranker: str, bundle_id: str, model_name: str, execution_provider: str) -> None:
        """From now on this bundle answers for the ranker, and no other."""

    def reloaded(self, ranker: str, outcome: ReloadOutcome) -> None:
        """A reload of one ranker's bundle has ended."""
