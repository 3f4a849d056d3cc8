"""From what vLLM and its load generator report to figures, ratios and tables, with numbers worked out by hand."""

from typing import Any

import pytest

from benchmarks.bench_vllm.figures import figures_of, run_figures, why_not_clean
from benchmarks.bench_vllm.latency import WITHOUT, latency_summary, latency_table, start_figures
from benchmarks.bench_vllm.metrics import by_label, difference, parse_metrics, total
from benchmarks.bench_vllm.plan import Planned
from benchmarks.bench_vllm.requests import CLIENT, KEPT, client_of, requests_of
from benchmarks.bench_vllm.rows import TARGET_LOADS, ratios_of, rows_of, rows_table

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


def kept_run(said: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As run_arm keeps it, of what `vllm bench serve` said."""
    count = len(said["errors"])
    said |= {"start_times": [0.0] * count, "itls": [[]] * count, "input_lens": [1] * count}
    quiet = {
        "preemptions": 0,
        "hook_outcomes": {},
        "hook_asks": 0,
        "hook_ask_s": 0.0,
        "queue": {"at_s": [], "waiting": [], "running": []},
    }
    return {CLIENT: client_of(said), KEPT: requests_of(said), **quiet, **more}


def test_figures_of_a_kept_run() -> None:
    """The times are those of the client; alone, 41 and 1 tokens would have taken 42 and 2 steps of 20 ms. A look at the
    queue counts when there is a request."""
    said = result((1.0, 2.1, 41), (3.0, 3.0, 1), failed=1)
    queue = {"at_s": [-0.5, 0.5, 1.5, 2.9, 3.1], "waiting": [90, 0, 5, 1, 90], "running": [1, 3, 3, 0, 0]}
    outcomes = {"scored": 3, "gated": 1}
    run = kept_run(said, preemptions=2, queue=queue, hook_outcomes=outcomes, hook_asks=3, hook_ask_s=0.051)
    figures = run_figures(run, 20.0)
    assert figures | figures_of(said) == figures
    assert figures["worst_slowdown"] == pytest.approx(3000 / (2 * 20))
    assert (figures["waiting_mean"], figures["waiting_max"], figures["running_mean"]) == (2.0, 5, 2.0)
    assert figures["preemptions"] == 2
    assert figures["hook_ask_mean_ms"] == pytest.approx(17.0)
    assert figures["hook_ask_share"] == pytest.approx(0.051 / 5.1)
    assert figures["scored_share"] == 0.75


def test_what_the_ranker_said_is_held_against_the_lengths() -> None:
    """Of four completed requests one pair of six is in the wrong order, which makes (5 - 1) / 6; the failed one does not count."""
    run = kept_run(result((1.0, 2.0, 10), (1.0, 2.0, 20), (1.0, 2.0, 40), (1.0, 2.0, 30), failed=1))
    assert run_figures(run, 20.0)["tau_b"] is None
    run[KEPT]["quantile"] = [0.1, 0.2, 0.3, 0.9, 1.0]
    assert run_figures(run, 20.0)["tau_b"] == pytest.approx(4 / 6)
    run[KEPT]["quantile"] = [0.5] * 5
    assert run_figures(run, 20.0)["tau_b"] is None


def test_a_run_without_hook_or_looks_has_no_figures_of_them() -> None:
    figures = run_figures(kept_run(result((1.0, 2.0, 51))), 20.0)
    assert [figures[name] for name in ("waiting_mean", "waiting_max", "hook_ask_mean_ms", "scored_share")] == [None] * 4
    assert figures["hook_ask_share"] == 0.0
    nothing = run_figures(kept_run(result(failed=2)), 20.0)
    assert (nothing["failed"], nothing["worst_slowdown"], nothing["hook_ask_share"]) == (2, None, None)


def steps(*step_ms: float, failed: int = 0) -> dict[str, Any]:
    return figures_of(result(*((1.0, 1.0 + each / 1000 * 100, 101) for each in step_ms), failed=failed))


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        (steps(19.1, 20.0, 20.9), None),
        (steps(*[20.0] * 99, 32.0), None),
        (steps(*[20.0] * 9, 31.0), "99th percentile"),
        (steps(21.1, 21.1), "median step"),
        (steps(18.9, 18.9), "median step"),
        (steps(20.0, failed=1), "1 requests failed"),
        (steps(failed=3), "3 requests failed"),
        (figures_of(result()), "median step"),
    ],
    ids=["held", "one late", "some late", "slow", "fast", "one failed", "all failed", "nothing"],
)
def test_a_run_is_clean_when_all_requests_came_through_and_the_pace_held(figures: dict[str, Any], why: str | None) -> None:
    said = why_not_clean(figures, 20.0)
    assert said is None if why is None else why in str(said)


def made(arm: str, load: str, repetition: int, per_token_ms: float, p99_s: float = 1.0) -> tuple[Planned, dict[str, Any]]:
    """Figures made up by hand, of one run."""
    figures = figures_of(result((0.5, 2.0, 11)))
    changed = {"per_token_mean_ms": per_token_ms, "e2e_p99_s": p99_s, "e2e_mean_s": per_token_ms / 10}
    return Planned(arm, load, repetition), figures | changed | {"worst_slowdown": 3.0, "hook_ask_share": 0.004}


def test_ratios_are_taken_within_a_repetition() -> None:
    """Two repetitions have all three arms, the third no oracle, the fourth nobody to compare with."""
    runs = [made("equal", "1.0", 1, 100.0, 10.0), made("ours", "1.0", 1, 40.0, 12.0), made("oracle", "1.0", 1, 20.0)]
    runs += [made("equal", "1.0", 2, 80.0, 8.0), made("ours", "1.0", 2, 40.0, 8.0), made("oracle", "1.0", 2, 40.0)]
    runs += [made("equal", "1.0", 3, 90.0, 10.0), made("ours", "1.0", 3, 90.0, 30.0)]
    runs += [made("ours", "1.0", 4, 1.0)]
    runs += [made("equal", "0.3", 1, 100.0), made("ours", "0.3", 1, 101.0)]
    found = ratios_of(dict(runs))
    ratios, ranges = found["ratios"], found["ratio_ranges"]
    assert ratios["per_token_mean_fcfs_over_ours"] == dict.fromkeys(TARGET_LOADS) | {"1.0": 2.0}
    assert ranges["per_token_mean_fcfs_over_ours"]["1.0"] == [1.0, 2.5]
    assert ratios["oracle_gain_share"]["1.0"] == pytest.approx((0.75 + 1.0) / 2)
    assert ranges["oracle_gain_share"]["1.0"] == [0.75, 1.0]
    assert ratios["p99_ours_over_fcfs"]["1.0"] == pytest.approx(1.2)
    assert ratios["low_load_loss"] == pytest.approx(0.01)
    assert ratios["added_latency_share"] == dict.fromkeys(TARGET_LOADS) | {"0.3": 0.004, "1.0": 0.004}
    assert ranges["low_load_loss"] == pytest.approx([0.01, 0.01])


def test_where_the_oracle_gains_nothing_there_is_no_share_of_it() -> None:
    runs = [made("equal", "1.2", 1, 50.0), made("ours", "1.2", 1, 40.0), made("oracle", "1.2", 1, 50.0)]
    assert ratios_of(dict(runs))["ratios"]["oracle_gain_share"]["1.2"] is None


def test_rows_say_how_many_starts_they_have_and_what_the_bound_is() -> None:
    clean = dict(
        [
            made("equal", "1.0", 1, 100.0, 10.0),
            made("equal", "1.0", 2, 60.0, 20.0),
            made("ours-5s", "1.0", 1, 40.0, 12.0),
            made("ours-5s", "1.0", 2, 30.0, 21.0),
            made("ours-shortest", "1.0", 1, 20.0, 90.0),
        ]
    )
    tries = {**{run: [None] for run in clean}, Planned("ours-shortest", "1.0", 2): ["2 requests failed"]}
    equal, short, none = rows_of(clean, tries, 3)
    assert (equal["arm"], equal["starts"], equal["planned_starts"], equal["not_clean"]) == ("equal", 2, 3, [])
    assert equal["per_token_mean_ms"] == [80.0, 60.0, 100.0]
    assert short["window_s"] == 5.0
    assert short["p99_over_fcfs_s"] == [1.5, 1.0, 2.0]
    assert short["p99_over_window"] == pytest.approx([0.3, 0.2, 0.4])
    assert short["ratios_to_equal"]["per_token_mean_ms"] == pytest.approx([0.45, 0.4, 0.5])
    assert (none["starts"], none["tries"], none["not_clean"], none["window_s"]) == (1, 2, ["2 requests failed"], None)
    assert "p99_over_window" not in none
    shown = rows_table([equal, short, none])
    assert len(shown) == 4
    assert shown[3].split()[:3] == ["1.0", "ours-shortest", "1/3"]
    assert shown[3].split()[-1] == "1"


def test_added_latency_is_the_difference_within_a_round() -> None:
    times = {WITHOUT: [10.0, 50.0, 30.0], "gated": [11.0, 50.5, 36.0]}
    figures = start_figures(times)
    assert figures["rounds"] == 3
    assert figures["e2e_ms"][WITHOUT]["p50"] == 30.0
    assert figures["added_ms"] == {"gated": {"p25": 0.75, "p50": 1.0, "p75": 3.5}}
    summary = latency_summary([figures, start_figures({WITHOUT: [10.0], "gated": [13.0]})])
    assert summary["added_ms"]["gated"] == (2.0, 1.0, 3.0)
    assert len(latency_table(summary)) == 3
