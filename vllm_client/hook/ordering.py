"""What the sidecar said of a request → its priority: the policy, then what becomes of a priority that the client set itself."""

from vllm_client.hook.asked import CHARS_PER_TOKEN, Asked
from vllm_client.hook.settings import HookSettings
from vllm_client.priority import POLICIES, Facts, combined
from vllm_client.scores import ScoredBatch


class Ordering:
    """The settings' policy, applied to requests of any number of prompts."""

    def __init__(self, settings: HookSettings) -> None:
        self._settings = settings
        self._policy = POLICIES[settings.policy]
        self._policy_settings = settings.policy_settings()

    def priority(self, asked: Asked, arrival_ms: float, backlog_ms: float, batch: ScoredBatch | None) -> int:
        """Return the priority, an int64. `batch` is None for a request that has no scores, which then counts as middling."""
        prompt_tokens, quantile, expected_tokens = asked.prompt_chars / CHARS_PER_TOKEN, None, None
        if batch is not None:
            # The request is done when its longest response is, but costs the engine all of them.
            quantile = max(score.quantile for score in batch.scores)
            expected_tokens = sum(score.expected_tokens for score in batch.scores) / len(batch.scores)
            prompt_tokens = max(prompt_tokens, sum(score.prompt_tokens for score in batch.scores))
        facts = Facts(
            arrival_ms=arrival_ms,
            quantile=quantile,
            expected_tokens=expected_tokens,
            prompt_tokens=prompt_tokens,
            max_tokens=asked.max_tokens,
            samples=asked.samples * max(1, len(asked.texts)),
            backlog_ms=backlog_ms,
            class_delay_ms=asked.class_delay_ms,
        )
        own = self._policy(facts, self._policy_settings)
        if asked.client_priority is not None and self._settings.client_priority == "combine":
            return combined(own, asked.client_priority, self._settings.client_step_ms, self._settings.client_limit_ms)
        return own

    def unknown(self, arrival_ms: float) -> int:
        """Return the priority of a request of which nothing is known but when it arrived."""
        return self._policy(Facts(arrival_ms=arrival_ms), self._policy_settings)
