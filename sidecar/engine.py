"""The way of one call: checks → permits → token ids → a tier's scorer → calibrated answer. Exactly one answer per caller."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pars.v1 import ranker_pb2
from sidecar.errors import DeadlineError, InvalidRequestError, ModelError, ScoringFailedError
from sidecar.lane import TokenizerLane
from sidecar.permits import Permits
from sidecar.ranker import Ranker, TierScorer
from sidecar.runner import BatchRunner, RunResult
from sidecar.scorer import TokenizedPrompt

NGRAM_PROMPT_CHARS = 160
"""What the n-gram scorer costs per prompt, as characters of tokenizing that take as long: about 45 µs."""


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
    """Scores calls with one ranker. To be used on the event loop's thread.

    clock: monotonic, nanoseconds; the same as the runner's.
    """

    def __init__(
        self,
        ranker: Ranker,
        runner: BatchRunner,
        lane: TokenizerLane,
        permits: Permits,
        *,
        max_prompts_per_call: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.ranker = ranker
        self.max_prompts_per_call = max_prompts_per_call
        self._runner = runner
        self._lane = lane
        self._permits = permits
        self._clock = clock

    async def score(self, prompts: Sequence[str], tier: int, timeout_s: float | None = None) -> ScoredCall:
        """Score all prompts of a call or none.

        tier: a `pars.v1.Tier` number. timeout_s: time the caller still has; None for no deadline.
        Raises InvalidRequestError, OverloadedError, NotServingError, DeadlineError or ScoringFailedError.
        """
        tier_scorer = self._tier(tier)
        if not prompts:
            raise InvalidRequestError("the call has no prompts")
        if len(prompts) > self.max_prompts_per_call:
            raise InvalidRequestError(f"the call has {len(prompts)} prompts, at most {self.max_prompts_per_call} are taken")
        if timeout_s is None:
            return await self._admitted(prompts, tier_scorer, None)
        if timeout_s <= 0:
            raise DeadlineError("the deadline had passed on arrival")
        deadline_ns = self._clock() + int(timeout_s * 1e9)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._admitted(prompts, tier_scorer, deadline_ns)
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before all prompts were scored") from error

    async def drain(self) -> None:
        """Admit nothing from now on and wait until every admitted call is answered. The caller brings the deadline."""
        self._permits.close()
        await self._permits.all_returned()

    async def close(self) -> None:
        """Admit nothing, answer everybody who still waits with NotServingError and stop the threads."""
        self._permits.close()
        await self._runner.close()
        self._lane.close()

    def _tier(self, tier: int) -> TierScorer:
        if tier in (ranker_pb2.TIER_UNSPECIFIED, ranker_pb2.TIER_ENCODER):
            return self.ranker.encoder
        if tier != ranker_pb2.TIER_NGRAM:
            raise InvalidRequestError(f"tier {tier} is unknown")
        if self.ranker.ngram is None:
            raise InvalidRequestError("this bundle has no n-gram scorer")
        return self.ranker.ngram

    async def _admitted(self, prompts: Sequence[str], tier: TierScorer, deadline_ns: int | None) -> ScoredCall:
        self._permits.take(len(prompts))
        try:
            began = self._clock()
            tokenizer = self.ranker.tokenizer
            chars = sum(min(len(prompt), tokenizer.max_chars) for prompt in prompts)
            if tier is self.ranker.encoder:
                tokenized = await self._lane.run(lambda: tokenizer.encode(prompts), chars)
                tokenize_time_ns = self._clock() - began
                result = await self._runner.score(tokenized, deadline_ns)
            else:
                # A linear model is done before a queue would have been joined.
                chars += NGRAM_PROMPT_CHARS * len(prompts)
                tokenized, result = await self._lane.run(lambda: self._score_at_once(prompts, tier), chars)
                tokenize_time_ns = self._clock() - began - result.infer_time_ns
            return self._answer(tier, tokenized, result, tokenize_time_ns)
        finally:
            self._permits.give_back(len(prompts))

    def _score_at_once(self, prompts: Sequence[str], tier: TierScorer) -> tuple[list[TokenizedPrompt], RunResult]:
        tokenized = self.ranker.tokenizer.encode(prompts)
        began = self._clock()
        try:
            scores = tier.scorer.score(tokenized)
        except ModelError as error:
            raise ScoringFailedError("the model failed on this call") from error
        return tokenized, RunResult(scores.tolist(), 0, self._clock() - began)

    def _answer(
        self, tier: TierScorer, tokenized: Sequence[TokenizedPrompt], result: RunResult, tokenize_time_ns: int
    ) -> ScoredCall:
        quantiles, expected, p90 = tier.calibrator.apply(np.asarray(result.scores, dtype=np.float32))
        return ScoredCall(
            tier=tier.tier,
            bundle_id=self.ranker.manifest.bundle_id,
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
