"""What README and docs/vllm.md say of runs on a real vLLM, with as many of them as there are."""

from typing import Any

from benchmarks.bench_vllm.plan import Planned
from benchmarks.bench_vllm.rows import ratios_of, rows_of
from benchmarks.quoted.vllm import attached, gain

HOOK_ROWS = [
    {"name": name, "wall_p50_us": [1.0], "wall_p99_us": [2.0], "cpu_us": [3.0]}
    for name in ("gated", "unconnected", "scored", "scored_32")
]


def figures(per_token_ms: float, p99_s: float) -> dict[str, Any]:
    names = ("e2e_mean_s", "e2e_p50_s", "e2e_p90_s", "e2e_max_s", "per_token_p90_ms", "ttft_mean_s", "worst_slowdown")
    rest = dict.fromkeys((*names, "output_tokens_per_s", "waiting_mean"), 7.0)
    later = {"later_p99_s": p99_s / 2, "later_max_s": p99_s}
    return {**rest, **later, "per_token_mean_ms": per_token_ms, "e2e_p99_s": p99_s, "hook_ask_share": 0.002}


def report(*loads: str, starts: int = 2) -> dict[str, Any]:
    """First come takes 90 ms per token, ours 30, the oracle 20; a p99 of 12, 17 and 14 s."""
    clean = {}
    for repetition in range(1, starts + 1):
        for load in loads:
            for arm, per_token_ms, p99_s in (("equal", 90, 12), ("ours", 30, 17), ("oracle", 20, 14), ("ours-5s", 60, 16)):
                clean[Planned(arm, load, repetition)] = figures(per_token_ms, p99_s)
    names = [f"{load}-{repetition}" for load in loads for repetition in range(1, starts + 1)]
    return {
        "settings": {"max_num_seqs": 16, "step_ms": 20.0, "deadline_ms": 100},
        "workloads": {
            name: {
                "source": "some.parquet, seed 0",
                "requests": 2000,
                "requests_per_s": None if name.startswith("burst") else 4.0,
            }
            for name in names
        },
        "rows": rows_of(clean, {run: [None] for run in clean}, 3),
        **ratios_of(clean),
    }


def test_readme_says_what_order_brings_at_the_loads_that_were_run() -> None:
    both = "\n".join(gain({"vllm": report("1.0", "1.2-lasting")}, "docs/vllm.md"))
    spread = "(3.0 to 3.0 over 2 engine starts)"
    assert f"- 3.0 times at what it can serve {spread}\n- 3.0 times at 1.2 times as much for four minutes {spread}\n" in both
    one = "\n".join(gain({"vllm": report("1.2", starts=1)}, "docs/vllm.md"))
    assert "at what it can serve" not in one
    assert "- 3.0 times at 1.2 times as much for less than a minute (one engine start)" in one


def test_readme_says_what_a_ranker_of_the_traffics_own_adds_where_both_were_measured() -> None:
    """Ours has 60 of the oracle's 70 ms."""
    results = {"vllm": report("1.0", "1.2"), "vllm_shipped": report("1.0", "1.2"), "vllm_own": report("1.0", "1.2")}
    results["vllm_own"]["ratios"]["oracle_gain_share"] |= {"1.0": 0.912, "1.2": None}
    text = " ".join(gain(results, "docs/vllm.md"))
    assert "other prompts of the same traffic has 91% at 1x, and the shipped one, beside it, 86%." in text
    del results["vllm_shipped"]
    assert "same traffic" not in " ".join(gain(results, "docs/vllm.md"))


def test_the_page_has_a_row_for_each_order_its_bound_and_the_ratios() -> None:
    """1. two loads 2. without low_load 3. an arm that has no clean run is not there."""
    vllm = report("1.2", "burst")
    vllm["rows"].append({"arm": "random", "load": "1.2", "starts": 0, "not_clean": ["it failed"]})
    text = attached({"vllm": vllm, "hook": {"rows": HOOK_ROWS}})
    assert text.index("**load 1.2, 2,000 requests in 500 s**") < text.index("**2,000 at once**")
    assert text.count("| ours | 2 | 0.33 | 30 | 7 | 7.0 | 7.0 | 7.0 | 17.0 | 7.0 | 7 | 7 | 7 |") == 2
    assert "| ours, window that stays at 5 s | 5 | +4.0 | +8.0 | +16.0 | 1.2x |" in text
    assert "| share of the oracle's gain at 1.2x | 0.857 |  |" in text
    assert "load 0.3" not in text
    assert "| random |" not in text
    assert "Without load" not in text


def test_a_report_of_nothing_can_be_quoted() -> None:
    text = attached({"vllm": report(), "hook": {"rows": HOOK_ROWS}})
    assert "No ratio has been measured yet." in text
    assert "not been measured yet" in gain({"vllm": report()}, "docs/vllm.md")[0]
