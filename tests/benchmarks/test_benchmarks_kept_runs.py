"""Finished runs and all their tries are kept, and never under another's name."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_vllm.arms import ARMS
from benchmarks.bench_vllm.kept_runs import KEY, REPLACED, KeptRuns, ReportError, key_of, reported_tries
from benchmarks.report import write_json

RUN = {"rate": 1.0, "arm": ARMS[0], "sources": "abc"}
OTHER = {**RUN, "sources": "def"}


def test_a_run_is_kept_with_all_its_tries(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path / "runs")
    assert kept.tries("a-1", RUN) == []
    assert kept.add("a-1", RUN, {"value": 1 / 3}) == {"value": 0.333333333}
    kept.add("a-1", RUN, {"value": 2})
    assert KeptRuns(tmp_path / "runs").tries("a-1", dict(reversed(RUN.items()))) == [{"value": 0.333333333}, {"value": 2}]
    assert kept.tries("a-2", RUN) == []


def test_a_run_that_depended_on_something_else_is_another_one(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    kept.add("a-1", RUN, {"value": 1})
    assert kept.tries("a-1", OTHER) == []
    assert kept.differs("a-1", OTHER) == ["sources"]
    assert kept.differs("a-1", RUN) == []
    assert kept.differs("a-2", RUN) == []


def test_going_back_finds_the_runs_again(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    kept.add("a-1", RUN, {"value": 1})
    kept.add("a-1", OTHER, {"value": 2})
    assert kept.tries("a-1", RUN) == [{"value": 1}]
    assert kept.tries("a-1", OTHER) == [{"value": 2}]
    kept.add("a-1", RUN, {"value": 3})
    assert kept.tries("a-1", RUN) == [{"value": 1}, {"value": 3}]
    assert kept.tries("a-1", OTHER) == [{"value": 2}]
    assert (tmp_path / REPLACED / f"a-1.{key_of(OTHER)[:12]}.json").exists()


def test_runs_that_reports_tell_of_count_as_made(tmp_path: Path) -> None:
    """All tries of a run, those of the first report that has it; and those of the folder before them. A run without a key is none."""
    run, start, capacity = {**RUN, "arm": "a"}, {"start": 1}, {"max_num_seqs": 16}
    keys = {
        "runs": [{KEY: key_of(run), "try": 1}, {KEY: key_of(run), "try": 2}, {"try": 3}],
        "capacity": {KEY: key_of(capacity)},
    }
    first = {"benchmark": "vllm", **keys, "low_load": {"starts": [{KEY: key_of(start), "rounds": 100}]}}
    second = {"benchmark": "vllm", "runs": [{KEY: key_of(run), "try": 9}, {KEY: key_of(OTHER), "try": 1}], "capacity": None}
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, report in zip(paths, (first, second), strict=True):
        write_json(path, report)
    kept = KeptRuns(tmp_path, reported_tries(paths))
    assert [each["try"] for each in kept.tries("a-1", run)] == [1, 2]
    assert [each["try"] for each in kept.tries("a-1", OTHER)] == [1]
    assert [each["rounds"] for each in kept.tries("low_load-1", start)] == [100]
    assert kept.tries("capacity", capacity) == [{KEY: key_of(capacity)}]
    kept.add("a-1", run, {"try": 3})
    assert [each["try"] for each in kept.reported(run)] == [1, 2]
    assert [each["try"] for each in kept.tries("a-1", run)] == [1, 2, 3]
    assert KeptRuns(tmp_path, reported_tries([paths[1]])).tries("a-1", run) == kept.tries("a-1", run)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a report"),
        ('{"runs": []}', "is not a report"),
        ('{"benchmark": "vllm"}', "is not a report"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ReportError, match=why):
        reported_tries([tmp_path / "report.json"])


def test_a_run_from_before_there_were_tries_is_none(tmp_path: Path) -> None:
    (tmp_path / "a-1.json").write_text(json.dumps({"key": key_of(RUN), "result": {}}))
    kept = KeptRuns(tmp_path)
    assert kept.tries("a-1", RUN) == []
    assert kept.add("a-1", RUN, {"value": 1}) == {"value": 1}
