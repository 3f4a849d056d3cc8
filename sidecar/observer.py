"""What there is to see of a running sidecar, as plain calls. This one looks away; sidecar.metrics counts.

Engine, runner, servicer and reload tell an Observer, so that none of them knows what counts or where the figures go.
"""

from typing import Literal

import grpc

TierReason = Literal["asked", "encoder", "no_time", "overload", "late"]
"""Why a tier answered. encoder: the usual way. asked: the caller named the tier. The rest are the n-gram scorer's: no_time: the
encoder would not have been done in time; overload: no permit was left; late: the encoder was tried and was not done in time."""

RejectionCause = Literal["invalid", "overload", "no_time", "deadline", "stopping", "model", "bug"]
"""Why a call or a stream's item failed. no_time: refused at once; deadline: the time passed while it waited."""

ReloadOutcome = Literal["swapped", "unchanged", "refused"]


class Observer:
    """Told of everything, on whichever thread it happens. Every method must be quick, must not raise and needs its own locks.

    Names of rankers are the server's own; nothing here ever holds prompt text.
    """

    def call_started(self, service: str, method: str, kind: str) -> None:
        """A call reached its handler. kind: unary or bidi_stream or server_stream."""

    def call_handled(self, service: str, method: str, kind: str, code: grpc.StatusCode, seconds: float) -> None:
        """The call has ended with this status."""

    def scored(self, ranker: str, tier: str, reason: TierReason, prompts: int, queue_s: float) -> None:
        """A call or item was answered. tier: encoder or ngram. queue_s: from token ids until its last prompt entered a batch."""

    def rejected(self, ranker: str, cause: RejectionCause) -> None:
        """A call or item was answered with an error."""

    def batch_ran(self, ranker: str, prompts: int, tokens: int, padded_tokens: int, seconds: float, ok: bool) -> None:
        """One model run ended, on a worker's thread. tokens: without padding."""

    def waiting(self, ranker: str, prompts: int) -> None:
        """So many prompts wait for a batch now."""

    def serving(self, ranker: str, bundle_id: str, model_name: str, execution_provider: str) -> None:
        """From now on this bundle answers for the ranker, and no other."""

    def reloaded(self, ranker: str, outcome: ReloadOutcome) -> None:
        """A reload of one ranker's bundle has ended."""
