"""One real `vllm serve`: started on a free port, waited for, read, stopped, and proved to have left no process behind."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from http_wire import JSON, WAIT_S, Reply, send

START_S = 300.0
"""A start takes 20 to 45 s on two idle cores; the bound is for busy ones."""
STOP_S = 60.0
POLL_S = (0.02, 0.2)
"""Between two looks: the first, and the longest. A reading of /metrics costs the API server some 5 ms."""
ENGINE_NICE = 5

MODEL = "tiny"
FLAGS = (
    *("--served-model-name", MODEL, "--load-format", "dummy", "--enforce-eager", "--host", "127.0.0.1"),
    # bfloat16 crashes the CPU worker (an illegal instruction) when one request runs alone.
    *("--dtype", "float32"),
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    # Bound to a core, two servers would share it while another one idles.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
MARK = "PARS_TEST_VLLM_SERVER"
"""Environment variable that every process of one server carries, whatever session or parent it ended up with."""


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every sample of `name`."""
        found = re.findall(rf"^{re.escape(name)}(?:\{{(.*)\}})? (\S+)$", self.text, re.MULTILINE)
        return [(dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)), float(value)) for labels, value in found]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of `name` that have these labels; 0 when there is none."""
        return sum(value for has, value in self.samples(name) if labels.items() <= has.items())

    @property
    def running(self) -> int:
        return int(self.total("vllm:num_requests_running"))

    @property
    def waiting(self) -> int:
        return int(self.total("vllm:num_requests_waiting"))

    def finished(self, engine: str) -> int:
        """Requests that an engine has answered in full."""
        return int(self.total("vllm:request_success_total", engine=engine, finished_reason="length"))

    def outcome(self, name: str) -> int:
        """How many requests the hook counted under this cause."""
        return int(self.total("pars_hook_requests_total", outcome=name))

    def outcomes(self) -> Counter[str]:
        """Every cause counted so far."""
        return Counter({has["outcome"]: int(value) for has, value in self.samples("pars_hook_requests_total") if value})

    def outcomes_since(self, before: "Metrics") -> dict[str, int]:
        """What was counted between another reading and this one."""
        return dict(self.outcomes() - before.outcomes())


class VllmServer:
    """A running server; `serve` makes one. The caller closes it.

    `port` leads to it, `log()` is everything that it wrote; `api_servers` are its processes that take requests, `places` the
    requests that its engines run at a time.
    """

    def __init__(
        self, bin_folder: Path, model: Path, folder: Path, flags: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        folder.mkdir(parents=True)
        self._log_path = folder / "vllm.log"
        self._mark = uuid.uuid4().hex
        self.port = free_port()
        self.engines = int(_value(flags, "--data-parallel-size", "1"))
        self.api_servers = int(_value(flags, "--api-server-count", str(self.engines)))
        self.places = self.engines * int(_value(flags, "--max-num-seqs", "128"))
        self.api_key = _value(flags, "--api-key", None)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PARS_", "VLLM_", "PYTHON"))}
        command = [str(bin_folder / "vllm"), "serve", str(model), *FLAGS, "--port", str(self.port), *flags]
        path = f"{bin_folder}{os.pathsep}{kept.get('PATH', os.defpath)}"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,  # Not the repository: vLLM must find the installed wheel, not the working tree.
                env=kept | ENVIRONMENT | {"PATH": path, MARK: self._mark} | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def wait_until_up(self) -> None:
        """Wait for /health. Fails with the log's tail when the server ends, or is not up in time."""
        give_up = time.monotonic() + START_S
        while not self._healthy():
            assert self.process.poll() is None, f"vllm serve ended with {self.process.returncode}:\n{self.log()[-6000:]}"
            assert time.monotonic() < give_up, f"vllm serve is not up after {START_S} s:\n{self.log()[-6000:]}"
            time.sleep(POLL_S[1])
        for process_id in self.processes():
            self._put_engine_last(process_id)

    def exit_code(self) -> int:
        """Wait until the server has ended by itself, for as long as a start may take."""
        return self.process.wait(timeout=START_S)

    def close(self) -> None:
        """SIGTERM, then, if need be, SIGKILL for everything that carries the server's mark. Fails when the first was not enough."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=STOP_S)
        give_up = time.monotonic() + STOP_S / 2
        while (left := self.processes()) and time.monotonic() < give_up:
            time.sleep(POLL_S[0])
        for process_id in left:
            os.kill(process_id, signal.SIGKILL)
        self.process.wait(timeout=STOP_S)
        assert not left, f"the server left processes {left} behind:\n{self.log()[-3000:]}"

    def processes(self) -> list[int]:
        """Ids of the server's living processes: of its session, or with its mark. Those that rename themselves lose the mark."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                    marked = f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes()
                except OSError:  # It has just ended, or is not ours.
                    continue
                if state != "Z" and (marked or int(session) == self.process.pid):
                    found.append(int(folder.name))
        return found

    def resident_bytes(self) -> int:
        """Resident memory of the API server's process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found.group(1)) * 1024

    async def post(self, path: str, content: object, headers: Mapping[str, str] = {}, *, timeout_s: float = WAIT_S) -> Reply:
        """POST JSON as an ordinary client does, with the server's API key if it has one."""
        return await send(self.port, "POST", path, content, self.headers() | JSON | dict(headers), timeout_s=timeout_s)

    async def get(self, path: str) -> Reply:
        return await send(self.port, "GET", path, b"", self.headers())

    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}

    async def metrics(self) -> Metrics:
        reply = await self.get("/metrics")
        assert reply.status == 200
        return Metrics(reply.body.decode())

    async def until(self, condition: Callable[[Metrics], bool], *, timeout_s: float = WAIT_S) -> Metrics:
        """Read /metrics until `condition` holds of a reading; fails with the last one after `timeout_s`."""
        give_up = time.monotonic() + timeout_s
        pause_s = POLL_S[0]
        while True:
            metrics = await self.metrics()
            if condition(metrics):
                return metrics
            assert time.monotonic() < give_up, (
                f"waited {timeout_s} s: running {metrics.running}, waiting {metrics.waiting}, hook {metrics.outcomes()}"
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S[1])

    async def until_idle(self) -> Metrics:
        """Wait until vLLM says that no request runs or waits."""
        return await self.until(lambda metrics: metrics.running == metrics.waiting == 0)

    def _put_engine_last(self, process_id: int) -> None:
        """Let API server, sidecar and test go before the engine, which takes two cores whenever it runs, for it spins while it waits.

        Without this a machine of two cores makes tokens faster than the API server can pass on, and its metrics lag by seconds.
        """
        folder = Path(f"/proc/{process_id}")
        with contextlib.suppress(OSError):  # A process or thread that has just ended.
            if re.search(rb"VLLM::(EngineCore|Worker)", (folder / "cmdline").read_bytes()):
                for thread in (folder / "task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), ENGINE_NICE)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=WAIT_S) as reply:
                return reply.status == 200
        except (OSError, urllib.error.URLError):
            return False


async def until_scoring(server: VllmServer) -> Metrics:
    """Wait until the hook of every API server is connected, then send requests until one is scored: a breaker that an earlier test
    opened closes with the first success, and not before."""
    await server.until(lambda metrics: metrics.total("pars_hook_connected") == server.api_servers)
    probe = {"model": MODEL, "prompt": "anything", "max_tokens": 1}
    before = await server.metrics()
    give_up = time.monotonic() + WAIT_S
    while True:
        assert (await server.post("/v1/completions", probe)).status == 200
        after = await server.metrics()
        if after.outcome("scored") > before.outcome("scored") and not after.total("pars_hook_breaker_open"):
            return after
        assert time.monotonic() < give_up, f"nothing is scored: {after.outcomes()}"


def _value(flags: tuple[str, ...], name: str, default: Any) -> Any:
    return flags[flags.index(name) + 1] if name in flags else default


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
