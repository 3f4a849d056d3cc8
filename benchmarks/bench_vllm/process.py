"""A real `vllm serve` on the tiny model, started from the environment that has vLLM, and stopped for certain."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.bench_vllm.metrics import parse_metrics
from benchmarks.bench_vllm.pacing import STEP_VARIABLE
from benchmarks.bench_vllm.sources import content_hash
from benchmarks.process import STOP_S, LineProcess, ProcessError
from benchmarks.replay import MODEL_TOKENS
from benchmarks.stamp import REPOSITORY
from vllm_client.hook.settings import ENV_PREFIX

MODEL_NAME = "tiny"

CHAT_PATH = "/v1/chat/completions"

MIDDLEWARE = "vllm_client.PriorityMiddleware"

START_S = 600.0
"""For an engine to start: half a minute, minutes on a busy machine."""

ANSWER_S = 60.0

HEALTH_PAUSE_S = 0.1

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # One thread: more would fight the API server, the client and the sidecar for the cores.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    # A connection that waits for its turn among several engines must not be closed meanwhile.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
}

PROBE = """
import importlib.metadata, json, pathlib, platform, vllm_client
versions = {name: importlib.metadata.version(name) for name in ("vllm", "grpcio", "protobuf", "torch", "uvicorn")}
hook = str(pathlib.Path(vllm_client.__file__).parent)
print(json.dumps({"hook": hook, "versions": {"python": platform.python_version(), **versions}}))
"""


@dataclass(frozen=True, slots=True)
class VllmInstallation:
    """folder: `bin` of the environment with vLLM and the thin client. model: see tiny_llama. plugin: see pacing."""

    folder: Path
    model: Path
    plugin: Path
    step_ms: float

    def environment(self) -> dict[str, str]:
        """For its processes: the shell's, without its settings of the hook; its PYTHONPATH stays, behind the plugin."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        paths = [str(self.plugin), *filter(None, [kept.get("PYTHONPATH")])]
        return kept | ENVIRONMENT | {STEP_VARIABLE: str(self.step_ms), "PYTHONPATH": os.pathsep.join(paths)}

    def versions(self) -> dict[str, str]:
        """Of vLLM and of what the hook stands on there. Raises ProcessError: something is missing, or its hook is not this one."""
        try:
            done = subprocess.run(
                [str(self.folder / "python"), "-c", PROBE],
                capture_output=True,
                text=True,
                timeout=ANSWER_S,
                cwd=self.model,
                env=self.environment(),
            )
        except OSError as error:
            raise ProcessError(f"no Python in {self.folder} ({error.strerror}); `make vllm-env` makes one") from error
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise ProcessError(f"something is missing in {self.folder} ({last}); `make vllm-env` makes one")
        found = json.loads(done.stdout)
        # Else hours of runs would be about a hook that nobody has the sources of.
        if content_hash([Path(found["hook"])]) != content_hash([REPOSITORY / "vllm_client"]):
            raise ProcessError(
                f"vLLM would load another vllm_client than this one, from {found['hook']}; `make vllm-env` installs it"
            )
        versions: dict[str, str] = found["versions"]
        return versions


class VllmServer:
    """One engine with its API server, started and ready. hook: settings by name, without prefix; None: no middleware at all."""

    def __init__(self, vllm: VllmInstallation, *, max_num_seqs: int, hook: Mapping[str, str] | None) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            *(str(vllm.folder / "vllm"), "serve", str(vllm.model), "--host", "127.0.0.1", "--port", str(self.port)),
            *serve_flags(max_num_seqs, has_hook=hook is not None),
        ]
        settings = {ENV_PREFIX + name.upper(): value for name, value in (hook or {}).items()}
        began_s = time.monotonic()
        self._process = LineProcess(command, merge_stderr=True, environment=vllm.environment() | settings)
        try:
            self._process.line_like("Application startup complete", START_S)
            # It says so just before it listens.
            self._wait_until_healthy()
        except BaseException:
            self.close()
            raise
        self.start_s = time.monotonic() - began_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics, see metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=ANSWER_S) as response:
            return parse_metrics(response.read().decode("utf-8"))

    def chat(self, prompt: str, output_tokens: int) -> None:
        """One chat request, read to its end. Raises OSError unless it is answered with 200."""
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{CHAT_PATH}", data=chat_body(prompt, output_tokens), headers=headers)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            response.read()

    def _wait_until_healthy(self) -> None:
        give_up_s = time.monotonic() + ANSWER_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=ANSWER_S):
                return
            if self._process.process.poll() is not None or time.monotonic() > give_up_s:
                raise ProcessError(f"`vllm serve` does not answer at {self.url}")
            time.sleep(HEALTH_PAUSE_S)

    def close(self) -> None:
        """Stop it and whatever it has started: an engine core can outlive an API server that had to be killed."""
        process = self._process.process
        family = descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.close()


def serve_flags(max_num_seqs: int, *, has_hook: bool) -> list[str]:
    """Of `vllm serve`, beside model and address."""
    return [
        *("--served-model-name", MODEL_NAME, "--max-model-len", str(MODEL_TOKENS), "--max-num-seqs", str(max_num_seqs)),
        *("--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--disable-uvicorn-access-log"),
        *("--scheduling-policy", "priority", "--async-scheduling"),
        *(("--middleware", MIDDLEWARE) if has_hook else ()),
    ]


def chat_body(prompt: str, output_tokens: int) -> bytes:
    """A chat request that is answered with exactly so many tokens."""
    return json.dumps(
        {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": prompt}],
            "max_completion_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
    ).encode()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found: list[int] = []
    unseen = [pid]
    while unseen:
        new = children.get(unseen.pop(), [])
        found += new
        unseen += new
    return found


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
