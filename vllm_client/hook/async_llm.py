"""PrioritizedAsyncLLM for programs that embed vLLM's AsyncLLM.

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=..., scheduling_policy="priority"))
    async with PrioritizedAsyncLLM(engine, HookSettings()) as llm:
        async for output in llm.generate(prompt, sampling_params, request_id):
            ...

vLLM is not imported: anything with the same `generate` will do.
"""

import contextlib
import operator
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Protocol, Self, SupportsIndex

from vllm_client.hook.asked import Asked
from vllm_client.hook.decision import Outcome
from vllm_client.hook.engine_call import asked_of_call, host_of_engine, markers_of_engine, tell_about_engine
from vllm_client.hook.faults import FaultLog
from vllm_client.hook.host import hook_logger
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings
from vllm_client.priority import int64


class Engine(Protocol):
    """What is needed of an AsyncLLM."""

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: int = 0, **arguments: Any
    ) -> AsyncGenerator[Any, None]:
        """As in vllm.v1.engine.async_llm, 0.27.1 to 0.32.0."""
        ...


class PrioritizedAsyncLLM:
    """An AsyncLLM whose `generate` gives each request its priority. Everything else is the engine's own.

    Make it anywhere; use it and close it inside the event loop of the engine, of which it closes nothing. The engine needs
    scheduling_policy="priority"; without, one line in the log says that nothing happens here.

    A prompt of token ids alone, or of embeddings, counts as middling. Traffic classes and `priority_place` are for HTTP: they do
    nothing here.
    """

    def __init__(self, engine: Engine, hook: PriorityHook | HookSettings) -> None:
        """Starts nothing. A PriorityHook, shared by several engines perhaps, stays the caller's to configure and to close."""
        self.engine = engine
        self._faults = FaultLog(hook_logger())
        self._markers = markers_of_engine(engine)
        self._own_hook: PriorityHook | None = None
        if isinstance(hook, HookSettings):
            host = host_of_engine(engine)
            self._own_hook = PriorityHook(hook, gate_in_flight=host.gate_in_flight(hook.gate_in_flight), room=host.room)
            self._own_hook.engine_obeys = host.engine_obeys is not False
            tell_about_engine(host, hook)
            hook = self._own_hook
        self.hook = hook

    async def __aenter__(self) -> Self:
        self.hook.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the hook that was made here. The engine stays as it is. Closing twice is harmless."""
        if self._own_hook is not None:
            await self._own_hook.close()

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: SupportsIndex = 0, **arguments: Any
    ) -> AsyncGenerator[Any, None]:
        """Yield what the engine's `generate` yields; the arguments are its own, in whatever version.

        A `priority` other than 0 is the caller's own, see HookSettings.client_priority. Raises TypeError for one that is no
        integer: the engine would hang for ever.
        """
        own_priority = int64(operator.index(priority))
        arrival_ms = self.hook.now_ms()
        self.hook.start()
        with self.hook.in_flight() as backlog_ms:
            try:
                asked = asked_of_call(
                    prompt,
                    sampling_params,
                    prompt_text=arguments.get("prompt_text"),
                    priority=own_priority,
                    markers=self._markers,
                )
                decision = await self.hook.decide(asked, arrival_ms, backlog_ms)
            except Exception as error:  # Such as a prompt that is no plain value. Whatever it is, the engine shall see it.
                self._faults.tell(error)
                decision = self.hook.neutral(Asked(client_priority=own_priority or None), arrival_ms, Outcome.HOOK_FAULT)
            given = own_priority if decision.priority is None else decision.priority
            outputs = self.engine.generate(prompt, sampling_params, request_id, priority=given, **arguments)
            # A caller that leaves must reach the engine's own generator, which aborts the request.
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    yield output

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # Not made yet, as in a copy.
            raise AttributeError(name)
        return getattr(self.engine, name)
