"""What is kept of each single request of a run, so that others can work with it later: the simulator fits its step model to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_client import ClientConfig, RankerClient, Tier

SCORING_MS = 60_000.0
"""For a call of a hundred prompts or more, on cores that just ran an engine."""

CLIENT = "client"
"""The key of what the client said of a run as a whole."""

KEPT = "requests"
"""The key in a kept run. Reports leave it out: it is tens of thousands of numbers."""


def requests_of(result: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Lists, one entry for each request in the order of sending. sent_s: after the first one. The others as `vllm bench serve` has
    them: its first chunk names the role, has no token and counts as the first one, so ttft_s is when that came, the first token hardly
    behind it; gaps_s is a list for each, between one chunk and the next, one gap a token, fewer when several tokens came at once;
    prompt_tokens is without those of the chat template; errors: empty where there was none."""
    first_s = min(result["start_times"], default=0.0)
    return {
        "sent_s": [sent_s - first_s for sent_s in result["start_times"]],
        "ttft_s": result["ttfts"],
        "e2e_s": result["latencies"],
        "gaps_s": result["itls"],
        "prompt_tokens": result["input_lens"],
        "output_tokens": result["output_lens"],
        "errors": result["errors"],
    }


def client_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What `vllm bench serve` says of the run as a whole."""
    return {name: result[name] for name in ("duration", "output_throughput", "request_throughput", "max_concurrent_requests")}


def result_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """A kept run → what `vllm bench serve` had said, as far as figures need it."""
    kept = run[KEPT]
    return {
        **run[CLIENT],
        "ttfts": kept["ttft_s"],
        "latencies": kept["e2e_s"],
        "output_lens": kept["output_tokens"],
        "errors": kept["errors"],
    }


def estimates_of(address: str, prompts: Sequence[str], tier: str = "any") -> dict[str, list[float]]:
    """What the ranker at `address` says of the prompts, as lists in their order."""
    with RankerClient(ClientConfig(address=address, deadline_ms=SCORING_MS)) as client:
        scores = client.score_all(prompts, tier=Tier[tier.upper()]).scores
    return {
        "quantile": [score.quantile for score in scores],
        "expected_tokens": [score.expected_tokens for score in scores],
        "expected_tokens_p90": [score.expected_tokens_p90 for score in scores],
    }
