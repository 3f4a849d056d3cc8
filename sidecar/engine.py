"""The way of one call: checks → permits → token ids → the tier rule → a tier's scorer → calibrated answer.

Exactly one answer per caller, and none after its deadline.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pars.v1 import ranker_pb2
from sidecar.errors import (
    DeadlineError,
    InvalidRequestError,
    ModelError,
    OverloadedError,
    ScoringFailedError,
)
from sidecar.lane import Lane
from sidecar.observer import Observer, TierReason
from sidecar.permits import Permits
from sidecar.ranker import TierScorer
from sidecar.rankers import LiveRanker, Rankers
from sidecar.runner import RunResult
from sidecar.scorer import TokenizedPrompt
from sidecar.tier_rule import Reserve, Verdict, choose, fixed_reserve_ms

NGRAM_PROMPT_CHARS = 160
"""What the n-gram scorer costs per prompt, as characters of tokenizing that take as long: about 45 µs."""

NGRAM_PROMPT_MS = 0.05


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What a call may bring and how long it may take.

    max_prompts_per_call: prompts. max_wait_s: the deadline of a call without one, or with a longer one. reserve_ms: how long before its
    deadline an answer must leave. tier_fallback: whether the n-gram scorer answers what the encoder cannot answer in time.
    """

    max_prompts_per_call: int
    max_wait_s: float = 30.0
    reserve_ms: float = 10.0
    tier_fallback: bool = True


@dataclass(frozen=True, slots=True)
class ScoredCall:
    """The answer to one call: parallel lists in the order of its prompts, and where the time went.

    queue_time_ns starts when the token ids are there and ends when the last prompt enters a batch. For one prompt the three times do
    not overlap; for several, earlier batches of the call may run while later prompts still wait.
    """

    tier: ranker_pb2.Tier
    bundle_id: str
    scores: list[float]
    quantiles: list[float]
    expected_tokens: list[float]
    expected_tokens_p90: list[float]
    prompt_tokens: list[int]
    truncated: list[bool]
    tokenize_time_ns: int
    queue_time_ns: int
    infer_time_ns: int


class Engine:
    """Scores calls with the rankers of this process. To be used on the event loop's thread.

    tokenizer_lane, ngram_lane: where long text is tokenized, and where many prompts are scored by the n-gram scorer; two, because the
    backlog of the one must not hold up the microseconds of the other. encoder_permits, ngram_permits: the right to wait, per tier, so
    that a full queue of the one leaves room in the other.
    clock: monotonic, nanoseconds; the same as the runners'.
    """

    def __init__(
        self,
        rankers: Rankers,
        tokenizer_lane: Lane,
        ngram_lane: Lane,
        encoder_permits: Permits,
        ngram_permits: Permits,
        limits: EngineLimits,
        *,
        observer: Observer | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.rankers = rankers
        self.limits = limits
        self._tokenizer_lane = tokenizer_lane
        self._ngram_lane = ngram_lane
        self._encoder_permits = encoder_permits
        self._ngram_permits = ngram_permits
        self._observer = observer or Observer()
        self._clock = clock

    async def score(
        self, prompts: Sequence[str], tier: int = 0, timeout_s: float | None = None, ranker: str = ""
    ) -> ScoredCall:
        """Score all prompts of a call or none.

        tier: a `pars.v1.Tier` number. timeout_s: time the caller still has; None for no deadline. ranker: by its name.
        Raises InvalidRequestError, OverloadedError, NotServingError, DeadlineError or ScoringFailedError.
        """
        live = self.rankers.get(ranker)
        _check_tier(tier, live)
        if not prompts:
            raise InvalidRequestError("the call has no prompts")
        if len(prompts) > self.limits.max_prompts_per_call:
            raise InvalidRequestError(
                f"the call has {len(prompts)} prompts, at most {self.limits.max_prompts_per_call} are taken"
            )
        timeout_s = self.limits.max_wait_s if timeout_s is None else min(timeout_s, self.limits.max_wait_s)
        if timeout_s <= 0:
            raise DeadlineError("the deadline had passed on arrival")
        call = _Call(live, prompts, tier, timeout_s, self._clock(), self.limits.tier_fallback)
        permits = self._admit(call)
        try:
            with live.in_use():
                return await self._answer(call)
        finally:
            permits.give_back(len(prompts), call.held_chars)

    async def drain(self) -> None:
        """Admit nothing from now on and wait until every admitted call is answered. The caller brings the deadline."""
        self._stop_admitting()
        await self._encoder_permits.all_returned()
        await self._ngram_permits.all_returned()

    async def close(self) -> None:
        """Admit nothing, answer everybody who still waits with NotServingError and stop the threads."""
        self._stop_admitting()
        self._tokenizer_lane.close()
        self._ngram_lane.close()
        await self.rankers.close()

    def _stop_admitting(self) -> None:
        self._encoder_permits.close()
        self._ngram_permits.close()

    def _admit(self, call: "_Call") -> Permits:
        """Take the call's permits. Without any of the encoder's, the call is one for the n-gram scorer, where it may be."""
        if call.reason == "encoder":
            try:
                self._encoder_permits.take(len(call.prompts), call.held_chars)
            except OverloadedError:
                if not call.ngram_allowed:
                    raise
                call.reason = "overload"
            else:
                return self._encoder_permits
        self._ngram_permits.take(len(call.prompts), call.held_chars)
        return self._ngram_permits

    async def _answer(self, call: "_Call") -> ScoredCall:
        began = self._clock()
        tokenized = await self._tokenizer_lane.run(lambda: _encode(call), call.chars, self._usable_s(call))
        tokenize_time_ns = self._clock() - began
        result = None
        if call.reason == "encoder":
            result = await self._by_encoder(call, tokenized)
        if result is None:
            result = await self._by_ngram(call, tokenized)
        self._observer.scored(
            call.live.name,
            "encoder" if call.reason == "encoder" else "ngram",
            call.reason,
            len(call.prompts),
            result.queue_time_ns / 1e9,
        )
        return _scored(call, tokenized, result, tokenize_time_ns)

    async def _by_encoder(self, call: "_Call", tokenized: Sequence[TokenizedPrompt]) -> RunResult | None:
        """The encoder's scores; None when the n-gram scorer shall answer instead, with the call's reason saying why."""
        expected, lag_ms = call.live.runner.expect(tokenized)
        ngram_ms = NGRAM_PROMPT_MS * len(tokenized) if call.ngram_allowed else 0.0
        reserve = Reserve(self._fixed_reserve_ms(call), lag_ms, ngram_ms)
        verdict = choose(self._time_left_s(call) * 1e3, expected, reserve, ngram_allowed=call.ngram_allowed)
        if verdict is Verdict.QUEUE_TOO_LONG:
            raise OverloadedError("too many prompts are waiting for an answer within the deadline; use the neutral priority")
        if verdict is Verdict.NO_TIME:
            raise DeadlineError("the time left is not enough to score these prompts")
        if verdict is Verdict.NGRAM:
            call.reason = "no_time"
            return None
        try:
            return await call.live.runner.score(tokenized, call.deadline_ns - int(reserve.total_ms * 1e6))
        except DeadlineError:
            if not call.ngram_allowed:
                raise
            call.reason = "late"
            return None

    async def _by_ngram(self, call: "_Call", tokenized: Sequence[TokenizedPrompt]) -> RunResult:
        """A linear model is done before a queue would have been joined."""
        ngram = call.live.ranker.ngram
        assert ngram is not None, "bug in ours: a call for an n-gram scorer that is not there"

        def score() -> RunResult:
            began = self._clock()
            try:
                scores = ngram.scorer.score(tokenized)
            except ModelError as error:
                raise ScoringFailedError("the model failed on this call") from error
            return RunResult(scores.tolist(), 0, self._clock() - began)

        return await self._ngram_lane.run(score, NGRAM_PROMPT_CHARS * len(tokenized), self._usable_s(call))

    def _fixed_reserve_ms(self, call: "_Call") -> float:
        return fixed_reserve_ms(self.limits.reserve_ms, call.timeout_s * 1e3)

    def _usable_s(self, call: "_Call") -> float:
        """Until an answer must leave. Raises DeadlineError when the deadline has passed."""
        return self._time_left_s(call) - self._fixed_reserve_ms(call) / 1e3

    def _time_left_s(self, call: "_Call") -> float:
        """Until the caller's deadline. Raises DeadlineError when that has passed."""
        left_ns = call.deadline_ns - self._clock()
        if left_ns <= 0:
            raise DeadlineError("the deadline passed before the prompts could be scored")
        return left_ns / 1e9


class _Call:
    """One admitted call. reason: why its tier answers, "encoder" until something speaks against it.

    chars: that are tokenized. held_chars: that are kept in memory until it is answered.
    """

    __slots__ = ("chars", "deadline_ns", "held_chars", "live", "ngram_allowed", "prompts", "reason", "timeout_s")

    def __init__(
        self, live: LiveRanker, prompts: Sequence[str], tier: int, timeout_s: float, now_ns: int, tier_fallback: bool
    ) -> None:
        max_chars = live.ranker.tokenizer.max_chars
        self.live = live
        self.prompts = prompts
        self.timeout_s = timeout_s
        self.deadline_ns = now_ns + int(timeout_s * 1e9)
        self.held_chars = sum(map(len, prompts))
        self.chars = sum(min(len(prompt), max_chars) for prompt in prompts)
        self.reason: TierReason = "asked" if tier == ranker_pb2.TIER_NGRAM else "encoder"
        self.ngram_allowed = tier == ranker_pb2.TIER_UNSPECIFIED and tier_fallback and live.ranker.ngram is not None


def _encode(call: _Call) -> list[TokenizedPrompt]:
    try:
        return call.live.ranker.tokenizer.encode(call.prompts)
    except ModelError as error:
        raise ScoringFailedError("the tokenizer failed on this call") from error


def _check_tier(tier: int, live: LiveRanker) -> None:
    if tier not in (ranker_pb2.TIER_UNSPECIFIED, ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM):
        raise InvalidRequestError(f"tier {tier} is unknown")
    if tier == ranker_pb2.TIER_NGRAM and live.ranker.ngram is None:
        raise InvalidRequestError("this bundle has no n-gram scorer")


def _scored(call: _Call, tokenized: Sequence[TokenizedPrompt], result: RunResult, tokenize_time_ns: int) -> ScoredCall:
    ranker = call.live.ranker
    tier: TierScorer | None = ranker.encoder if call.reason == "encoder" else ranker.ngram
    assert tier is not None, "bug in ours: a tier that is not there has answered"
    quantiles, expected, p90 = tier.calibrator.apply(np.asarray(result.scores, dtype=np.float32))
    return ScoredCall(
        tier=tier.tier,
        bundle_id=call.live.bundle_id,
        scores=result.scores,
        quantiles=quantiles.tolist(),
        expected_tokens=expected.tolist(),
        expected_tokens_p90=p90.tolist(),
        prompt_tokens=[len(prompt.token_ids) for prompt in tokenized],
        truncated=[prompt.truncated for prompt in tokenized],
        tokenize_time_ns=tokenize_time_ns,
        queue_time_ns=result.queue_time_ns,
        infer_time_ns=result.infer_time_ns,
    )
