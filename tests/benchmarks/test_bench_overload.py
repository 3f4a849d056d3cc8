"""bench_overload: its figures, worked out by hand, and the whole of it for a moment on a tiny bundle."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_overload import __main__ as bench_overload
from benchmarks.bench_overload.figures import LOST, Outcome, arm_figures, capacity_per_s, overload_table

DEADLINE_MS = 100.0

OUTCOMES = (
    *(Outcome(0.1 * number, 0.1 * number, 10.0 * number, "OK", "encoder") for number in range(1, 5)),
    Outcome(0.5, 0.51, 2.0, "OK", "ngram"),
    Outcome(0.6, 0.6, 100.5, "OK", "encoder"),  # late
    Outcome(0.7, 0.7, 0.5, "RESOURCE_EXHAUSTED", ""),
    Outcome(0.8, 0.8, 99.5, "DEADLINE_EXCEEDED", ""),  # late: the caller's own gRPC gave up
    Outcome(0.9, 0.9, 0.0, LOST, ""),
    Outcome(1.0, 1.0, 3.0, "UNAVAILABLE", ""),
)


def test_every_call_is_of_one_kind() -> None:
    figures = arm_figures(OUTCOMES, seconds=2.0, deadline_ms=DEADLINE_MS)
    assert figures["shares"] == {"encoder": 0.4, "ngram": 0.1, "refused": 0.1, "late": 0.2, "lost": 0.1, "failed": 0.1}
    assert (figures["calls"], figures["lost"]) == (10, 1)
    assert figures["codes"] == {"DEADLINE_EXCEEDED": 1, LOST: 1, "OK": 6, "RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}


def test_times_are_of_what_came_in_time() -> None:
    figures = arm_figures(OUTCOMES, seconds=2.0, deadline_ms=DEADLINE_MS)
    assert figures["answer_ms"][0] == 20.0
    assert figures["answer_ms"][2] == 40.0
    assert figures["refusal_ms"] == [0.5, 0.5, 0.5]
    assert figures["encoder_answers_per_s"] == 2.0
    assert figures["sent_late_ms"][2] == pytest.approx(10.0)


def test_nothing_answered_has_no_times() -> None:
    figures = arm_figures([Outcome(0.0, 0.0, 0.0, LOST, "")], 1.0, DEADLINE_MS)
    assert figures["answer_ms"] is None
    arm = {"load": 3.0, "deadline_ms": 100.0, "tier_fallback": False, "calls_per_s": 10.0, **figures, "goodput": 0.0}
    header, row = overload_table([arm])
    assert header.split()[:2] == ["calls/s", "encoder"]
    assert row.startswith("3x, 100 ms, fallback off")


def test_capacity_counts_what_came_within_the_window() -> None:
    answered = [Outcome(number, number, 500.0, "OK", "encoder") for number in (0.0, 0.5, 1.0, 1.8)]
    assert capacity_per_s(answered, 2.0) == 1.5
    assert capacity_per_s([*answered, Outcome(0.0, 0.0, 1.0, "UNAVAILABLE", "")], 2.0) == 0


def test_the_overload_benchmark_runs_whole(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overload.json"
    code = bench_overload.main(["--bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--smoke"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["capacity_prompts_per_s"]["before"] > 0
    arms = {(arm["load"], arm["deadline_ms"], arm["tier_fallback"]): arm for arm in report["arms"]}
    assert len(arms) == 4
    for arm in arms.values():
        assert arm["calls"] > 0
        assert sum(arm["shares"].values()) == pytest.approx(1.0, abs=1e-4)  # JSON has five digits
        assert arm["lost"] == arm["shares"]["failed"] == 0
    # Without the change of tier nobody but the encoder answers.
    assert all(arm["shares"]["ngram"] == 0 for (*_, fallback), arm in arms.items() if not fallback)
    assert report["stamp"]["command"].endswith("--provider cpu --smoke")
    assert "0.5x, 250 ms, fallback on" in shown


def test_a_sidecar_that_cannot_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "overload.json"
    assert bench_overload.main(["--bundle", str(tmp_path / "none"), "--out", str(out), "--smoke"]) == 1
    assert "sidecar cannot start" in capsys.readouterr().err
    assert not out.exists()
