"""From what vLLM and its load generator report to figures, ratios and tables, with numbers worked out by hand."""

from typing import Any

import pytest

from benchmarks.vllm_figures import arm_summary, arms_table, figures_of, ratios_to_baseline
from benchmarks.vllm_latency import WITHOUT, latency_summary, latency_table, start_figures
from benchmarks.vllm_metrics import by_label, difference, parse_metrics, total

METRICS = """\
# HELP pars_hook_requests_total Requests.
# TYPE pars_hook_requests_total counter
pars_hook_requests_total{outcome="scored"} 30.0
pars_hook_requests_total{outcome="gated"} 4.0
vllm:num_preemptions_total{engine="0",model_name="tiny"} 2.0
vllm:num_preemptions_total{engine="1",model_name="tiny"} 1.0
vllm:num_preemptions_created{engine="0"} 1.7e+09
plain 5
"""


def test_metrics_are_read_by_name_and_label() -> None:
    samples = parse_metrics(METRICS)
    assert total(samples, "vllm:num_preemptions_total") == 3
    assert total(samples, "plain") == 5
    assert total(samples, "absent") == 0
    assert by_label(samples, "pars_hook_requests_total", "outcome") == {"scored": 30, "gated": 4}
    added = difference(samples, {'pars_hook_requests_total{outcome="scored"}': 10.0})
    assert by_label(added, "pars_hook_requests_total", "outcome") == {"scored": 20, "gated": 4}


def result(*requests: tuple[float, float, int], failed: int = 0) -> dict[str, Any]:
    """As `vllm bench serve` writes it: (seconds to the first token, to the last, tokens) of each request, then failed ones."""
    return {
        "ttfts": [each[0] for each in requests] + [0.0] * failed,
        "latencies": [each[1] for each in requests] + [0.0] * failed,
        "output_lens": [each[2] for each in requests] + [0] * failed,
        "errors": [""] * len(requests) + ["refused"] * failed,
        "duration": 10.0,
        "output_throughput": 12.0,
        "request_throughput": 0.3,
        "max_concurrent_requests": 3,
    }


def test_figures_of_a_run() -> None:
    figures = figures_of(result((1.0, 2.0, 101), (3.0, 3.0, 1), (0.5, 1.3, 41)))
    assert (figures["completed"], figures["failed"]) == (3, 0)
    assert figures["output_tokens"] == 143
    assert figures["e2e_mean_s"] == pytest.approx(2.1)
    assert figures["e2e_max_s"] == 3.0
    assert figures["per_token_mean_ms"] == pytest.approx((2000 / 101 + 3000 + 1300 / 41) / 3)
    assert figures["longest_wait_s"] == 3.0
    assert figures["step_p50_ms"] == pytest.approx(15.0)  # 10 and 20; a single token has no step


def test_failed_requests_are_counted_and_have_no_times() -> None:
    figures = figures_of(result((1.0, 2.0, 10), failed=2))
    assert (figures["completed"], figures["failed"]) == (1, 2)
    assert figures["e2e_mean_s"] == 2.0
    assert figures_of(result(failed=3))["e2e_mean_s"] is None


def run_of(arm: str, repetition: int, e2e_s: float, *, failed: int = 0) -> dict[str, Any]:
    return {"arm": arm, "repetition": repetition, "figures": figures_of(result((0.5, e2e_s, 11), failed=failed))}


def test_a_run_with_failures_is_marked_and_used_for_nothing() -> None:
    runs = [run_of("ours", 1, 2.0), run_of("ours", 2, 4.0), run_of("ours", 3, 900.0, failed=1)]
    summary = arm_summary(runs)
    assert (summary["engine_starts"], summary["clean_engine_starts"], summary["failed_requests"]) == (3, 2, 1)
    assert summary["e2e_mean_s"] == [3.0, 2.0, 4.0]
    assert arms_table({"ours": summary})[1].split()[-1] == "1"
    assert "e2e_mean_s" not in arm_summary([run_of("ours", 1, 2.0, failed=1)])


def test_ratios_are_taken_within_a_repetition() -> None:
    runs = [run_of("equal", 1, 10.0), run_of("ours", 1, 5.0), run_of("equal", 2, 4.0), run_of("ours", 2, 3.0)]
    runs += [run_of("ours", 3, 1.0), run_of("equal", 3, 1.0, failed=1)]
    ratios = ratios_to_baseline(runs)
    assert ratios.keys() == {"ours"}
    assert ratios["ours"]["e2e_mean_s"] == pytest.approx((0.625, 0.5, 0.75))


def test_added_latency_is_the_difference_within_a_round() -> None:
    times = {WITHOUT: [10.0, 50.0, 30.0], "gated": [11.0, 50.5, 36.0]}
    figures = start_figures(times)
    assert figures["rounds"] == 3
    assert figures["e2e_ms"][WITHOUT]["p50"] == 30.0
    assert figures["added_ms"] == {"gated": {"p25": 0.75, "p50": 1.0, "p75": 3.5}}
    summary = latency_summary([figures, start_figures({WITHOUT: [10.0], "gated": [13.0]})])
    assert summary["added_ms"]["gated"] == (2.0, 1.0, 3.0)
    assert len(latency_table(summary)) == 3
