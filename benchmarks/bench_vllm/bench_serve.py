"""The load: vLLM's own client, `vllm bench serve`, replaying recorded prompts and lengths at times drawn from a seed."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.process import CHAT_PATH, MODEL_NAME, VllmInstallation
from benchmarks.process import ProcessError
from benchmarks.replay import Replay

START_S = 180.0
"""For the client to import what it needs, on a busy machine, beside the time that its requests take."""

SHOWN_LINES = 10
"""Of what it said, when it fails."""


@dataclass(frozen=True, slots=True)
class Load:
    """One call. requests: how many of the replay's, from its first. request_rate: per second, may be infinite. output_tokens: of every
    response; None: as recorded."""

    replay: Replay
    requests: int
    request_rate: float
    seed: int
    output_tokens: int | None = None


def bench_flags(load: Load) -> list[str]:
    """Of `vllm bench serve`, beside address, tokenizer, data set and results."""
    return [
        *("--backend", "openai-chat", "--endpoint", CHAT_PATH, "--model", MODEL_NAME),
        # The server renders the chat, and the hook reads the prompt as it was recorded.
        *("--dataset-name", "custom", "--skip-chat-template", "--disable-shuffle", "--num-prompts", str(load.requests)),
        *("--custom-output-len", str(-1 if load.output_tokens is None else load.output_tokens), "--ignore-eos"),
        *("--request-rate", str(load.request_rate), "--seed", str(load.seed), "--temperature", "0"),
        *("--disable-tqdm", "--save-result", "--save-detailed"),
    ]


def run_bench(vllm: VllmInstallation, url: str, load: Load, timeout_s: float) -> dict[str, Any]:
    """Its detailed result. timeout_s: for the requests. Raises ProcessError with the last that it said."""
    with tempfile.TemporaryDirectory(prefix="pars-bench-") as folder:
        workload, results = Path(folder) / "workload.jsonl", Path(folder) / "result.json"
        load.replay.write(workload)
        command = [
            *(str(vllm.folder / "vllm"), "bench", "serve", "--base-url", url, "--tokenizer", str(vllm.model)),
            *("--dataset-path", str(workload), "--result-dir", folder, "--result-filename", results.name),
            *bench_flags(load),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=timeout_s + START_S,
                cwd=folder,
                env=vllm.environment(),
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(f"`vllm bench serve` was not done after {timeout_s + START_S:.0f} s") from None
        if done.returncode or not results.exists():
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-SHOWN_LINES:])
            raise ProcessError(f"`vllm bench serve` ended with exit code {done.returncode}; it said:\n{said}")
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found
