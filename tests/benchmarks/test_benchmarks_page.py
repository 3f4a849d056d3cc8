"""From made-up results to docs/benchmarks.md, its plots and README's table; and the committed page against the committed results."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_overhead.cases import CPU_BATCHES, PARTS, cases_of_a_round
from benchmarks.bench_overhead.ratios import limits, ratios_of
from benchmarks.measurement import Call, Recording, Row, Spread, measure
from benchmarks.page.plots import PLOTS
from benchmarks.page.targets import TARGETS
from benchmarks.page.write import PAGE, page, write
from benchmarks.process_tree import Memory
from benchmarks.quoted.__main__ import read_results
from benchmarks.quoted.overhead import cost
from benchmarks.report import plain, ratios_json, row_json

PEERS = ("reference", "mosec")
STAMP = {
    "machine": {"cpu_model": "a CPU", "allotted_cores": 2, "gpus": ["a GPU"]},
    "versions": {"onnxruntime": "9.9"},
    "commit": "0123456789abcdef",
    "command": "python -m benchmarks.x",
    "date": "2026-01-02T00:00:00+00:00",
}
RATES = {"bare_batches_of_16": 1000.0, "ours_64_callers": 930.0, "ours_tcp_64_callers": 900.0, "reference_64_callers": 300.0}


def overhead(parts: tuple[str, ...] = PARTS, peers: tuple[str, ...] = PEERS) -> dict[str, Any]:
    """As bench_overhead reports it: one round, everything alike but RATES."""
    rows = {}
    call = Call(0.0, 0.010, 1, 20, 500_000, 1_000_000, 6_000_000)
    for case in cases_of_a_round(1.0, CPU_BATCHES, has_ngram=True, parts=parts, peers=peers):
        served = not case.name.startswith("bare")
        inside = call if case.name.startswith(("ours", "best")) else call[:4]
        made = measure(
            [Recording(0.0, 1.0, [Call(*inside)], {}, 0.5)], 2.0 if served else None, Memory(300, 200) if served else None
        )
        rows[case.name] = Row(case.name, case.what, [replace(made, prompts_per_s=RATES.get(case.name, 500.0))])
    ratios = ratios_of(rows, peers)
    has_best = "best" in parts
    if has_best:
        ratios["best_tau_loss"] = Spread(0.002, 0.001, 0.003)
    best = {
        "precision": "int8",
        "tau_loss": [0.002, 0.001, 0.003],
        "dataset": "vicuna",
        "source": "benchmarks/results/quality.json",
    }
    document = {
        "notes": ["A note."],
        "stamp": STAMP,
        "settings": {"rounds": 1, "seconds": 1.0},
        "execution_provider": "CPUExecutionProvider",
        "best_bundle": best if has_best else None,
        "peers": {name: {"versions": {"torch": "8.8"}, "largest_score_difference": 2e-6} for name in peers},
        "workload": {"source": "a file", "prompts": 512, "prompt_tokens": {"mean": 26.0}},
        "limits": {name: row.name for name, row in limits(rows).items()},
        "open_loop_limit_prompts_per_s": 1000.0,
        **ratios_json(ratios),
        "rows": [row_json(row) for row in rows.values()],
    }
    made_json: dict[str, Any] = plain(document)
    return made_json


def vllm_row(arm: str, load: str, per_token_ms: float) -> dict[str, Any]:
    figures = {"per_token_mean_ms": [per_token_ms, per_token_ms - 1, per_token_ms + 1], "e2e_p99_s": [9.5, 9.0, 10.0]}
    return {"arm": arm, "load": load, "planned_starts": 3, "starts": 2, **figures}


VLLM = {
    "rows": [
        vllm_row("equal", "1.0", 77.0),
        vllm_row("ours", "1.0", 44.0)
        | {"p99_over_window": [0.4, 0.2, 1.2], "ratios_to_equal": {"per_token_mean_ms": [0.57, 0.5, 0.6]}},
        vllm_row("equal", "burst", 88.0),
        vllm_row("oracle", "burst", 33.0),
    ],
    "ratios": {"per_token_mean_fcfs_over_ours": {"1.0": 1.75, "burst": None}, "low_load_loss": 0.01},
    "ratio_ranges": {"per_token_mean_fcfs_over_ours": {"1.0": [1.7, 1.8], "burst": None}, "low_load_loss": [0.0, 0.02]},
    "stamp": STAMP,
}
GPU = {
    "stamp": STAMP,
    "notes": ["A GPU note."],
    "p99_ms_at_1000_per_s": {"fp16": 1.5},
    "prompts_per_s_in_batches": {"fp16": 61_234.0, "fp32": 30_000.0},
    "targets": [{"figure": "p99_ms_at_1000_per_s", "target": 2.0, "value": 1.5, "precision": "fp16", "met": True}],
    "failed": {"tensorrt": {"fp16": "no library"}},
}


def text_of(results: Mapping[str, Any]) -> str:
    return " ".join(page(results).split())


@pytest.mark.parametrize(
    "sentence",
    [
        "One run of 1 rounds on a CPU, 2 cores, CPUExecutionProvider.",
        "- A note.",
        "| 64 callers, one prompt each: throughput / limit | 0.93 | 0.93 to 0.93 | ≥ 0.92 | yes |",
        "| 64 callers: throughput / reference-style server, both fp32 | 3 | 3 to 3 | ≥ 4 | no |",
        "| what the best bundle loses of tau-b | 0.002 | 0.001 to 0.003 | ≤ 0.005 | yes |",
        "on the set where it loses most (vicuna)",
        "The fastest: bare: all sorted, batches of 16.",
        "| ours: 64 callers | 930 | 10 | 10 | 10 | 500 | 2,000 | 300 |",
        # 10 ms, of which 7.5 in the server; messages take as long as everything here.
        "| ours: 1 caller, unix socket | 10 | 0.5 | 1 | 6 | 2.5 | 10 | -7.5 |",
        "| the sidecar, int8 | 10 | 10 | 500 | 500 |",
        "| reference | 10 | 10 | 500 | 300 | 10 | 10 | 500 | 2,000 | 300 |",
        "of the n-gram tier's 10 ms, gRPC on a stream with nothing behind it takes 10, tokenising 0.5 and scoring 6.",
        "One caller waits 10 ms. The bare session tokenises and runs a prompt in 10 ms, and in 10 where it idles for 1.5 ms before each",
        "- Other prompts than the run's own (a file; 26 tokens on average),",
        "a prompt costs the server 2,000 ms of CPU and its caller 500, on the same cores; the bare session 500.",
        "- mosec: torch 8.8; largest difference of a score to the bare session's: 2e-06",
        "Poisson arrivals at fractions of 1,000 prompts/s",
        "| ours: open loop, 0.9 of the limit |",
        "| `throughput_64_vs_reference` | 3 | 3 to 3 |",
        "commit 0123456789ab, 2026-01-02, `python -m benchmarks.x`; onnxruntime 9.9.",
    ],
)
def test_the_page_has_every_part_of_a_run(sentence: str) -> None:
    assert sentence in text_of({"overhead": overhead()})


def test_ratios_to_the_many_others_stay_in_the_json() -> None:
    document = overhead()
    assert document["ratios"]["throughput_64_vs_mosec"] == 1.8
    assert "_vs_mosec" not in page({"overhead": document})


def test_every_target_is_measured_by_a_whole_run() -> None:
    ratios = overhead()["ratios"]
    assert {target.name for target in TARGETS} <= ratios.keys()
    document = overhead(("limit", "ours"), ())
    text = text_of({"overhead": document})
    assert "reference-style" not in text
    assert "### Beside other servers" not in text
    assert "### Open loop" not in text
    assert "What the distance is made of" not in text_of({"overhead": overhead(("limit",), ())})
    assert "throughput.svg" in text  # limit and ours are two bars


def test_a_failed_ratio_is_not_met() -> None:
    document = overhead()
    document["ratios"]["p50_1_vs_limit"] = document["ratio_ranges"]["p50_1_vs_limit"] = None
    assert "tokenisation included | failed | | ≤ 1.2 | no |" in text_of({"overhead": document})


def test_what_was_not_measured_is_said() -> None:
    text = page({})
    assert "Not measured yet: `make bench-overhead`." in text
    assert "## On a GPU\n\nNot measured.\n" in text
    assert ".svg" not in text
    assert cost({}) == [
        "What the sidecar costs beside the bare ONNX session and other servers is not measured yet: `make bench-overhead`."
    ]
    assert "Not in this form yet" in page({"vllm": {"load": {}, "low_load": {}}})


def test_readme_has_the_targets_and_one_picture() -> None:
    lines = cost({"overhead": overhead()})
    assert sum(line.startswith("| ") for line in lines) == 2 + len(TARGETS)
    assert "![Prompts per second with 64 callers](docs/benchmarks/throughput.svg)" in lines


def test_vllm_and_gpu_have_their_sections() -> None:
    text = text_of({"vllm": VLLM, "gpu": GPU})
    assert "| load | order | engine starts | ms per token, to first come | ms per token: mean | p99 |" in text
    assert "| 1x | ours | 2 of 3 | 0.57 | 44 | 9.5 |" in text
    assert "| burst | recorded lengths (oracle) | 2 of 3 | | 33 | 9.5 |" in text
    assert "| mean latency per token, first come over ours | 1x | 1.75 | 1.7 to 1.8 | ≥ 2 | no |" in text
    assert "| mean latency per token, first come over ours | burst | not measured | | ≥ 2 | |" in text
    assert "| end-to-end p99 above first come, in windows of 40 s | 1x | 0.4 | 0.2 to 1.2 | ≤ 1 | yes |" in text
    assert "| end-to-end mean at 0.3x, loss to first come | 0.3x | 0.01 | 0 to 0.02 | ≤ 0.01 | yes |" in text
    assert "results/vllm.json): a CPU, commit 0123456789ab" in text
    machines = {"machines": {"a CPU, 2 cores": 51, "another CPU, 4 cores": 9}}
    assert "51 runs on a CPU, 2 cores, 9 runs on another CPU, 4 cores, commit" in text_of({"vllm": VLLM | machines})
    assert "| fp16 | 1.5 | 61,234 |" in text
    assert "| `p99_ms_at_1000_per_s` | 2 | 1.5 | fp16 | yes |" in text
    assert "- Failed: fp16: no library" in text


def test_a_ranker_of_the_traffics_own_stands_beside_the_shipped_one() -> None:
    """A ratio that is not in a report is empty."""
    ours = {"starts": 3, "step_p50_ms": [20.2, 20.1, 20.3], "tau_b": [0.6, 0.59, 0.61]}
    own = {
        "rows": [vllm_row("equal", "1.0", 77.0), vllm_row("ours", "1.0", 33.0) | ours],
        "ratios": {"per_token_mean_fcfs_over_ours": {"1.0": 2.33}, "oracle_gain_share": {"1.0": 0.95}},
        "ratio_ranges": {"per_token_mean_fcfs_over_ours": {"1.0": [2.2, 2.4]}, "oracle_gain_share": {"1.0": [0.95, 0.95]}},
        "stamp": STAMP,
    }
    shipped = own | {"ratios": {"per_token_mean_fcfs_over_ours": {"1.0": 2.25}}}
    text = text_of({"vllm": VLLM, "vllm_own": own, "vllm_shipped": shipped})
    figures = "3 of 3 | 20.2 (20.1 to 20.3) | 0.6 (0.59 to 0.61)"
    rows = f"| 1x | shipped | {figures} | 2.25 (2.2 to 2.4) | | | | 1x | own | {figures} | 2.33 (2.2 to 2.4) | 0.95 | |"
    assert rows in text
    assert "results/vllm_own.json): a CPU" in text
    assert "results/vllm_shipped.json): a CPU" in text
    assert "traffic's own" not in text_of({"vllm": VLLM})


def svg_text(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_plots_show_the_figures_and_come_out_the_same(tmp_path: Path) -> None:
    results = {"overhead": overhead(), "vllm": VLLM}
    write(results, tmp_path / "benchmarks.md")
    first = {path.name: path.read_bytes() for path in (tmp_path / "benchmarks").iterdir()}
    assert first.keys() == {f"{name}.svg" for name in PLOTS}
    assert set(re.findall(r"\]\(benchmarks/(\w+\.svg)\)", (tmp_path / "benchmarks.md").read_text())) == first.keys()
    write(json.loads(json.dumps(results)), tmp_path / "benchmarks.md")
    assert {path.name: path.read_bytes() for path in (tmp_path / "benchmarks").iterdir()} == first
    bars = [text.strip() for text in svg_text(first["throughput.svg"].decode())]
    assert {"limit: bare session, best batches", "sidecar int8, TCP", "reference", "mosec", "1,000", "930", "300"} <= set(bars)
    assert {"sidecar fp32", "p99 in ms", "64"} <= set(svg_text(first["latency.svg"].decode()))
    assert {"1x", "burst", "ours"} <= set(svg_text(first["vllm.svg"].decode()))
    write({}, tmp_path / "benchmarks.md")
    assert not list((tmp_path / "benchmarks").iterdir())


def test_the_committed_page_is_what_the_results_give() -> None:
    """The plots by their text, since their bytes are also the plotting library's."""
    results = read_results()
    assert page(results) == PAGE.read_text(encoding="utf-8"), "run python -m benchmarks.quoted"
    drawn = {f"{name}.svg": svg_text(text) for name, plot in PLOTS.items() if (text := plot(results)) is not None}
    there = {path.name: svg_text(path.read_text(encoding="utf-8")) for path in PAGE.with_suffix("").glob("*.svg")}
    assert there == drawn
