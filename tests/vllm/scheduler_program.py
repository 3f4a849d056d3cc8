"""Runs inside vLLM's environment: vLLM's own scheduler without a model, in steps of one millisecond. Writes what it did as JSON.

python scheduler_program.py MODEL RESULT CASES

CASES is a file with a JSON list of {"slots", "budget", "blocks", "block_tokens", "asynchronous", "requests"}; each request is a list of
arrival, prompt tokens, output tokens and priority. The result's "cases" has for each of them, request by request, when each token came
and how often it was preempted.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

TOKEN = 7


class Driver:
    """Does what EngineCore.step does, or step_with_batch_queue with two batches, with a clock of its own."""

    def __init__(self, case: dict[str, Any], base: Any) -> None:
        self.asynchronous = case["asynchronous"]
        self.scheduler = scheduler_for(case, base)
        self.requests = [request_of(index, row) for index, row in enumerate(case["requests"])]
        self.came: dict[str, list[int]] = {request.request_id: [] for request in self.requests}
        self.in_flight: list[tuple[int, Any, set[str]]] = []

    def run(self) -> list[Any]:
        coming = sorted(self.requests, key=lambda request: request.arrival_time)
        now = last_end = 0
        while coming or self.scheduler.has_requests():
            while self.in_flight and self.in_flight[0][0] <= now:
                self.learn()
            while coming and coming[0].arrival_time <= now:
                self.scheduler.add_request(coming.pop(0))
            if not self.scheduler.has_requests():
                now = max(now, int(coming[0].arrival_time)) if coming else now
                continue
            output = self.scheduler.schedule()
            if output.total_num_scheduled_tokens:
                begins = max(now, last_end)
                last_end = begins + 1
                # Those whose prompt is not read to its end make no token.
                partial = {name for name in output.num_scheduled_tokens if self.scheduler.requests[name].is_prefill_chunk}
                self.in_flight.append((last_end, output, partial))
                now = begins if self.asynchronous else last_end
            else:
                now = max(now, last_end)
        return [[self.came[request.request_id], request.num_preemptions] for request in self.requests]

    def learn(self) -> None:
        end, output, partial = self.in_flight.pop(0)
        names = list(output.num_scheduled_tokens)
        sampled = [[] if name in partial else [TOKEN] for name in names]
        made = ModelRunnerOutput(names, {name: index for index, name in enumerate(names)}, sampled)
        for answers in self.scheduler.update_from_output(output, made).values():
            for answer in answers.outputs:
                self.came[answer.request_id] += [end] * len(answer.new_token_ids)


def scheduler_for(case: dict[str, Any], base: Any) -> Scheduler:
    config = copy.deepcopy(base)
    config.scheduler_config.max_num_seqs = case["slots"]
    config.scheduler_config.max_num_batched_tokens = case["budget"]
    config.scheduler_config.async_scheduling = case["asynchronous"]
    # One block of vLLM's is never given out.
    blocks, block_tokens = case["blocks"] + 1, case["block_tokens"]
    config.cache_config.num_gpu_blocks, config.cache_config.block_size = blocks, block_tokens
    spec = FullAttentionSpec(block_size=block_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32)
    caches = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    kind = AsyncScheduler if case["asynchronous"] else Scheduler
    return kind(config, caches, StructuredOutputManager(config), block_size=block_tokens)


def request_of(index: int, row: list[int]) -> Request:
    arrival, prompt_tokens, output_tokens, priority = row
    params = SamplingParams(max_tokens=output_tokens, ignore_eos=True)
    return Request(f"{index:06d}", [TOKEN] * prompt_tokens, params, None, arrival_time=float(arrival), priority=priority)


def main(model: str, result: str, cases: str) -> None:
    base = EngineArgs(
        model,
        load_format="dummy",
        dtype="float32",
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=1,
        scheduling_policy="priority",
        enable_prefix_caching=False,
    ).create_engine_config()
    done = [Driver(case, base).run() for case in json.loads(Path(cases).read_text())]
    Path(result).write_text(json.dumps({"cases": done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
