"""Pure: reply messages → values. Everything ranker.proto promises of a reply is checked here, once, for every client.

Each function raises BadReplyError when the reply breaks a promise; then none of it is used, because a scheduler that orders by
nonsense is worse off than one that does not order at all.
"""

import math
from collections.abc import Iterable

from pars.v1 import ranker_pb2
from vllm_client.errors import BadReplyError, error_from_number
from vllm_client.scores import (
    ComparedBatch,
    Comparison,
    Longer,
    PromptScore,
    ScoredBatch,
    ServedBundle,
    ServerTiming,
    Tier,
)


def scored_batch(reply: ranker_pb2.ScoreResponse, prompt_count: int, tier: Tier) -> ScoredBatch:
    """Return the answer to a request of `prompt_count` prompts for `tier`."""
    _check_count("scores", len(reply.scores), "prompts", prompt_count)
    scores = tuple(_prompt_score(message, tier) for message in reply.scores)
    return ScoredBatch(scores, reply.bundle_id, _server_timing(reply.timing))


def streamed_batch(reply: ranker_pb2.ScoreStreamResponse, prompt_count: int, tier: Tier) -> ScoredBatch:
    """Return the answer to one item of a stream, or raise the error that the item got instead."""
    outcome = reply.WhichOneof("outcome")
    if outcome == "response":
        return scored_batch(reply.response, prompt_count, tier)
    if outcome == "error":
        raise error_from_number(reply.error.code, reply.error.message)
    raise BadReplyError("a stream item has neither a response nor an error")


def compared_batch(reply: ranker_pb2.CompareResponse, pair_count: int, tier: Tier) -> ComparedBatch:
    """Return the answer to a request of `pair_count` pairs for `tier`."""
    _check_count("comparisons", len(reply.comparisons), "pairs", pair_count)
    comparisons = tuple(_comparison(message, tier) for message in reply.comparisons)
    return ComparedBatch(comparisons, reply.bundle_id, _server_timing(reply.timing))


def served_bundle(reply: ranker_pb2.GetBundleResponse) -> ServedBundle:
    """Return what the server says of itself."""
    if not reply.HasField("manifest"):
        raise BadReplyError("the server sent no manifest")
    if reply.max_prompts_per_call < 1:
        raise BadReplyError("the server says that it takes no prompts at all")
    return ServedBundle(reply.manifest, reply.execution_provider, reply.max_prompts_per_call)


def joined(batches: Iterable[ScoredBatch], bundle_id: str) -> ScoredBatch:
    """Return the answers to the parts of one list as one, their times summed.

    All must come from the bundle `bundle_id`: a server that was replaced in between would leave scores that cannot be compared.
    """
    scores: list[PromptScore] = []
    timing = ServerTiming(0, 0, 0)
    for batch in batches:
        if batch.bundle_id != bundle_id:
            raise BadReplyError(f"the bundle changed from {bundle_id} to {batch.bundle_id} in the middle of the list")
        scores.extend(batch.scores)
        timing = ServerTiming(*map(sum, zip(timing, batch.timing, strict=True)))
    return ScoredBatch(tuple(scores), bundle_id, timing)


def _prompt_score(message: ranker_pb2.PromptScore, asked: Tier) -> PromptScore:
    if not math.isfinite(message.score):
        raise BadReplyError(f"score is {message.score}")
    if not 0 <= message.quantile <= 1:  # False for NaN as well.
        raise BadReplyError(f"quantile is {message.quantile}, outside [0, 1]")
    for name, tokens in (
        ("expected_tokens", message.expected_tokens),
        ("expected_tokens_p90", message.expected_tokens_p90),
    ):
        if not (math.isfinite(tokens) and tokens >= 0):
            raise BadReplyError(f"{name} is {tokens}")
    tier = int(message.tier)
    if tier not in (Tier.ENCODER, Tier.NGRAM):
        raise BadReplyError(f"tier is {tier}, which is no scorer")
    if asked is not Tier.ANY and tier != asked:
        raise BadReplyError(f"tier {Tier(tier).name} answered where {asked.name} was asked for")
    return PromptScore(
        score=message.score,
        quantile=message.quantile,
        expected_tokens=message.expected_tokens,
        expected_tokens_p90=message.expected_tokens_p90,
        prompt_tokens=message.prompt_tokens,
        truncated=message.truncated,
        tier=Tier(tier),
    )


def _comparison(message: ranker_pb2.Comparison, asked: Tier) -> Comparison:
    score_a, score_b = _prompt_score(message.score_a, asked), _prompt_score(message.score_b, asked)
    difference = score_a.score - score_b.score
    longer = Longer.A if difference > 0 else Longer.B if difference < 0 else Longer.NEITHER
    if int(message.longer) != longer:
        raise BadReplyError(f"longer is {message.longer}, but the scores differ by {difference}")
    if not math.isfinite(message.expected_tokens_difference):
        raise BadReplyError(f"expected_tokens_difference is {message.expected_tokens_difference}")
    return Comparison(longer, score_a, score_b, message.expected_tokens_difference)


def _server_timing(message: ranker_pb2.Timing) -> ServerTiming:
    return ServerTiming(message.tokenize_time_ns, message.queue_time_ns, message.infer_time_ns)


def _check_count(what: str, count: int, asked_what: str, asked: int) -> None:
    if count != asked:
        raise BadReplyError(f"{count} {what} for {asked} {asked_what}")
