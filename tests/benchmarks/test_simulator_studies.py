"""Studies: what several seeds make of a ratio, and how the document shows it."""

from benchmarks.quoted.simulator import simulated
from benchmarks.simulator.studies import AGEING, FIRST_COME, ORACLE, RATIO_FIGURES, study
from benchmarks.simulator.traces import made_up, workloads

COUNT = 2000
CASES = (FIRST_COME, AGEING, ORACLE)
MADE_UP = workloads(None, COUNT)["made up"]


def test_seeds_are_summed_up_by_medians_and_ranges() -> None:
    found = study(CASES, "made up", MADE_UP, seeds=3)
    assert (found["seeds"], found["requests"]) == (3, COUNT)
    for row in found["rows"]:
        for figure in RATIO_FIGURES:
            low, high = row["ratio_ranges"][figure]
            assert low <= row["ratios_to_first_come"][figure] <= high
    first, ageing, _ = found["rows"]
    assert first["ratio_ranges"]["e2e_mean_s"] == [1.0, 1.0]
    low, high = ageing["ratio_ranges"]["e2e_mean_s"]
    assert low < high


def test_one_seed_has_no_range_and_is_among_several() -> None:
    one, two = (study(CASES, "made up", MADE_UP, seeds) for seeds in (1, 2))
    for alone, both in zip(one["rows"], two["rows"], strict=True):
        assert "ratio_ranges" not in alone
        assert alone["ratios_to_first_come"]["e2e_p90_s"] in both["ratio_ranges"]["e2e_p90_s"]


def test_in_a_trace_the_ranker_alone_is_drawn() -> None:
    """Who knows all lengths has nothing to draw."""
    requests = made_up(COUNT)
    _, ageing, knowing = study(CASES, "a trace", lambda seed: requests, seeds=2)["rows"]
    low, high = ageing["ratio_ranges"]["e2e_mean_s"]
    assert low < high
    low, high = knowing["ratio_ranges"]["e2e_mean_s"]
    assert low == high


def test_the_document_shows_ranges_and_queues_where_there_are_some() -> None:
    figures = {"e2e_mean_s": 2.0, "per_token_mean_ms": 30.0, "queue_mean": 4.0, "preemptions": 1}
    ratios = dict.fromkeys(("e2e_mean_s", "e2e_p90_s", "e2e_p99_s", "per_token_mean_ms", "longest_wait_s"), 0.9)
    row = {"order": "ageing", "offered_load": 1.0, "figures": figures, "ratios_to_first_come": ratios}
    ranges = {**{figure: [0.9, 0.9] for figure in ratios}, "e2e_mean_s": [0.85, 0.96]}
    facts = {"requests": 1234, "prompt_tokens_mean": 5.0, "output_tokens_mean": 6.0}
    one, several = {**facts, "rows": [row]}, {**facts, "seeds": 3, "rows": [row | {"ratio_ranges": ranges}]}
    names = ("duration_s", "e2e_mean_s", "e2e_p90_s", "per_token_mean_ms", "per_token_p90_ms", "ttft_mean_s", "longest_wait_s")
    errors = dict.fromkeys(names, 0.01)
    queued = errors | {"queue_mean": 0.02, "queue_max": 0.03}
    rows = [
        {"name": name, "fitted": {"step_model": {"constant_ms": 20.0}}, "error": error}
        for name, error in (("busy", queued), ("idle", errors))
    ]
    summary = {figure: {"median": 0.01, "largest": 0.02} for figure in queued}
    validation = {"rows": rows, "summary": summary, "summary_fitted_on_itself": summary}
    text = simulated(
        {"simulator": {"validation": validation, "studies": {"orders": {"workloads": {"one": one, "several": several}}}}}
    )
    assert "| ageing | 1 | 0.90 | 0.90 | 0.90 | 0.90 | 0.90 | 1 |" in text
    assert "| ageing | 1 | 0.90 (0.85 to 0.96) | 0.90 | 0.90 | 0.90 | 0.90 | 1 |" in text
    assert "Ratios to first come, first served, median of 3 seeds (lowest to highest):" in text
    assert "| busy | 20.00 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 | +2.0 | +3.0 |" in text
    assert "| idle | 20.00 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 | +1.0 |  |  |" in text
