"""The engine of the studies. Nobody measured it: it is worked out from data sheets, and every study says so."""

from collections.abc import Sequence

from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.request import Request
from benchmarks.simulator.step_model import StepModel

ENGINE = EngineSettings(max_num_seqs=256, max_num_batched_tokens=8192, kv_blocks=25_000, async_scheduling=True)
STEP_MODEL = StepModel(constant_ms=7.0, per_sequence_ms=0.01, per_prefill_token_ms=0.04, per_context_token_ms=4e-5)

ASSUMPTIONS = (
    "An engine of 256 slots, a token budget of 8,192 and 25,000 KV blocks of 16 tokens: a model of 8 billion parameters in bf16 on one "
    "GPU of 80 GB, with 131 kB of KV cache per token. A step takes 7 ms for the weights (16 GB at 3.35 TB/s, and overhead), 0.01 ms for "
    "each sequence, 0.04 ms for each prompt token (16 GFLOP at 400 TFLOP/s) and 0.00004 ms for each token of context (131 kB at "
    "3.35 TB/s). Assumed, not measured.",
    "No prefix cache: a preempted request reads all of its tokens again.",
    "The same engine for every trace, whatever model it was recorded from: what counts is how prompts, responses and arrivals are mixed.",
)


def prompt_weight(requests: Sequence[Request]) -> float:
    """Response tokens that a prompt token is worth, in time of the full engine: for the disciplines that weigh work."""
    context = sum(each.prompt_tokens + each.output_tokens / 2 for each in requests) / len(requests)
    slots = min(ENGINE.max_num_seqs, ENGINE.kv_blocks * ENGINE.block_tokens / context)
    return STEP_MODEL.per_prefill_token_ms / (STEP_MODEL.step_ms(slots, 0, slots * context) / slots)
