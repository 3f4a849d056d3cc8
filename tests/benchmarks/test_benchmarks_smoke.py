"""The benchmarks themselves, for real but for a moment, so that they cannot rot. No figure is judged."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_overhead import __main__ as bench_overhead
from benchmarks.chain import __main__ as chain
from benchmarks.chain.report import PARITY_COLUMNS, TAU_COLUMNS


def test_the_sidecar_benchmark_runs_whole(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    flags = ["--bundle", str(tiny_bundle), "--best-bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--smoke"]
    code = bench_overhead.main(flags)
    shown = capsys.readouterr().out
    assert code == 0, shown
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["execution_provider"] == "CPUExecutionProvider"
    assert report["stamp"]["command"].endswith("--provider cpu --smoke")
    assert None not in report["ratios"].values()
    assert report["best_bundle"]["bundle_id"] == report["bundle"]["bundle_id"]
    assert report["parts"] == ["limit", "ours", "best", "open"]
    rows = {row["name"]: row for row in report["rows"]}
    for name, row in rows.items():
        assert row["failed_rounds"] == 0, name
        assert row["prompts_per_s"][0] > 0, name
        assert ("server_infer_p50_ms" in row) == name.startswith(("ours", "unbatched", "best")), name
    # Both sides scored the same mix, or their throughput could not be compared.
    mean = report["workload"]["prompt_tokens"]["mean"]
    assert rows["bare_batches_of_8"]["mean_prompt_tokens"][0] == pytest.approx(mean, rel=1e-3)
    assert rows["ours_64_callers"]["mean_prompt_tokens"][0] == pytest.approx(mean, rel=0.2)
    assert "ours: 64 callers" in shown
    # As many as asked for, more or less: a few dozen Poisson arrivals.
    rate = 0.01 * report["open_loop_limit_prompts_per_s"]
    assert rows["ours_open_1"]["prompts_per_s"][0] == pytest.approx(rate, rel=0.9)


def test_a_contender_that_cannot_start_says_why(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    flags = ["--bundle", str(tiny_bundle), "--out", str(out), "--smoke", "--sidecar-flags", "--workers x"]
    assert bench_overhead.main(flags) == 1
    assert "sidecar cannot start: --workers is 'x'" in capsys.readouterr().err
    assert not out.exists()


def test_refused_calls_are_failures_in_the_report(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    flags = ["--bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--smoke", "--sidecar-flags"]
    assert bench_overhead.main([*flags, "--max-prompts-per-call 8"]) == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["ours_4_callers_32_prompts"]["failed_calls"].keys() == {"InvalidPromptsError"}
    assert report["ratios"]["throughput_batch32_vs_limit"] is None
    assert report["ratios"]["throughput_64_vs_limit"] is not None


def test_the_chain_measures_a_checkpoint(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1. tau and parity of a real checkpoint 2. the tau part again, with another card 3. parity is still there."""
    out = tmp_path / "chain.json"
    flags = ["--out", str(out), "--checkpoint", str(tiny_checkpoint)]
    assert chain.main([*flags, "--only", "parity,tau"]) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [row["precision"] for row in document["parity"]] == ["fp32", "fp16", "int8", "bf16"]
    assert set(PARITY_COLUMNS) <= set(document["parity"][0])
    assert document["bundle_bytes"]["int8"] < document["bundle_bytes"]["fp32"]
    assert set(TAU_COLUMNS) <= set(document["tau"][0])
    assert chain.main([*flags, "--only", "tau", "--ranker-cards", str(tiny_checkpoint / "ranker.json")]) == 0
    again = json.loads(out.read_text(encoding="utf-8"))
    assert again["tau"] == document["tau"] * 2
    assert again["parity"] == document["parity"]
    assert set(again["stamps"]) == {"tau", "parity"}
    assert "encoder" in capsys.readouterr().out


def test_the_chain_goes_on_after_a_part_that_failed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "chain.json"
    flags = ["--out", str(out), "--checkpoint", str(tiny_checkpoint), "--ranker-cards", str(tmp_path / "none.json")]
    assert chain.main([*flags, "--only", "tau"]) == 1
    document = json.loads(out.read_text(encoding="utf-8"))
    assert "tau" not in document
    assert "none.json is no ranker card" in document["failed"]["tau"]


def test_rankers_whose_cards_are_elsewhere_stay_in_the_table(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "chain.json"
    elsewhere = {"ranker": "elsewhere", "scorer": "encoder", "data_set": "d", "tau_b": 0.7}
    out.write_text(json.dumps({"tau": [{**elsewhere, "ranker": "tiny"}, elsewhere]}), encoding="utf-8")
    assert chain.main(["--out", str(out), "--checkpoint", str(tiny_checkpoint), "--only", "tau"]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["tau"]
    assert rows[-1] == elsewhere
    assert [row["ranker"] for row in rows[:-1]] == ["tiny"] * (len(rows) - 1)
    assert rows[0]["data_set"] != "d"  # its own card is read anew
