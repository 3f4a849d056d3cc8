"""Who answers the hook in a run on a real vLLM: the sidecar, somebody who knows the lengths, somebody who does not, or nobody."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchmarks.process import LineProcess
from benchmarks.replay import Replay
from benchmarks.served import ServedSidecar

RANKER_START_S = 60.0

Ranker = Literal["sidecar", "oracle", "prompt_length", "shuffled", "none"]


@contextlib.contextmanager
def served_ranker(ranker: Ranker, bundle: Path, replay: Replay, seed: int) -> Iterator[str | None]:
    """The address of whoever ranks, while it serves; None for nobody."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-")))
        address = f"unix:{folder / 'pars.sock'}"
        if ranker == "sidecar":
            sidecar = ServedSidecar(bundle, address, "cpu", ())
            stack.callback(sidecar.process.close)
        elif ranker != "none":
            replay.write(folder / "workload.jsonl")
            instead = {"oracle": [], "prompt_length": ["--prompt-length"], "shuffled": ["--shuffle", str(seed)]}[ranker]
            stack.enter_context(oracle(address, "--workload", str(folder / "workload.jsonl"), *instead))
        yield None if ranker == "none" else address


@contextlib.contextmanager
def oracle(address: str, *flags: str) -> Iterator[LineProcess]:
    """A running `benchmarks.bench_vllm.oracle_ranker`."""
    command = [sys.executable, "-m", "benchmarks.bench_vllm.oracle_ranker", "--address", address, *flags]
    with LineProcess(command, merge_stderr=True) as process:
        process.line_like("serving address=", RANKER_START_S)
        yield process
