"""Closed batches: `LLM.generate` and `LLM.chat` with tens of thousands of prompts, in the order of their expected lengths.

    plan = offline_plan(ClientConfig(), prompts)
    outputs = plan.restored(llm.generate(plan.prompts, plan.arranged(params), priority=plan.priorities))

`outputs` are in the order of `prompts`. With one SamplingParams for all, pass it as it is.

Why the prompts are sorted and not only given priorities: LLM.generate hands them to the engine one after the other while it
renders the next, and the engine begins with what has come. The first `max_num_seqs` of the list run first, whatever their
priorities are. Under the default --scheduling-policy, which ignores priorities, the sorted list is the whole order; the
priorities matter where several plans are queued in one engine, or requests are preempted.
"""

import inspect
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pars.text import clip, encodable
from vllm_client import requests
from vllm_client.client import RankerClient
from vllm_client.config import ClientConfig, check_timeout_ms
from vllm_client.errors import RankerClientError
from vllm_client.hook.engine_call import text_of
from vllm_client.hook.host import hook_logger
from vllm_client.priority import dense_ranks
from vllm_client.scores import Tier

Prompt = TypeVar("Prompt")
Value = TypeVar("Value")
Order = Literal["shortest", "longest"]

CALL_TIMEOUT_MS = 60_000.0
"""For one call, 256 prompts as a rule. That took two busy cores up to 5 s; the rest is for slower ones."""

TOTAL_TIMEOUT_MS = 1_800_000.0
"""For all calls. Half an hour scores 100,000 prompts on two busy cores."""

FAILURES_IN_A_ROW = 3
"""Calls that fail one after the other before the rest is not asked. A frozen sidecar would cost each of them its deadline."""


@dataclass(frozen=True, slots=True)
class OfflinePlan(Generic[Prompt]):
    """In which order to run a list of prompts, and the way back."""

    prompts: list[Prompt]
    """The caller's, sorted and otherwise as they were given."""
    priorities: list[int]
    """One for each of `prompts`, 0 and up, non-decreasing; prompts of equal expected length share one."""
    positions: tuple[int, ...]
    """Where in the caller's list each of `prompts` stood."""
    scored: int
    """How many of them have a score. The others count as middling; with 0 the order is the caller's."""

    def arranged(self, values: Sequence[Value]) -> list[Value]:
        """Put a list with one value for each of the caller's prompts, such as sampling params, into the order of `prompts`.

        Raises ValueError when it is not as long.
        """
        self._check_length("values", values)
        return [values[position] for position in self.positions]

    def restored(self, outputs: Sequence[Value]) -> list[Value]:
        """Put a list with one output for each of `prompts` back into the caller's order. Raises ValueError as `arranged`."""
        self._check_length("outputs", outputs)
        back: dict[int, Value] = dict(zip(self.positions, outputs, strict=True))
        return [back[position] for position in range(len(back))]

    def _check_length(self, what: str, values: Sequence[Any]) -> None:
        if len(values) != len(self.positions):
            raise ValueError(f"{len(values)} {what} for {len(self.positions)} prompts")


def offline_plan(
    client: RankerClient | ClientConfig,
    prompts: Sequence[Prompt],
    *,
    order: Order = "shortest",
    tier: Tier = Tier.ANY,
    timeout_ms: float = CALL_TIMEOUT_MS,
    total_timeout_ms: float = TOTAL_TIMEOUT_MS,
) -> OfflinePlan[Prompt]:
    """Score the prompts, in as many calls as the server's limit asks for, and sort them.

    `prompts` are what LLM.generate or LLM.chat takes a list of: texts, dicts with a "prompt", conversations as lists of messages.
    Token ids and embeddings alone cannot be scored. `order`:

    - "shortest" first has the lowest mean time until a response is there.
    - "longest" first has the batch done earliest, most likely: a long response that is begun last runs on alone in the end.

    `tier=Tier.NGRAM` is a weaker order that a CPU makes of thousands of prompts in a second. `timeout_ms` holds for each call and
    `total_timeout_ms` for all of them. What goes wrong with the sidecar is never raised: the prompts concerned are unscored, and
    a line in the log says so. Calls go out one after the other; two at a time were no faster on a CPU.

    Raises TypeError for a single prompt or conversation in place of a list, ValueError for an unusable timeout or order.
    """
    if order not in ("shortest", "longest"):
        raise ValueError(f"order must be shortest or longest, not {order!r}")
    check_timeout_ms("timeout_ms", timeout_ms)
    check_timeout_ms("total_timeout_ms", total_timeout_ms)
    _refuse_single(prompts)
    texts = [text_of(prompt) for prompt in prompts]
    if isinstance(client, ClientConfig):
        # Closed again before an engine is made: vLLM forks, and gRPC wants no open channel then.
        with RankerClient(client) as own_client:
            quantiles = _quantiles(own_client, texts, tier, timeout_ms, total_timeout_ms)
    else:
        quantiles = _quantiles(client, texts, tier, timeout_ms, total_timeout_ms)
    ranks = dense_ranks(quantiles)
    if order == "longest":
        ranks = [max(ranks) - rank for rank in ranks]
    positions = sorted(range(len(ranks)), key=ranks.__getitem__)  # Stable: equal ones stay in the caller's order.
    return OfflinePlan(
        prompts=[prompts[position] for position in positions],
        priorities=[ranks[position] for position in positions],
        positions=tuple(positions),
        scored=sum(quantile is not None for quantile in quantiles),
    )


def generate_in_order(
    llm: Any,
    prompts: Sequence[Any],
    sampling_params: Any = None,
    *,
    client: RankerClient | ClientConfig,
    order: Order = "shortest",
    **generate_arguments: Any,
) -> list[Any]:
    """`llm.generate` in the order of `offline_plan`, with its outputs in the caller's. Lists, one for each prompt, may be given too."""
    return _run(llm.generate, prompts, client, order, {"sampling_params": sampling_params, **generate_arguments})


def chat_in_order(
    llm: Any,
    conversations: Sequence[Any],
    sampling_params: Any = None,
    *,
    client: RankerClient | ClientConfig,
    order: Order = "shortest",
    **chat_arguments: Any,
) -> list[Any]:
    """`llm.chat`, likewise."""
    return _run(llm.chat, conversations, client, order, {"sampling_params": sampling_params, **chat_arguments})


def _run(
    method: Any, prompts: Sequence[Any], client: RankerClient | ClientConfig, order: Order, arguments: dict[str, Any]
) -> list[Any]:
    if "priority" in arguments:
        raise TypeError("priority is what the order is made with; leave it out")
    plan = offline_plan(client, prompts, order=order)
    for name in ("sampling_params", "lora_request"):  # Those that vLLM takes one by one with the prompts.
        if isinstance(arguments.get(name), Sequence):
            arguments[name] = plan.arranged(arguments[name])
    if "priority" in inspect.signature(method).parameters:  # LLM.chat has it since vLLM 0.32. Without, the sorted list does it.
        arguments["priority"] = plan.priorities
    return plan.restored(method(plan.prompts, **arguments))


def _refuse_single(prompts: Sequence[Any]) -> None:
    # vLLM takes a single one too. Here it would be taken apart and its pieces sorted.
    first = None if isinstance(prompts, str | bytes | Mapping) or not prompts else prompts[0]
    if isinstance(prompts, str | bytes | Mapping) or isinstance(first, int) or (isinstance(first, Mapping) and "role" in first):
        raise TypeError("a list of prompts or conversations is wanted, not a single one")


def _quantiles(
    client: RankerClient, texts: Sequence[str | None], tier: Tier, timeout_ms: float, total_timeout_ms: float
) -> list[float | None]:
    """Same length and order as `texts`; None where there is no text or no score. Says in the log what went wrong."""
    quantiles: list[float | None] = [None] * len(texts)
    asked = {position: encodable(clip(text)[0]) for position, text in enumerate(texts) if text is not None}
    if asked:
        answers, problems = _ask(client, list(asked.values()), tier, timeout_ms, total_timeout_ms)
        for position, answer in zip(asked, answers, strict=True):
            quantiles[position] = answer
        if problems:
            hook_logger().warning(
                "PARS: %d of %d prompts have no score and count as middling, or stay in the order given when none has one. "
                "Sidecar %s: %s",
                problems.total(),
                len(asked),
                client.config.address,
                ", ".join(f"{count} {problem}" for problem, count in problems.items()),
            )
    elif texts:
        hook_logger().warning("PARS: none of %d prompts has a text to score; they stay in the order given", len(texts))
    return quantiles


def _ask(
    client: RankerClient, texts: Sequence[str], tier: Tier, timeout_ms: float, total_timeout_ms: float
) -> tuple[list[float | None], Counter[str]]:
    """Return quantiles, None for those not scored, and how many were not scored by cause. Raises nothing of the sidecar's."""
    ends_s = time.monotonic() + total_timeout_ms / 1000
    quantiles: list[float | None] = []
    problems: Counter[str] = Counter()
    failures = 0
    try:
        max_prompts = client.get_bundle(timeout_ms=min(timeout_ms, total_timeout_ms)).max_prompts_per_call
    except RankerClientError as error:
        return [None] * len(texts), Counter({type(error).__name__: len(texts)})
    for run in requests.split(texts, max_prompts):
        left_ms = (ends_s - time.monotonic()) * 1000
        if left_ms <= 0 or failures == FAILURES_IN_A_ROW:
            problem: str | None = "out of time" if left_ms <= 0 else "not asked any more"
        else:
            try:
                batch = client.score(run, tier=tier, timeout_ms=min(timeout_ms, left_ms))
                quantiles += [score.quantile for score in batch.scores]
                failures, problem = 0, None
            except RankerClientError as error:
                failures, problem = failures + 1, type(error).__name__
        if problem is not None:
            quantiles += [None] * len(run)
            problems[problem] += len(run)
    return quantiles, problems
