"""Runs inside vLLM's environment: a real AsyncLLM inside PrioritizedAsyncLLM. Writes what it saw as JSON.

python embedded_program.py MODEL RESULT SIDECAR_ADDRESS
"""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from quantile_ranker import RankerProcess, prompt
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_client import HookSettings
from vllm_client.hook.async_llm import PrioritizedAsyncLLM

WAIT_S = 60
ENDLESS_TOKENS = 1900
DEADLINE_MS, WINDOW_MS = 20_000, 3_600_000
"""Nothing here is about lateness, and a busy machine may take its time to queue requests."""


def params_for(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0)


class Recorded:
    """Passes on to the engine, and keeps the priorities that it is given."""

    def __init__(self, engine: AsyncLLM) -> None:
        self.engine = engine
        self.priorities: dict[str, Any] = {}

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **arguments: Any) -> Any:
        self.priorities[request_id] = arguments["priority"]
        return self.engine.generate(prompt, sampling_params, request_id, **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class Program:
    def __init__(self, llm: PrioritizedAsyncLLM) -> None:
        self.llm = llm
        self.order: list[str] = []
        self._ids = itertools.count()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.005)

    async def run(self, name: str, asked: Any, tokens: int = 6, **arguments: Any) -> int:
        """Run one request, and return how many tokens came back."""
        count = 0
        async for output in self.llm.generate(asked, params_for(tokens), f"{name} #{next(self._ids)}", **arguments):
            count = len(output.outputs[0].token_ids)
        self.order.append(name)
        return count

    @asynccontextmanager
    async def saturated(self) -> AsyncIterator[None]:
        """Inside, a request without an end runs. Leaving closes its generator, as a caller does that has seen enough."""
        blocker = self.llm.generate("nothing else runs", params_for(ENDLESS_TOKENS), f"blocker #{next(self._ids)}")
        await anext(blocker)
        yield
        await blocker.aclose()

    async def finishing_order(self, requests: dict[str, tuple[Any, dict[str, Any]]]) -> list[str]:
        """Queue the requests one by one behind a blocker, let it go, and return their names as they were answered."""
        self.order = []
        await self.until(lambda: self.unfinished() == 0)
        async with self.saturated():
            tasks = []
            for queued, (name, (asked, arguments)) in enumerate(requests.items(), start=1):
                tasks.append(asyncio.create_task(self.run(name, asked, **arguments)))
                await self.until(lambda count=queued + 1: self.unfinished() == count)
            assert not self.order
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*tasks)
        return list(self.order)

    def unfinished(self) -> int:
        return self.llm.output_processor.get_num_unfinished_requests()


async def observe(engine: AsyncLLM, address: str) -> dict[str, Any]:
    recorded = Recorded(engine)
    found: dict[str, Any] = {}
    ranker = RankerProcess(address)
    settings = HookSettings(address=address, deadline_ms=DEADLINE_MS, window_ms=WINDOW_MS, gate_in_flight=0)
    try:
        async with PrioritizedAsyncLLM(recorded, settings) as llm:
            program = Program(llm)
            await program.until(lambda: llm.hook.connected)
            long = {f"long {number}": (prompt(1.0), {"tokens": 20}) for number in range(3)}
            short = {f"short {number}": (prompt(0.0), {}) for number in range(3)}
            found["length"] = await program.finishing_order(long | short)

            tokenizer = engine.renderer.tokenizer
            turns = [{"role": "user", "content": prompt(1.0)}, {"role": "assistant", "content": "so"}]
            chat = [*turns, {"role": "user", "content": prompt(0.2)}]
            rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            ids = tokenizer("[q=0] written in token ids").input_ids
            forms = {
                "long dict": ({"prompt": prompt(0.9)}, {}),
                "token ids": ({"prompt_token_ids": ids}, {}),
                "rendered chat": (rendered, {}),
                "own priority": (prompt(1.0), {"priority": 5}),
                "short": (prompt(0.1), {}),
            }
            found["forms"] = await program.finishing_order(forms)
            found["last user text"] = llm._markers.last_user_text(rendered)
            found["types"] = sorted({type(priority).__name__ for priority in recorded.priorities.values()})
            found["aborted"] = program.unfinished()

            ranker.stop()
            await program.until(lambda: not llm.hook.connected)
            found["killed"] = await program.finishing_order(long | short)
            found["answers"] = [await program.run("after", prompt(0.5), tokens) for tokens in (1, 7)]
            found["outcomes"] = {str(outcome): count for outcome, count in llm.hook.counters.counts.items() if count}
    finally:
        ranker.stop()
    return found


async def found_with(model: str, address: str) -> dict[str, Any]:
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model,
            load_format="dummy",
            enforce_eager=True,
            dtype="float32",
            max_model_len=2048,
            max_num_seqs=1,
            scheduling_policy="priority",
        )
    )
    try:
        return await observe(engine, address)
    finally:
        engine.shutdown()


if __name__ == "__main__":
    model, result, address = sys.argv[1:]
    Path(result).write_text(json.dumps(asyncio.run(found_with(model, address))))
