"""`AsyncLLM.add_request`, wrapped: requests of priority 0 get one. See plugin.py for when and why.

Costs some microseconds for each request and nothing for each token. Fails open: whatever goes wrong here, the engine gets its
call as it was.
"""

import dataclasses
import functools
import importlib
import inspect
import multiprocessing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from vllm_client.hook.asked import Asked
from vllm_client.hook.decision import Outcome
from vllm_client.hook.engine_call import asked_of_call, host_of_engine, markers_of_engine, tell_about_engine
from vllm_client.hook.faults import FaultLog
from vllm_client.hook.host import TESTED_MAX, TESTED_MIN, hook_logger, inspect_host
from vllm_client.hook.settings import HookSettings
from vllm_client.hook.values import count

AddRequest = Callable[..., Awaitable[Any]]

ENGINE_MODULE = "vllm.v1.engine.async_llm"

NEEDED_PARAMETERS = frozenset({"request_id", "prompt", "params", "priority"})

_MARK = "_pars_wrapped"


def install(settings: HookSettings) -> None:
    """Wrap the method of the class, once; or say once why not. Needs vLLM."""
    engine_class = importlib.import_module(ENGINE_MODULE).AsyncLLM
    if getattr(engine_class.add_request, _MARK, False):
        return
    reason = reason_to_stay_out(engine_class.add_request)
    if reason is None:
        engine_class.add_request = wrapped(engine_class.add_request, settings)
    elif multiprocessing.parent_process() is None:  # Its children would repeat it, once each.
        hook_logger().warning("PARS priority plugin: stays out, requests go without priorities: %s", reason)


def reason_to_stay_out(add_request: AddRequest) -> str | None:
    """Return why this vLLM is not the one that the wrapper was made for; None when it is."""
    host = inspect_host({})
    if host.is_tested() is not True:
        return f"vLLM {host.version or 'of an unknown version'} is not among the tested ones, {TESTED_MIN} to {TESTED_MAX}"
    missing = NEEDED_PARAMETERS - set(inspect.signature(add_request).parameters)
    return f"AsyncLLM.add_request has no parameter {', '.join(sorted(missing))}" if missing else None


def wrapped(add_request: AddRequest, settings: HookSettings) -> AddRequest:
    """Return `add_request` with priorities, for every engine of the class and each with a hook of its own."""
    signature = inspect.signature(add_request)
    attachments: WeakKeyDictionary[object, Attachment] = WeakKeyDictionary()
    faults = FaultLog(hook_logger())

    @functools.wraps(add_request)
    async def prioritised(engine: object, *args: Any, **kwargs: Any) -> Any:
        try:
            call = signature.bind(engine, *args, **kwargs)
        except TypeError:  # Raised again below, by the function itself.
            return await add_request(engine, *args, **kwargs)
        try:
            attachment = attachments.get(engine)
            if attachment is None:
                attachment = attachments[engine] = Attachment(engine, settings)
            given = await attachment.priority(engine, call.arguments)
        except Exception as error:
            faults.tell(error)
            given = None
        if given is not None:
            call.arguments["priority"] = given
        return await add_request(*call.args, **call.kwargs)

    setattr(prioritised, _MARK, True)
    return prioritised


class Attachment:
    """The hook of one engine, and of the event loop that the engine lives in."""

    def __init__(self, engine: object, settings: HookSettings) -> None:
        # Only now, with the first request: gRPC comes with it.
        from vllm_client.hook.scoring import PriorityHook

        host = host_of_engine(engine)
        self._gate = host.gate_in_flight(settings.gate_in_flight)
        self._hook = PriorityHook(
            dataclasses.replace(settings, client_priority="keep", gate_in_flight=self._gate), room=host.room
        )
        self._hook.engine_obeys = host.engine_obeys is not False
        self._markers = markers_of_engine(engine)
        tell_about_engine(host, settings)

    async def priority(self, engine: object, arguments: Mapping[str, Any]) -> int | None:
        """Return the priority for a call of add_request with these arguments; None: leave it as it is."""
        prompt, params, own_priority = arguments["prompt"], arguments["params"], arguments.get("priority", 0)
        if not hasattr(params, "max_tokens") or hasattr(prompt, "priority"):
            return None  # Pooling, which answers in one step; an EngineCoreRequest, whose own priority is the one that counts.
        self._hook.start()
        arrival_ms = self._hook.now_ms()
        # The end of a request is not seen here, but the engine knows how many it has, each of n samples for itself. Those being
        # decided come on top.
        self._hook.in_flight_elsewhere = _unfinished(engine, otherwise=self._gate)
        with self._hook.in_flight(count(getattr(params, "n", None)) or 1) as backlog_ms:
            if own_priority:
                return self._hook.neutral(Asked(client_priority=own_priority), arrival_ms, Outcome.CLIENT_PRIORITY).priority
            asked = asked_of_call(prompt, params, prompt_text=arguments.get("prompt_text"), markers=self._markers)
            return (await self._hook.decide(asked, arrival_ms, backlog_ms)).priority


def _unfinished(engine: Any, otherwise: int) -> int:
    try:
        return int(engine.output_processor.get_num_unfinished_requests())
    except Exception:  # Not the same in every version; then there is no gate.
        return otherwise
