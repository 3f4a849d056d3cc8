"""The GPU benchmark's headline figures and targets, worked out by hand; what nvidia-smi says."""

import json
from typing import Any

import pytest

from benchmarks.gpu.figures import headline, table, targets
from benchmarks.gpu.memory import GpuMemory, device_mib, process_mib
from benchmarks.gpu.rpc import memory_figures
from benchmarks.page.serving import on_gpu


def cell(precision: str, variant: str, batch: int, p50_ms: float) -> dict[str, Any]:
    sizes = {"batch_prompts": batch, "prompt_tokens": 32}
    return {"precision": precision, "variant": variant, **sizes, "p50_ms": p50_ms, "p99_ms": 2 * p50_ms, "prompts_per_s": 1.0}


def single(p50_ms: float, p99_ms: float, failures: dict[str, int]) -> dict[str, Any]:
    return {"calls_per_s": 1_000.0, "p50_ms": p50_ms, "p99_ms": p99_ms, "failures": failures}


def batch(prompts_per_s: float, failures: dict[str, int]) -> dict[str, Any]:
    return {"prompts_per_call": 128, "prompts_per_s": prompts_per_s, "p50_ms": 4.0, "p99_ms": 5.0, "failures": failures}


STAMP = {"commit": "0123456789abcdef", "date": "2026-01-02T00:00:00+00:00", "command": "python -m benchmarks.gpu"}

PARTS: dict[str, Any] = {
    "parity": {"fp32": {"max_score_difference": 1e-4, "kendall_tau_b": 1.0, "prompts": 256}},
    "rpc": {
        "fp32": {"single": single(1.0, 3.0, {}), "batches": [batch(20_000.0, {}), batch(30_000.0, {})]},
        "fp16": {"single": single(0.8, 1.5, {}), "batches": [batch(60_000.0, {"UnavailableError": 1})]},
    },
    "floor": {"fp32": {"single_p50_ms": 0.5, "single_p99_ms": 0.6, "prompts_per_s": 90_000.0}},
    "variants": {
        "cells": [
            *(cell("fp32", "plain", size, 2.0) for size in (1, 8, 32)),
            *(cell("fp32", "io_binding", size, p50_ms) for size, p50_ms in ((1, 1.0), (8, 2.0), (32, 4.0))),
            *(cell("fp16", "plain", size, p50_ms) for size, p50_ms in ((1, 2.0), (8, 0.5))),
            cell("fp32", "cuda_graph", 1, 0.5),
        ]
    },
    "tensorrt": {"cells": [cell("fp32", "tensorrt", 8, 0.5), cell("fp32", "tensorrt", 32, 1.0)]},
}


def test_the_headline_by_hand() -> None:
    figures = headline(PARTS)
    assert figures["p99_ms_at_1000_per_s"] == {"fp32": 3.0, "fp16": 1.5}
    # A precision with a failed call has no throughput.
    assert figures["prompts_per_s_in_batches"] == {"fp32": 30_000.0}
    assert figures["parity"] == {"fp32": {"max_score_difference": 1e-4, "kendall_tau_b": 1.0}}
    assert figures["io_binding_vs_plain"] == {"fp32": [1.0, 0.5, 2.0]}
    # Beside the same copies into and out of fixed buffers, not beside the plain run.
    assert figures["cuda_graph_vs_io_binding"] == {"fp32": [2.0, 2.0, 2.0]}
    assert figures["tensorrt_vs_io_binding"] == {"fp32": [4.0, 4.0, 4.0]}
    assert figures["fp16_vs_fp32"] == [2.5, 1.0, 4.0]
    assert figures["rpc_vs_device_floor"] == {"fp32": {"single_p50": 2.0, "batches": 3.0}}


def test_targets_are_held_against_the_best_precision() -> None:
    latency, rate = targets(headline(PARTS))
    assert (latency["value"], latency["precision"], latency["met"]) == (1.5, "fp16", True)
    assert (rate["value"], rate["precision"], rate["met"]) == (30_000.0, "fp32", False)


@pytest.mark.parametrize("change", [{"calls_per_s": 500.0}, {"failures": {"DEADLINE_EXCEEDED": 1}}, {"p99_ms": None}])
def test_another_rate_or_a_failed_call_is_no_figure(change: dict[str, Any]) -> None:
    parts = {"rpc": {"fp32": {"single": single(1.0, 1.0, {}) | change}}}
    figures = headline(parts)
    assert figures["p99_ms_at_1000_per_s"] == {}
    assert targets(figures)[0]["met"] is None


def test_nothing_measured_is_nothing_claimed() -> None:
    figures = headline({})
    assert [row["met"] for row in targets(figures)] == [None, None]
    assert figures["fp16_vs_fp32"] is None
    assert json.dumps(figures)
    assert table({}, figures)


def test_the_page_says_of_a_target_that_was_not_measured_neither_yes_nor_no() -> None:
    document = {"stamp": {**STAMP, "machine": {"gpus": ["a GPU"], "cpu_model": "a CPU"}}}
    latency, rate = targets(headline({}) | {"prompts_per_s_in_batches": {"fp32": 30_000.0}})
    lines = on_gpu(document | {"targets": [latency, rate]})
    assert "| `p99_ms_at_1000_per_s` | 2 |  |  |  |" in lines
    assert "| `prompts_per_s_in_batches` | 50,000 | 30,000 | fp32 | no |" in lines


def test_the_table_shows_every_cell_and_the_floor() -> None:
    shown = "\n".join(table(PARTS, headline(PARTS)))
    assert "fp32 io_binding 32 x 32" in shown
    assert "fp32, floor of batches" in shown
    # No floor was measured for it.
    assert any(line.startswith("fp16, floor of batches") and line.endswith("FAILED") for line in shown.splitlines())


TWO_GPUS = "0, GPU-5d4e0c3b, 1234\n1, GPU-77aa0000, 99"


@pytest.mark.parametrize(
    ("visible", "mib"),
    [("", 1234.0), ("1", 99.0), ("1,0", 99.0), ("GPU-77aa", 99.0), ("2", None), ("MIG-77aa0000", None), ("-1", None)],
    ids=["all", "by index", "the first of several", "by uuid", "none of them", "a slice", "hidden"],
)
def test_memory_is_of_the_first_gpu_that_cuda_sees(visible: str, mib: float | None) -> None:
    assert device_mib(TWO_GPUS, visible) == mib


@pytest.mark.parametrize("said", ["[N/A]", "[Insufficient Permissions]", "[Not Supported]"])
def test_memory_that_is_not_told_is_none(said: str) -> None:
    assert device_mib(f"0, GPU-5d4e0c3b, {said}", "") is None
    assert process_mib(f"10, {said}", {10}) is None
    assert process_mib(f"{said}, 500", {10}) is None
    assert process_mib(f"{said}, {said}\n10, 500", {10}) == 500.0


def test_memory_of_processes_is_a_sum() -> None:
    assert process_mib("10, 500\n11, 20\n12, 7", {10, 11}) == 520.0
    # A container sees neither its own numbers nor, sometimes, any.
    assert process_mib("10, 500", {11}) is None
    assert process_mib("", {10}) is None


def test_memory_grows_from_before_the_sidecar() -> None:
    found = memory_figures(GpuMemory(100.0, None), GpuMemory(700.0, 590.0), GpuMemory(900.0, 790.0))
    assert found == {
        "process_loaded_mib": 590.0,
        "process_after_load_mib": 790.0,
        "device_growth_loaded_mib": 600.0,
        "device_growth_after_load_mib": 800.0,
    }
    assert memory_figures(GpuMemory(100.0, None), None, GpuMemory(1.0, None)) is None
    untold = memory_figures(GpuMemory(None, None), GpuMemory(None, 590.0), GpuMemory(900.0, 790.0))
    assert untold is not None
    assert untold["process_loaded_mib"] == 590.0
    assert untold["device_growth_loaded_mib"] is untold["device_growth_after_load_mib"] is None
