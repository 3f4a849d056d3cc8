"""The figures about the cost of the sidecar that README quotes, as Markdown. See quoted; all of them are in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import table
from benchmarks.page.plots import throughput_plot
from benchmarks.page.targets import target_rows

Figures = Mapping[str, Any]


def cost(results: Figures) -> list[str]:
    """One table and one picture; without a run it says so."""
    document = results.get("overhead")
    if document is None:
        return [
            "What the sidecar costs beside the bare ONNX session and other servers is not measured yet: `make bench-overhead`."
        ]
    machine = document["stamp"]["machine"]
    lines = [
        "Cost of the sidecar beside the bare ONNX session and a server built like the reference release, in one run on",
        f"{machine['allotted_cores']} cores, clients included:",
        "",
        *table(["", "measured", "lowest and highest round", "target", "met"], target_rows(document)),
        "",
    ]
    if throughput_plot(results) is not None:
        lines += ["![Prompts per second with 64 callers](docs/benchmarks/throughput.svg)", ""]
    return [*lines, "Where the time goes, other servers, open loop, how to rerun: [docs/benchmarks.md](docs/benchmarks.md)."]
