"""The servers that tests share, and how two of them at a time find room on a small machine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from vllm_server import VllmServer

MIDDLEWARE = ("--middleware", "vllm_client.PriorityMiddleware")
PRIORITY = ("--scheduling-policy", "priority")
API_KEY = "a-key-of-the-tests"
DEADLINE_MS = 10_000
"""So generous that a very busy machine scores as well. What an outage costs is measured with TIGHT_DEADLINE_MS."""
BREAKER_FAILURES = 2
"""So few that an outage does not take minutes with that deadline."""
WINDOW_MS = 3_600_000
"""Whatever a test queues arrives within it."""
ONE_AT_A_TIME = ("--max-num-seqs", "1", "--api-key", API_KEY)
"""One running request makes the order of finishing the order of starting."""

PLAIN, HOOKED, EQUAL = "plain", "hooked", "hooked, equal policy"
TWO_WORKERS, TWO_ENGINES = "hooked, two workers, priority in the body", "hooked, two workers and two engines"
FCFS = "hooked, without priority scheduling"
TIGHT = "hooked, little memory, short deadline"

SHORT_WINDOW_MS = 6000
"""For the test that sees the bound from both sides."""

TIGHT_PLACES = 8
TIGHT_BLOCKS = 16
"""Of 128 tokens each: two requests of the largest size fill it."""
TIGHT_FLAGS = ("--max-model-len", "1024", "--num-gpu-blocks-override", str(TIGHT_BLOCKS))
TIGHT_DEADLINE_MS = 50
"""So short that what a sidecar in trouble may cost is small beside what a busy machine costs."""

SERVERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    PLAIN: ((*ONE_AT_A_TIME, *PRIORITY), {}),
    HOOKED: ((*ONE_AT_A_TIME, *PRIORITY, *MIDDLEWARE), {}),
    EQUAL: ((*ONE_AT_A_TIME, *PRIORITY, *MIDDLEWARE), {"PARS_HOOK_POLICY": "equal"}),
    TWO_WORKERS: (
        (*ONE_AT_A_TIME, *PRIORITY, *MIDDLEWARE, "--api-server-count", "2"),
        # A window that stays, whatever the tests before have queued.
        {"PARS_HOOK_PRIORITY_PLACE": "body", "PARS_HOOK_WINDOW_MS": str(SHORT_WINDOW_MS), "PARS_HOOK_MAX_WINDOW_MS": "0"},
    ),
    TWO_ENGINES: ((*ONE_AT_A_TIME, *PRIORITY, *MIDDLEWARE, "--data-parallel-size", "2"), {}),
    TIGHT: (
        (*PRIORITY, *MIDDLEWARE, "--max-num-seqs", str(TIGHT_PLACES), *TIGHT_FLAGS),
        {"PARS_HOOK_DEADLINE_MS": str(TIGHT_DEADLINE_MS), "PARS_HOOK_BREAKER_FAILURES": "5"},
    ),
    FCFS: ((*ONE_AT_A_TIME, *MIDDLEWARE), {}),
}
"""Name → flags and environment, beyond what every server here gets."""


HOOK = {
    "PARS_HOOK_DEADLINE_MS": str(DEADLINE_MS),
    "PARS_HOOK_BREAKER_FAILURES": str(BREAKER_FAILURES),
    "PARS_HOOK_WINDOW_MS": str(WINDOW_MS),
    # Else a lone request is never asked about.
    "PARS_HOOK_GATE_IN_FLIGHT": "0",
}
"""Of every server with the middleware, beside the address, unless the table says otherwise."""


class Fleet:
    """fleet(name) is the running server of that name. `ranker_address` is where all of them look for the sidecar."""

    capacity = 2

    def __init__(self, serve: Callable[..., AbstractContextManager[VllmServer]], socket_folder: Path) -> None:
        self._serve = serve
        self.ranker_address = f"unix:{socket_folder / 'fleet.sock'}"
        self._running: dict[str, tuple[VllmServer, AbstractContextManager[VllmServer]]] = {}

    def __call__(self, name: str) -> VllmServer:
        if name not in self._running:
            while len(self._running) >= self.capacity:
                self._stop(next(iter(self._running)))
            flags, environment = SERVERS[name]
            hook = HOOK | {"PARS_HOOK_ADDRESS": self.ranker_address} if MIDDLEWARE[0] in flags else {}
            context = self._serve(*flags, **(hook | environment))
            self._running[name] = (context.__enter__(), context)
        # Used last, so stopped last.
        self._running[name] = self._running.pop(name)
        return self._running[name][0]

    def close(self) -> None:
        while self._running:
            self._stop(next(iter(self._running)))

    def _stop(self, name: str) -> None:
        _, context = self._running.pop(name)
        context.__exit__(None, None, None)
