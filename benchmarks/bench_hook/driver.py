"""Sends requests through the middleware into an application that does nothing: `python -P benchmarks/bench_hook/driver.py` answers jobs.

Run by the Python of vLLM's environment, where the hook lives: with its event loop, its gRPC and its Prometheus client. So nothing is
imported but the standard library, the installed client, and uvloop where it is there, as vLLM does.

One JSON object per line. In: {"name", "settings" (null: no middleware), "requests", "in_flight", "body_bytes", "pause_s"}; jobs with
the same name share their middleware, which is connected first. Out: {"wall_ns" per request, "wall_s", "cpu_s", "outcomes"}.
"""

import asyncio
import importlib
import json
import sys
import time
from types import SimpleNamespace
from typing import Any

from vllm_client import HookSettings, PriorityHook, PriorityMiddleware

CONNECT_S = 10.0
"""For the hook to connect, in jobs that ask."""

MAX_NUM_SEQS = 256
"""What the server around the hook pretends to run, as vLLM does by default on small accelerators."""


class Driver:
    """Holds the middlewares by name."""

    def __init__(self) -> None:
        self._apps: dict[str, Any] = {}
        self._hooks: dict[str, PriorityHook] = {}

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """One job."""
        name, settings, body = job["name"], job["settings"], chat_body(job["body_bytes"])
        if name not in self._apps:
            self._apps[name] = nothing if settings is None else await self._attached(name, settings, body)
        app, hook = self._apps[name], self._hooks.get(name)
        before = dict(hook.counters.counts) if hook else {}
        wall_ns: list[int] = []
        left = iter(range(job["requests"]))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()

        async def caller() -> None:
            for _ in left:
                scope, receive = request(body), received(body)
                began_ns = time.perf_counter_ns()
                await app(scope, receive, send_nowhere)
                wall_ns.append(time.perf_counter_ns() - began_ns)
                if job["pause_s"]:
                    await asyncio.sleep(job["pause_s"])

        await asyncio.gather(*(caller() for _ in range(job["in_flight"])))
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        after = dict(hook.counters.counts) if hook else {}
        outcomes = {outcome.value: count - before[outcome] for outcome, count in after.items() if count != before[outcome]}
        return {"wall_ns": wall_ns, "wall_s": wall_s, "cpu_s": cpu_s, "outcomes": outcomes}

    async def connect(self, name: str) -> None:
        """Wait until a middleware's hook has its sidecar. Raises TimeoutError."""
        async with asyncio.timeout(CONNECT_S):
            while not self._hooks[name].connected:  # noqa: ASYNC110 - the hook tells nobody
                await asyncio.sleep(0.01)

    async def _attached(self, name: str, settings: dict[str, Any], body: bytes) -> Any:
        def make_hook(*arguments: Any, **named: Any) -> PriorityHook:
            self._hooks[name] = PriorityHook(*arguments, **named)
            return self._hooks[name]

        app = PriorityMiddleware(nothing, HookSettings(**settings), make_hook=make_hook)
        # The first request attaches the hook to its host and begins to connect.
        await app(request(body), received(body), send_nowhere)
        return app


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """The application: reads the request to its end and answers nothing much."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def send_nowhere(message: Any) -> None:
    """The server's side of an answer."""


def received(body: bytes) -> Any:
    """The server's side of a request: the body in one message, as uvicorn hands over what fits into one read."""
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Any:
        return message

    return receive


def request(body: bytes) -> dict[str, Any]:
    """An ASGI scope as uvicorn makes it, inside an application that looks like vLLM's."""
    config = SimpleNamespace(scheduler_config=SimpleNamespace(policy="priority", max_num_seqs=MAX_NUM_SEQS))
    path = "/v1/chat/completions"
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"user-agent", b"OpenAI/Python"),
            (b"accept", b"application/json"),
            (b"authorization", b"Bearer none"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
        "state": {},
        "app": SimpleNamespace(state=SimpleNamespace(vllm_config=config)),
    }


def chat_body(size_bytes: int) -> bytes:
    """A chat request of this size: a system prompt, and the rest in the user's message."""
    user = {"role": "user", "content": ""}
    body: dict[str, Any] = {
        "model": "model",
        "messages": [{"role": "system", "content": "You are a helpful assistant."}, user],
        "max_tokens": 512,
        "stream": True,
    }
    left = size_bytes - len(json.dumps(body))
    words = "the quick brown fox jumps over the lazy dog "
    user["content"] = (words * (left // len(words) + 1))[:left]
    return json.dumps(body).encode()


async def answer() -> None:
    """Jobs from standard input until it ends. The loop runs on meanwhile, for the hook's connections live in it."""
    driver = Driver()
    print(
        json.dumps({"loop": type(asyncio.get_running_loop()).__module__.partition(".")[0], "versions": _versions()}), flush=True
    )
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        if "connect" in job:
            await driver.connect(job["connect"])
            print("{}", flush=True)
        else:
            print(json.dumps(await driver.do(job)), flush=True)


def _versions() -> dict[str, str]:
    metadata = importlib.import_module("importlib.metadata")
    names = {each.lower() for each in ("grpcio", "protobuf", "uvloop", "prometheus_client", "vllm")}
    found = {each.name.lower().replace("-", "_"): each.version for each in metadata.distributions() if each.name}
    return {"python": sys.version.split()[0], **{name: found[name] for name in sorted(names & set(found))}}


def main() -> int:
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(answer())
    return 0


if __name__ == "__main__":
    sys.exit(main())
