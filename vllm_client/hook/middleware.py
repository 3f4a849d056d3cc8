"""PriorityMiddleware for `vllm serve --middleware vllm_client.PriorityMiddleware`, and for any ASGI server.

It is the outermost layer. So it runs before authentication: it does a bounded amount of work for anybody, logs nothing of a
request and adds nothing to a response. `send` goes to the application as it is, so a streamed token costs nothing.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vllm_client.hook.asked import Asked
from vllm_client.hook.body import Allowance, HeldBody, Receive
from vllm_client.hook.classes import NO_CLASSES
from vllm_client.hook.decision import Outcome
from vllm_client.hook.faults import FaultLog
from vllm_client.hook.host import hook_logger, inspect_host, tell_about
from vllm_client.hook.lifespan import Send, refuse_to_start, watched
from vllm_client.hook.passage import Passage
from vllm_client.hook.placement import Scope
from vllm_client.hook.request import Endpoint, endpoint_of
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings

Result = TypeVar("Result")
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HELD_BODIES = 64
"""Bodies of the largest size that may be held unfinished at a time, over all requests. What exceeds that counts as too large."""

CLOSE_TIMEOUT_S = 5.0
"""A server that shuts down waits no longer than this for the hook."""


class PriorityMiddleware:
    """Gives each request for a generation its priority, and passes everything else through.

    vLLM makes it with the application alone; then settings come from PARS_HOOK_* variables. A wrong one is not raised here, where
    Starlette and uvicorn would make of it a server that answers every request with a 500: it stops the server's start, through
    the lifespan protocol. A host without lifespan gets one line in its log, and its requests go through untouched.

    With `settings`, errors are raised here: HookSettingsError. `make_hook` replaces PriorityHook, for tests.
    """

    def __init__(
        self, app: App, settings: HookSettings | None = None, *, make_hook: Callable[..., PriorityHook] = PriorityHook
    ) -> None:
        self.app = app
        self._make_hook = make_hook
        self._settings = settings or HookSettings()
        self._classes = NO_CLASSES
        self._refusal: str | None = None
        try:
            if settings is None:
                self._settings = HookSettings.from_environment(os.environ)
            self._classes = self._settings.traffic_classes()
        except Exception as error:
            if settings is not None:
                raise
            self._refusal = f"PARS hook: {error}"
        self._allowance = Allowance(HELD_BODIES * self._settings.max_body_bytes)
        self._faults = FaultLog(hook_logger())
        self._attached = self._started = False
        self._hook: PriorityHook | None = None
        self._passage: Passage | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if scope["method"] == "POST" and (endpoint := endpoint_of(scope["path"])) is not None:
                return self._serve(endpoint, scope, receive, send)
        elif scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        return self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusal is not None:
            await refuse_to_start(receive, send, self._refusal)
            return
        self._attach(scope)
        await self.app(scope, *watched(receive, send, self._start, self._stop))

    async def _serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._attach(scope)
        self._start()
        if self._hook is None or self._passage is None:
            await self.app(scope, receive, send)
            return
        body = HeldBody(receive, self._allowance)
        try:
            finding = await self._guarded(self._passage.read(endpoint, scope, body))
            with self._hook.in_flight() as backlog_ms:
                if finding is not None:
                    scope = await self._guarded(self._passage.conclude(finding, backlog_ms, scope, body)) or scope
                body.release()
                await self.app(scope, body.replay, send)
        finally:
            body.release()

    async def _guarded(self, step: Awaitable[Result]) -> Result | None:
        """Take one step of ours. A bug in it costs the request its priority and nothing else."""
        try:
            return await step
        except Exception as error:
            self._faults.tell(error)
            if self._hook is not None:
                with contextlib.suppress(Exception):
                    self._hook.neutral(Asked(), self._hook.now_ms(), Outcome.HOOK_FAULT)
            return None

    def _attach(self, scope: Scope) -> None:
        """Once, with the first scope of any kind: look at the host and make the hook that fits it. Never raises."""
        if self._attached:
            return
        self._attached = True
        logger = hook_logger()
        if self._refusal is not None:
            logger.error("%s. The hook is off; requests pass through untouched.", self._refusal)
            return
        try:
            host = inspect_host(scope)
            gate = host.gate_in_flight(self._settings.gate_in_flight)
            hook = self._make_hook(self._settings, gate_in_flight=gate, room=host.room)
            hook.engine_obeys = host.engine_obeys is not False
            tell_about(host, self._settings, logger)
            self._hook, self._passage = hook, Passage(hook, host, self._settings, self._classes)
        except Exception as error:
            self._faults.tell(error)

    def _start(self) -> None:
        if self._hook is None or self._started:
            return
        self._started = True
        if not self._hook.engine_obeys and not self._settings.shadow:
            return  # Nothing will ever be asked: no connection, and no complaints about one.
        try:
            self._hook.start()
        except Exception as error:
            self._faults.tell(error)

    async def _stop(self) -> None:
        if self._hook is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._hook.close()
        except Exception as error:
            self._faults.tell(error)
