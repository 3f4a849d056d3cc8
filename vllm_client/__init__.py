"""Client of the PARS sidecar: prompts in, expected response lengths and engine priorities out.

    import time
    from vllm_client import RankerClient, vllm_priority

    with RankerClient() as client:
        batch = client.score(["What is 2 + 2?", "Write a novel about a lighthouse."])
    priorities = [vllm_priority(score.quantile, time.time() * 1000) for score in batch.scores]

Standard library, grpcio, protobuf and `pars`; nothing else, for it lives in somebody else's server. Importing it does nothing:
no environment is read, no thread started, no logging set up. `python -m vllm_client` scores prompts from a terminal. The hook in
vLLM is `PriorityMiddleware`; hook/ says how it is made.
"""

from vllm_client.async_client import AsyncRankerClient
from vllm_client.client import RankerClient
from vllm_client.config import ClientConfig
from vllm_client.errors import (
    BadReplyError,
    CredentialsError,
    DeadlineError,
    InvalidPromptsError,
    OverloadedError,
    RankerClientError,
    ServerFaultError,
    UnavailableError,
)
from vllm_client.hook.async_llm import PrioritizedAsyncLLM
from vllm_client.hook.middleware import PriorityMiddleware
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings
from vllm_client.offline import OfflinePlan, chat_in_order, generate_in_order, offline_plan
from vllm_client.other_engines import sglang_priority, tensorrt_llm_priority
from vllm_client.priority import DEFAULT_WINDOW_MS, NEUTRAL_QUANTILE, vllm_priority
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
from vllm_client.stream import ScoreStream

__all__ = [
    "DEFAULT_WINDOW_MS",
    "NEUTRAL_QUANTILE",
    "AsyncRankerClient",
    "BadReplyError",
    "ClientConfig",
    "ComparedBatch",
    "Comparison",
    "CredentialsError",
    "DeadlineError",
    "HookSettings",
    "InvalidPromptsError",
    "Longer",
    "OfflinePlan",
    "OverloadedError",
    "PrioritizedAsyncLLM",
    "PriorityHook",
    "PriorityMiddleware",
    "PromptScore",
    "RankerClient",
    "RankerClientError",
    "ScoreStream",
    "ScoredBatch",
    "ServedBundle",
    "ServerFaultError",
    "ServerTiming",
    "Tier",
    "UnavailableError",
    "chat_in_order",
    "generate_in_order",
    "offline_plan",
    "sglang_priority",
    "tensorrt_llm_priority",
    "vllm_priority",
]
