"""Which cases a round of bench_overhead has, and what its ratios are of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_overhead.__main__ import main, whole_rounds
from benchmarks.bench_overhead.best_bundle import best_bundle
from benchmarks.bench_overhead.cases import (
    CPU_BATCHES,
    GROUP_PROMPTS,
    PARTS,
    SHAPES,
    Case,
    PeerCase,
    ServedCase,
    cases_of_a_round,
)
from benchmarks.bench_overhead.ratios import limits, ours_failed, ratios_of
from benchmarks.bench_overhead.stage import Settings, check_device, processes_of
from benchmarks.measurement import Call, Measurement, Recording, Row, Spread, measure
from benchmarks.peers.registry import PEERS, PeerError
from benchmarks.process import ProcessError
from benchmarks.report import ratios_json, ratios_table

NAMED = {
    *("throughput_64_vs_limit", "throughput_batch32_vs_limit", "p50_1_vs_limit", "throughput_64_vs_reference"),
    *("p99_64_vs_reference", "best_throughput_64_vs_reference", "cheap_p50_ms", "lowest_throughput_vs_unbatched"),
}


def measurement(prompts_per_s: float = 100.0, p50_ms: float = 10.0, failures: dict[str, int] | None = None) -> Measurement:
    made = measure([Recording(0.0, 1.0, [Call(0.0, p50_ms / 1e3, 1, 20)], failures or {}, 0.5)], server_cpu_s=2.0)
    return replace(made, prompts_per_s=prompts_per_s)


def rows_of(parts: tuple[str, ...], peers: tuple[str, ...] = (), **others: Measurement) -> dict[str, Row]:
    """One round of every case, all alike but the others."""
    cases = cases_of_a_round(1.0, CPU_BATCHES, has_ngram=True, parts=parts, peers=peers)
    assert len({case.name for case in cases}) == len(cases)
    assert others.keys() <= {case.name for case in cases}
    return {case.name: Row(case.name, case.what, [others.get(case.name, measurement())]) for case in cases}


def test_every_ratio_has_its_cases() -> None:
    rows = rows_of(PARTS, ("mosec", "reference"))
    ratios = ratios_of(rows, ("mosec", "reference"))
    assert ratios.keys() >= NAMED
    assert None not in ratios.values()
    assert set(limits(rows)) == {"all_sorted", "groups"}


def test_what_was_not_measured_has_no_ratio() -> None:
    alone = ratios_of(rows_of(("limit", "ours")))
    assert not [name for name in alone if "reference" in name or name.startswith("best")]
    assert ratios_of(rows_of(("limit",))) == {}
    without_ours = ratios_of(rows_of(("peers",), ("mosec",)), ("mosec",))
    assert {name.rpartition("_")[2] for name in without_ours} == {"mosec"}


def test_peers_are_measured_beside_ours_in_every_shape() -> None:
    cases = cases_of_a_round(1.0, CPU_BATCHES, has_ngram=True, parts=("peers", "best"), peers=["mosec", "reference"])
    assert [case.name for case in cases[:4]] == [
        "ours_tcp_1_caller",
        "best_tcp_1_caller",
        "mosec_1_caller",
        "reference_1_caller",
    ]
    assert len(cases) == 4 * len(SHAPES)
    for start in range(0, len(cases), 4):
        ours, best, *peers = cases[start : start + 4]
        assert isinstance(ours, ServedCase)
        assert isinstance(best, ServedCase)
        assert (ours.over, ours.via) == ("tcp", "asyncio")
        assert (best.over, best.via) == ("best", "asyncio")
        for case in (best, *peers):
            assert isinstance(case, ServedCase | PeerCase)
            assert (case.callers, case.prompts_per_call) == (ours.callers, ours.prompts_per_call)
    assert [case.what for case in cases[2::4]] == [
        *("mosec: 1 caller", "mosec: 8 callers", "mosec: 64 callers", "mosec: 4 callers x 32 prompts")
    ]


def test_peer_ratios_are_ours_by_theirs() -> None:
    rows = rows_of(
        *(("peers",), ("mosec",)),
        ours_tcp_8_callers=measurement(prompts_per_s=300.0, p50_ms=5.0),
        mosec_8_callers=measurement(prompts_per_s=100.0, p50_ms=20.0),
        mosec_64_callers=measurement(failures={"TimeoutError": 1}),
    )
    ratios = ratios_of(rows, ["mosec"])
    assert len(ratios) == 4 * len(SHAPES)
    assert ratios["throughput_8_vs_mosec"] == Spread(3.0, 3.0, 3.0)
    assert ratios["p50_8_vs_mosec"] == Spread(0.25, 0.25, 0.25)
    assert ratios["p99_1_vs_mosec"] == Spread(1.0, 1.0, 1.0)
    assert ratios["cpu_batch32_vs_mosec"] == Spread(1.0, 1.0, 1.0)
    assert ratios["throughput_64_vs_mosec"] is None


def test_throughput_ratios_use_the_best_bare_row() -> None:
    rates = {"bare_batches_of_8": 400.0, "bare_groups_in_batches_of_4": 350.0, "ours_4_callers_32_prompts": 300.0}
    ratios = ratios_of(rows_of(("limit", "ours"), **{name: measurement(rate) for name, rate in rates.items()}))
    assert ratios["throughput_64_vs_limit"] == Spread(0.25, 0.25, 0.25)
    assert ratios["throughput_batch32_vs_limit"] == Spread(0.75, 0.75, 0.75)
    groups = ratios["throughput_batch32_vs_limit_in_groups"]
    assert groups is not None
    assert groups.median == pytest.approx(300 / 350)


def test_the_lowest_ratio_to_unbatched_scoring_counts() -> None:
    rates = {"ours_8_callers": 150.0, "ours_64_callers": 200.0, "ours_256_callers": 120.0}
    alone = {f"unbatched_{callers}_callers": 100.0 for callers in (8, 64, 256)}
    rows = rows_of(("limit", "ours"), **{name: measurement(rate) for name, rate in (rates | alone).items()})
    assert ratios_of(rows)["lowest_throughput_vs_unbatched"] == Spread(1.2, 1.2, 1.2)


def test_the_lowest_ratio_is_unknown_when_one_of_them_failed() -> None:
    rows = rows_of(("limit", "ours"), ours_8_callers=measurement(failures={"OverloadedError": 1}))
    ratios = ratios_of(rows)
    assert ratios["throughput_64_vs_unbatched"] is not None
    assert ratios["throughput_8_vs_unbatched"] is None
    assert ratios["lowest_throughput_vs_unbatched"] is None


def test_a_stream_is_called_by_one_process() -> None:
    stream = ServedCase("a", "a", "unix", "stream", 64)
    callers = ServedCase("b", "b", "unix", "asyncio", 64)
    assert [processes_of(case, 4) for case in (stream, callers, replace(callers, callers=2))] == [1, 4, 2]
    in_the_open = [replace(case, callers=0, load=0.6) for case in (stream, callers)]
    assert [processes_of(case, 4) for case in in_the_open] == [1, 4]
    assert processes_of(PeerCase("c", "c", "mosec", 0, load=0.6), 4) == 4


def test_servers_on_different_devices_are_not_compared() -> None:
    with pytest.raises(PeerError, match="--provider cpu, or --peers none"):
        check_device([PEERS["mosec"]], on_gpu=True)
    check_device([PEERS["mosec"]], on_gpu=False)
    check_device([], on_gpu=True)


def test_a_failed_side_is_null_in_json_and_named_in_the_table() -> None:
    cases = cases_of_a_round(1.0, CPU_BATCHES, has_ngram=False)
    rows = {case.name: Row(case.name, case.what, [measurement(failures={"DeadlineError": 1})]) for case in cases}
    ratios = ratios_of(rows)
    assert set(ratios_json(ratios)["ratios"].values()) == {None}
    assert ratios_table(ratios)[1].split() == ["throughput_8_vs_limit", "FAILED"]


@pytest.mark.parametrize(
    ("case", "failed"),
    [("mosec_64_callers", False), ("ours_open_90", False), ("ours_tcp_64_callers", True), ("bare_run", True)],
)
def test_only_what_is_ours_fails_the_run(case: str, failed: bool) -> None:
    rows = rows_of(PARTS, ("mosec",), **{case: measurement(failures={"TimeoutError": 1})})
    assert ours_failed(rows, ratios_of(rows, ["mosec"]), ["mosec"]) == failed


class MortalStage:
    """Measures so many cases, then a contender has died."""

    limit_per_s = None

    def __init__(self, cases: int) -> None:
        self._left = cases

    def measure(self, case: Case, settings: Settings) -> Measurement:
        if not self._left:
            raise ProcessError("`sidecar` ended early; it said:\n  | a secret")
        self._left -= 1
        return measurement()


SETTINGS = Settings(provider="cpu", seconds=1.0, rounds=5, caller_processes=1, sidecar_flags=(), smoke=False)


def test_a_death_in_a_later_round_costs_that_round_alone() -> None:
    cases = cases_of_a_round(1.0, CPU_BATCHES, has_ngram=False, parts=PARTS)
    stage: Any = MortalStage(2 * len(cases) + 3)
    measured, cut_short = whole_rounds(stage, cases, SETTINGS)
    assert {len(rounds) for rounds in measured.values()} == {2}
    assert cut_short == "Cut short: 2 of 5 rounds. `sidecar` ended early."
    dead: Any = MortalStage(len(cases) - 1)
    with pytest.raises(ProcessError):
        whole_rounds(dead, cases, SETTINGS)


def test_cases_without_the_ngram_tier_and_within_the_group() -> None:
    cases = cases_of_a_round(1.0, (1, 32, 128), has_ngram=False)
    assert not any(isinstance(case, ServedCase) and case.ngram for case in cases)
    names = [case.name for case in cases]
    assert "bare_batches_of_128" in names
    assert f"bare_groups_in_batches_of_{GROUP_PROMPTS}" in names
    assert "bare_groups_in_batches_of_128" not in names


def test_open_loops_come_after_the_limit_they_are_fractions_of() -> None:
    cases = cases_of_a_round(1.0, CPU_BATCHES, has_ngram=True, parts=("limit", "open"), peers=["reference"])
    open_loops = [isinstance(case, ServedCase | PeerCase) and case.load > 0 for case in cases]
    assert open_loops == sorted(open_loops)
    assert [case.name for case in cases if case.name.startswith("reference")] == ["reference_open_30", "reference_open_60"]


@pytest.mark.parametrize(
    ("parts", "message"), [("limit,none", "none is not among"), ("ours,open", "open is at fractions of the limit")]
)
def test_parts_that_cannot_be(parts: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--bundle", str(tmp_path), "--out", str(tmp_path / "out.json"), "--parts", parts])
    assert message in capsys.readouterr().err


def test_the_best_bundles_loss_is_the_worst_one_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    quality = tmp_path / "quality.json"
    row = {"precision": "fp32", "dataset": "a", "tau_loss": 0.001, "tau_loss_low": -0.001, "tau_loss_high": 0.002}
    worse = row | {"dataset": "b", "tau_loss": 0.003}
    other = row | {"precision": "int8", "tau_loss": 0.1}
    document = {"stamp": {"commit": "abc"}, "precision": [row, worse, other]}
    quality.write_text(json.dumps(document), encoding="utf-8")
    best = best_bundle(tiny_bundle, quality)
    assert (best.precision, best.tau_loss, best.dataset, best.source_commit) == (
        "fp32",
        Spread(0.003, -0.001, 0.002),
        "b",
        "abc",
    )
    assert best_bundle(tiny_bundle, tmp_path / "none.json").tau_loss is None
