"""Sections → the page, and its plots beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.page.overhead import overhead
from benchmarks.page.plots import PLOTS
from benchmarks.page.serving import hook, on_gpu, on_vllm, simulated
from benchmarks.stamp import REPOSITORY
from benchmarks.svg import write_page

PAGE = REPOSITORY / "docs" / "benchmarks.md"

_HEAD = """# Benchmarks

<!-- Written by `python -m benchmarks.quoted` from benchmarks/results. Do not edit. -->

What the sidecar costs beside its physical limit and beside other servers of the same weights, and what the order of requests brings.
How well prompts are ranked is on a page of its own: [quality.md](quality.md). Overload and soak are in [operations.md](operations.md).

Times are those of the machines named; ratios are taken within one run and carry over better."""

_RERUN = """## How to rerun

    make bench-overhead    # overhead.json: twenty minutes on two cores, after the environments of the other servers are made
    make bench-hook        # hook.json
    make bench-vllm DATA=file    # vllm.json: a file with prompt and response_tokens
    make bench-vllm-own DATA=file    # vllm_own.json, vllm_shipped.json: a ranker trained on the rest of the file, and the shipped one
    make simulate DATA=folder    # simulator.json
    make bench-gpu         # gpu.json: ten minutes on a machine with an NVIDIA GPU
    python -m benchmarks.quoted    # this page and the figures in other documents, from the JSON that is there

`BENCH_FLAGS` goes to `bench_overhead`: `--parts limit,ours` leaves things out, `--peers mosec,reference` and `--peers none` choose other
servers, `--seconds` and `--rounds` say how long. The machine should have nothing else to do; the reports say when it had, vllm.json
with the load before and after every run.

`make bench-vllm` takes hours, and goes on where it was. With `BENCH_FLAGS="--reports benchmarks/results/vllm.json"` it leaves out what that
report has, of whichever machine: each run in it has a key of all that it depends on."""

_NOT_MEASURED = """## What was not measured

- Callers on another machine: callers and servers share the cores, and there is no network between them.
- Other servers tuned by their authors. Each runs with its defaults but for what its file under `benchmarks/peers` says and why, and in
  fp32, as the weights are published; an int8 or ONNX path of theirs may be faster.
- Other prompts than {prompts}, and other encoders than the shipped one.
- TLS and tokens; many rankers in one process; large machines with many cores."""


def page(results: Mapping[str, Any]) -> str:
    """The whole page. results: by the name of the file."""
    sections = [
        overhead(results.get("overhead")),
        hook(results.get("hook")),
        on_vllm(results),
        simulated(results.get("simulator")),
        on_gpu(results.get("gpu")),
    ]
    not_measured = _NOT_MEASURED.format(prompts=_prompts(results.get("overhead")))
    text = "\n\n".join([_HEAD, *("\n".join(lines).rstrip() for lines in sections), _RERUN, not_measured]) + "\n"
    # Parts that are missing leave blank lines, and links to plots that are not drawn.
    drawn = {name for name, plot in PLOTS.items() if plot(results) is not None}
    for name in set(PLOTS) - drawn:
        text = re.sub(rf"!\[[^\]]*\]\(benchmarks/{name}\.svg\)\n", "", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def _prompts(overhead: Mapping[str, Any] | None) -> str:
    """What the sidecar's cost was measured with."""
    if overhead is None:
        return "a run's own"
    workload = overhead["workload"]
    return f"the run's own ({workload['source']}; {workload['prompt_tokens']['mean']:.0f} tokens on average)"


def write(results: Mapping[str, Any], out: Path = PAGE) -> None:
    """The page and its plots."""
    write_page(out, page(results), {name: plot(results) for name, plot in PLOTS.items()})
