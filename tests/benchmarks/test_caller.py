"""The sidecar's callers against a real one: what they count as an answer."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.jobs import CallsJob, Contender
from benchmarks.measurement import measure
from benchmarks.process import LineProcess
from benchmarks.served import ServedSidecar

PROMPTS = [f"Is {number} a prime number, and why?" for number in range(64)]
CROWDED = ("--max-waiting-prompts", "4", "--max-prompts-per-call", "4")


@pytest.mark.parametrize("via", ["asyncio", "stream"])
def test_what_the_encoder_has_no_room_for_is_a_failed_call(tiny_bundle: Path, tmp_path: Path, via: str) -> None:
    """Left to choose, the sidecar would answer it with its cheap tier, which is quick and not what is measured."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS), encoding="utf-8")
    sidecar = ServedSidecar(tiny_bundle, f"unix:{tmp_path / 'pars.sock'}", "cpu", CROWDED)
    command = [sys.executable, "-m", "benchmarks.caller", "--prompts", str(prompts)]
    with sidecar.process, LineProcess(command, merge_stderr=False) as process:
        caller = Contender(process)
        begin_s = time.monotonic()
        caller.give(CallsJob(sidecar.address, via, 16, 4, ngram=False, begin_s=begin_s, end_s=begin_s + 1, first_prompt=0))
        recording = caller.take(1)
    assert recording.failures.keys() == {"OverloadedError"}
    assert recording.calls  # those that there was room for
    assert measure([recording], server_cpu_s=0.0).failed
