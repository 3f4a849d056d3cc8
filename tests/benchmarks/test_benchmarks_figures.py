"""From recorded calls to figures, ratios, documents and tables, with numbers worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.chain.report import PART_KEYS, PartError, merged, tables
from benchmarks.circumstances import BUSY_NOTE, SMOKE_NOTE, circumstances
from benchmarks.measurement import Call, Measurement, Recording, Row, Spread, best, measure, percentile, prompts_per_s, ratio
from benchmarks.process_tree import Memory
from benchmarks.report import aligned, plain, row_json, rows_table, write_json
from benchmarks.stamp import Machine, Stamp

STAMP = Stamp(Machine("cpu", 2, 2, 4.0, (), "Linux", 0.0), {"python": "3"}, "abc", "python -m x", "2026-01-01T00:00:00+00:00")


def measurement(prompts_per_s: float = 100.0, p50_ms: float = 10.0, failures: dict[str, int] | None = None) -> Measurement:
    call = Call(0.0, p50_ms / 1e3, 1, 20, 1_000_000, 2_000_000, 3_000_000)
    made = measure([Recording(0.0, 1.0, [call], failures or {}, 0.5)], server_cpu_s=2.0)
    return replace(made, prompts_per_s=prompts_per_s)


def row(name: str, *rounds: Measurement) -> Row:
    return Row(name, f"what {name} is", rounds)


def test_percentiles_lie_between_the_nearest_values() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile(list(range(101)), 99) == 99.0
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 50) is None


def test_a_call_across_an_edge_counts_by_its_share_inside() -> None:
    inside, before, after, outside = Call(1.0, 1.5, 4, 0), Call(0.5, 1.5, 8, 0), Call(1.75, 2.75, 4, 0), Call(3.0, 4.0, 99, 0)
    assert prompts_per_s([inside, before, after, outside], 1.0, 2.0) == pytest.approx(4 + 4 + 1)
    whole = Call(0.0, 4.0, 8, 0)  # longer than the window
    assert prompts_per_s([whole], 1.0, 2.0) == pytest.approx(2.0)


def test_latency_is_of_the_calls_that_began_in_the_window() -> None:
    calls = [Call(0.0, 1.1, 1, 10), Call(1.0, 1.002, 1, 20), Call(1.9, 2.9, 1, 40), Call(2.0, 2.1, 1, 80)]
    measured = measure([Recording(1.0, 2.0, calls, {}, 0.4)], server_cpu_s=0.8)
    assert measured.completed_calls == 2
    assert measured.p50_ms == pytest.approx((2 + 1000) / 2)
    assert measured.mean_prompt_tokens == 30
    assert measured.caller_cpu_s_per_1000_prompts == pytest.approx(100)
    assert measured.scorer_cpu_s_per_1000_prompts == pytest.approx(200)
    assert measured.server_infer_p50_ms is None
    assert not measured.failed


def test_the_servers_split_stands_beside_the_callers_time() -> None:
    measured = measurement(p50_ms=10.0)
    assert measured.server_tokenize_p50_ms == 1.0
    assert measured.server_queue_p50_ms == 2.0
    assert measured.server_infer_p50_ms == 3.0
    assert measured.outside_server_p50_ms == pytest.approx(4.0)


def test_what_is_outside_is_only_said_of_single_prompts() -> None:
    measured = measure([Recording(0.0, 1.0, [Call(0.0, 0.010, 32, 0, 0, 9_000_000, 9_000_000)], {}, 0.5)], server_cpu_s=2.0)
    assert measured.server_infer_p50_ms == 9.0
    assert measured.outside_server_p50_ms is None


def test_several_processes_are_one_case() -> None:
    recordings = [Recording(0.0, 1.0, [Call(0.0, 1.0, 3, 0)], {"DeadlineError": n}, 0.5) for n in (1, 2)]
    measured = measure(recordings)
    assert measured.prompts_per_s == pytest.approx(6.0)
    assert measured.failures == {"DeadlineError": 3}
    assert measured.scorer_cpu_s_per_1000_prompts == pytest.approx(1000 / 6)
    assert measured.caller_cpu_s_per_1000_prompts is None


def test_what_the_server_holds_is_in_the_figures() -> None:
    recording = Recording(0.0, 1.0, [Call(0.0, 1.0, 1, 0)], {}, 0.5)
    with_server = row("a", measure([recording], server_cpu_s=1.0, server_memory=Memory(rss_mib=300.0, pss_mib=200.0)))
    assert row_json(with_server)["server_rss_mib"] == [300.0, 300.0, 300.0]
    assert row_json(with_server)["server_pss_mib"] == [200.0, 200.0, 200.0]
    assert "server_rss_mib" not in row_json(row("bare", measure([recording])))
    header, shown, _ = rows_table([with_server, row("bare", measure([recording]))])
    assert header.split()[-3:] == ["RSS", "MiB", "failed"]
    assert shown.split()[-1] == "300"
    assert shown.rindex("300") + 3 == header.index("RSS MiB") + len("RSS MiB")


def test_no_answer_at_all_is_a_failure() -> None:
    measured = measure([Recording(0.0, 1.0, [], {}, 0.0)], server_cpu_s=0.0)
    assert measured.failed
    assert measured.p50_ms is None


def test_a_round_with_failures_is_marked_and_used_for_nothing() -> None:
    mixed = row("a", measurement(100), measurement(1e9, failures={"OverloadedError": 5}), measurement(120), measurement(90))
    assert mixed.spread("prompts_per_s") == Spread(100, 90, 120)
    shown = row_json(mixed)
    assert (shown["clean_rounds"], shown["failed_rounds"], shown["failed_calls"]) == (3, 1, {"OverloadedError": 5})
    assert rows_table([mixed])[1].endswith("FAILED 5")


def test_a_row_without_a_clean_round_has_no_figures() -> None:
    failed = row("a", measurement(failures={"UnavailableError": 1}))
    assert failed.spread("p50_ms") is None
    assert "p50_ms" not in row_json(failed)


def test_ratios_are_taken_within_rounds() -> None:
    ours = row("ours", measurement(50), measurement(200), measurement(30))
    bare = row("bare", measurement(100), measurement(400), measurement(40))
    assert ratio(ours, bare, "prompts_per_s") == Spread(0.5, 0.5, 0.75)


def test_a_ratio_leaves_out_rounds_in_which_a_side_failed() -> None:
    ours = row("ours", measurement(50), measurement(1, failures={"DeadlineError": 1}))
    bare = row("bare", measurement(100), measurement(1))
    assert ratio(ours, bare, "prompts_per_s") == Spread(0.5, 0.5, 0.5)
    assert ratio(ours, row("bare", *[measurement(failures={"DeadlineError": 1})] * 2), "prompts_per_s") is None


def test_the_limit_is_the_batch_size_with_the_best_median() -> None:
    steady, lucky = row("steady", *map(measurement, (90, 100, 110))), row("lucky", *map(measurement, (10, 20, 500)))
    assert best([lucky, steady], "prompts_per_s") is steady
    assert best([row("failed", measurement(failures={"x": 1}))], "prompts_per_s") is None


def test_a_report_says_when_its_machine_was_busy_or_it_measured_nothing() -> None:
    busy = replace(STAMP, machine=replace(STAMP.machine, load_average_1_min=0.6))
    assert circumstances(STAMP, smoke=False) == []
    assert circumstances(busy, smoke=False) == [BUSY_NOTE]
    assert circumstances(busy, smoke=True) == [BUSY_NOTE, SMOKE_NOTE]


def test_columns_line_up() -> None:
    assert aligned(("name", "ms"), [("a", "1.5"), ("longer", "10")]) == ["name     ms", "a       1.5", "longer   10"]


def test_json_is_short_whole_and_without_nan(tmp_path: Path) -> None:
    out = tmp_path / "results" / "x.json"
    write_json(out, {"spread": Spread(1 / 3, 0.1, 1.0), "stamp": STAMP, "count": 3})
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["spread"] == [0.33333, 0.1, 1.0]
    assert document["stamp"]["machine"]["cpu_model"] == "cpu"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(out, {"x": math.nan})
    assert json.loads(out.read_text(encoding="utf-8")) == document


def test_plain_keeps_counts_and_truth_exact() -> None:
    assert plain({"bytes": 90_964_641, "yes": True, "none": None, 3: ("a",)}) == {
        "bytes": 90_964_641,
        "yes": True,
        "none": None,
        "3": ["a"],
    }


def test_a_part_measured_again_replaces_its_own_figures_only() -> None:
    document = merged({}, "demo", {"demo_seconds": 200.0, "demo_installed_packages": True}, STAMP)
    document = merged(document, "tau", {"tau": [{"ranker": "r", "tau_b": 0.7}]}, STAMP)
    later = replace(STAMP, commit="def")
    document = merged(document, "demo", {"demo_seconds": 180.0, "demo_installed_packages": True}, later)
    assert document["demo_seconds"] == 180.0
    assert document["tau"] == [{"ranker": "r", "tau_b": 0.7}]
    assert {part: stamp["commit"] for part, stamp in document["stamps"].items()} == {"demo": "def", "tau": "abc"}


def test_a_failed_part_loses_its_old_figures_until_it_is_measured_again() -> None:
    figures = {"demo_seconds": 200.0, "demo_installed_packages": True}
    failed = merged(merged({}, "demo", figures, STAMP), "demo", PartError("no make"), STAMP)
    assert "demo_seconds" not in failed
    assert failed["failed"] == {"demo": "no make"}
    assert tables(failed) == ["FAILED demo: no make"]
    assert merged(failed, "demo", figures, STAMP) == merged({}, "demo", figures, STAMP)


def test_no_two_parts_own_one_key() -> None:
    keys = [key for keys in PART_KEYS.values() for key in keys]
    assert len(keys) == len(set(keys))


def test_the_chains_tables_show_what_is_there() -> None:
    document = {
        "demo_seconds": 150.2,
        "demo_installed_packages": True,
        "test_seconds": 61.0,
        "test_installed_packages": False,
        "tests": {"passed": 400, "failed": 0, "skipped": 0},
        "tau": [{"ranker": "r", "scorer": "encoder", "data_set": "d", "prompts": 10, "tau_b": 0.6912345}],
    }
    lines = tables(document)
    assert lines[:3] == ["make demo: 150 s (packages installed)", "make test: 61 s", "tests: 400 passed, 0 failed, 0 skipped"]
    assert "0.6912" in lines[5]
