"""Hours of runs on a real vLLM, gathered in pieces: what is made, what is kept, what counts. The engine is made up here."""

import argparse
import contextlib
import dataclasses
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_vllm import __main__ as bench_vllm
from benchmarks.bench_vllm import gathering as vllm_gathering
from benchmarks.bench_vllm.arms import ARM_NAMES, Arm
from benchmarks.bench_vllm.bench_serve import Load
from benchmarks.bench_vllm.gathering import Gathering
from benchmarks.bench_vllm.kept_runs import KeptRuns, reported_tries
from benchmarks.bench_vllm.plan import LOADS, PLAN, by_rate, multiple, name_of, planned
from benchmarks.bench_vllm.process import VllmInstallation
from benchmarks.bench_vllm.report import runs_part
from benchmarks.bench_vllm.rows import TARGET_LOADS
from benchmarks.bench_vllm.run import LoadSettings
from benchmarks.bench_vllm.site import Bench, Site
from benchmarks.process import ProcessError
from benchmarks.report import plain, write_json
from benchmarks.stamp import Machine, Stamp

STEP_MS = 20.0

STAMP = Stamp(Machine("a CPU", 2, 2, 4.0, (), "Linux", 0.0), {}, "abc", "python -m …", "2026-01-02T00:00:00+00:00")


def happened(requests: int, step_ms: float = STEP_MS, wait_s: float = 1.0) -> dict[str, Any]:
    """A run in which every request waits as long and then gets 11 tokens."""
    return {
        "client": {"duration": 9.0, "output_throughput": 700.0, "request_throughput": 4.0, "max_concurrent_requests": 3},
        "preemptions": 0,
        "hook_outcomes": {"scored": requests},
        "hook_asks": requests,
        "hook_ask_s": 0.01 * requests,
        "queue": {"pause_s": 1.0, "at_s": [0.1, 0.2], "waiting": [0, 4], "running": [16, 16], "missed": 0},
        "requests": {
            "sent_s": [0.0] * requests,
            "ttft_s": [wait_s] * requests,
            "e2e_s": [wait_s + 10 * step_ms / 1000] * requests,
            "output_tokens": [11] * requests,
            "errors": [""] * requests,
        },
    }


class Engine:
    """Stands in for run_arm: notes what was run, and does to a run what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[str, float, int]] = []
        self.does: Callable[[str], dict[str, Any]] = lambda arm: happened(20)
        monkeypatch.setattr(vllm_gathering, "run_arm", self._run)
        monkeypatch.setattr(vllm_gathering, "measure_capacity", lambda *_: happened(4))

    def _run(self, vllm: VllmInstallation, arm: Arm, settings: LoadSettings, bundle: Path, load: Load) -> Mapping[str, Any]:
        self.ran.append((arm.name, load.request_rate, load.seed))
        return self.does(arm.name)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        records=None,
        bundle=tmp_path,
        arms=("equal", "ours"),
        loads=("1.0", "burst"),
        starts=2,
        requests=20,
        requests_at={"burst": 30},
        latency_starts=1,
        rounds=1,
        seed=5,
        settings=LoadSettings(max_num_seqs=16, step_ms=STEP_MS, deadline_ms=100),
        smoke=False,
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    vllm = VllmInstallation(tmp_path, tmp_path, tmp_path, STEP_MS)
    kept = KeptRuns(tmp_path / "runs")
    common, asking = {"vllm": {"vllm": "1"}, "drivers": "d"}, {"sidecar": "s", "bundle": "b"}
    return Site(vllm, vllm, kept, STAMP, {"vllm": "1"}, "a-ranker", "b", "scores", common, asking)


def gather(bench: Bench, site: Site, budget_s: float | None = None) -> tuple[Gathering, list[int]]:
    gathering, low_loads = Gathering(bench, site, budget_s), list[int]()
    gathering.gather(low_loads.append)
    return gathering, low_loads


def test_a_repetition_is_there_and_back_with_the_telling_loads_first() -> None:
    assert list(PLAN)[:3] == ["1.0", "1.2", "1.2-lasting"]
    assert sorted(LOADS, key=by_rate) == ["0.3", "0.7", "1.0", "1.2", "1.2-lasting", "1.5", "burst"]
    names = [run.name for run in planned(("equal", "ours", "random"), ("0.3", "1.2"), 1)]
    assert names == ["equal-1.2-1", "ours-1.2-1", "random-1.2-1", "equal-0.3-1", "ours-0.3-1"]
    back = [run.name for run in planned(("equal", "ours", "random"), ("1.2",), 2)]
    assert back == ["random-1.2-2", "ours-1.2-2", "equal-1.2-2"]
    assert [(multiple(load), name_of(load)) for load in ("1.0", "1.2-lasting", "burst")] == [
        (1.0, "1x"),
        (1.2, "1.2x lasting"),
        (None, "burst"),
    ]
    assert all({"equal", "ours"} <= set(arms) <= set(ARM_NAMES) for arms in PLAN.values())


def test_a_gathering_goes_on_where_it_was(bench: Bench, site: Site, engine: Engine) -> None:
    """1. one repetition after the other, a rate of the capacity, a burst without one 2. a second call makes nothing, whatever the
    commit 3. another bundle is another run, but only where it is asked"""
    _, low_loads = gather(bench, site)
    assert [(arm, seed) for arm, _, seed in engine.ran[:4]] == [("equal", 5), ("ours", 5)] * 2
    assert [(arm, seed) for arm, _, seed in engine.ran[4:]] == [("ours", 6), ("equal", 6)] * 2
    assert low_loads == [1]
    rates = [rate for _, rate, _ in engine.ran]
    assert rates[0] == rates[1] == plain(700.0 / bench.replay("1.0", 1).mean_output_tokens)
    assert rates[2] == float("inf")

    engine.ran.clear()
    elsewhere = dataclasses.replace(site, stamp=dataclasses.replace(STAMP, commit="def"))
    gathering, _ = gather(bench, elsewhere)
    assert engine.ran == []
    assert runs_part(bench, gathering)["commits"] == {"abc": 8}

    gather(bench, dataclasses.replace(site, asking={"sidecar": "s", "bundle": "other"}))
    assert {arm for arm, _, _ in engine.ran} == {"ours"}
    engine.ran.clear()
    gather(bench, site)
    assert engine.ran == []


def test_another_machine_goes_on_from_a_report(
    bench: Bench, site: Site, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. what the report has is not made again, not even the capacity 2. what it lacks is made at its rates 3. a try that was not clean is
    made once more 4. the report of both says what each run is of, and of the first ones the same again"""
    first = dataclasses.replace(bench, starts=1)
    engine.does = lambda arm: happened(20, step_ms=STEP_MS if arm == "equal" else 2 * STEP_MS)
    told = {"benchmark": "vllm", **runs_part(first, gather(first, site)[0])}
    write_json(tmp_path / "report.json", told)

    # The other machine is slower and has found out so; the rates are the report's all the same.
    slower = happened(4) | {"client": happened(4)["client"] | {"output_throughput": 650.0}}
    monkeypatch.setattr(vllm_gathering, "measure_capacity", lambda *_: slower)
    own = Gathering(first, dataclasses.replace(site, kept=KeptRuns(tmp_path / "elsewhere"))).capacity()
    assert own is not None
    assert own["tokens_per_s"] == 650.0
    kept = KeptRuns(tmp_path / "elsewhere", reported_tries([tmp_path / "report.json"]))
    stamp = dataclasses.replace(STAMP, commit="def", machine=dataclasses.replace(STAMP.machine, cpu_model="another CPU"))
    there, rates = dataclasses.replace(site, kept=kept, stamp=stamp), [rate for _, rate, _ in engine.ran]
    engine.ran.clear()
    engine.does = lambda arm: happened(20, wait_s=2.0)
    gathering, _ = gather(first, there)
    assert [(arm, rate) for arm, rate, _ in engine.ran] == [("ours", rates[1]), ("ours", float("inf"))]
    both = runs_part(first, gathering)
    assert both["capacity"] == told["capacity"]
    assert both["machines"] == {"a CPU, 2 cores": 4, "another CPU, 2 cores": 2}
    tries = [(run["arm"], run["load"], run["try"], run["commit"], bool(run["not_clean"])) for run in both["runs"]]
    assert tries[:3] == [("equal", "1.0", 1, "abc", False), ("ours", "1.0", 1, "abc", True), ("ours", "1.0", 2, "def", False)]
    assert plain(both["runs"][:2]) == plain(told["runs"][:2])
    equal, ours = both["rows"][:2]
    assert ours["ratios_to_equal"]["ttft_mean_s"] == [2.0] * 3
    # The single requests of first come, first served are on the other machine.
    assert "later_p99_s" in equal
    assert "later_p99_s" not in ours
    engine.ran.clear()
    gather(first, there)
    assert engine.ran == []


def test_more_requests_at_one_load_leave_the_others_alone(bench: Bench, site: Site, engine: Engine) -> None:
    bench = dataclasses.replace(bench, starts=1)
    gather(bench, site)
    engine.ran.clear()
    gather(dataclasses.replace(bench, requests_at={"burst": 30, "1.0": 25}), site)
    assert [arm for arm, rate, _ in engine.ran if rate < float("inf")] == ["equal", "ours"]
    assert len(engine.ran) == 2


def test_counts_by_load_are_read() -> None:
    assert bench_vllm.counts_by_load("1.0=2000,burst=30") == {"1.0": 2000, "burst": 30}
    for wrong in ("2.0=5", "1.0", "1.0=0", "1.0=x", "burst=-1"):
        with pytest.raises(argparse.ArgumentTypeError):
            bench_vllm.counts_by_load(wrong)


@pytest.mark.parametrize(
    "change",
    [{"requests": 21}, {"seed": 6}, {"settings": LoadSettings(max_num_seqs=16, step_ms=STEP_MS, deadline_ms=50)}],
    ids=["requests", "seed", "settings"],
)
def test_what_changes_a_run_makes_it_another(bench: Bench, site: Site, engine: Engine, change: dict[str, Any]) -> None:
    gather(bench, site)
    engine.ran.clear()
    other, _ = gather(dataclasses.replace(bench, loads=("1.0",), starts=1, **change), site)
    assert len(engine.ran) == 2
    assert [
        row["tries"] for row in runs_part(dataclasses.replace(bench, loads=("1.0",), starts=1, **change), other)["rows"]
    ] == [1, 1]


def test_without_time_there_is_a_report_and_nothing_else(bench: Bench, site: Site, engine: Engine) -> None:
    """1. of nothing 2. of what there is, with fewer starts than planned."""
    gathering, low_loads = gather(bench, site, budget_s=0.0)
    part = runs_part(bench, gathering)
    assert (part["rows"], part["runs"], part["capacity"], low_loads, engine.ran) == ([], [], None, [], [])
    assert part["ratios"]["per_token_mean_fcfs_over_ours"] == dict.fromkeys(TARGET_LOADS)

    gather(dataclasses.replace(bench, starts=1, arms=("equal",)), site)
    engine.ran.clear()
    part = plain(runs_part(bench, gather(bench, site, budget_s=0.0)[0]))
    assert engine.ran == []
    assert [(row["arm"], row["load"], row["starts"], row["planned_starts"]) for row in part["rows"]] == [
        ("equal", "1.0", 1, 2),
        ("equal", "burst", 1, 2),
    ]
    assert part["workloads"]["burst-1"]["requests_per_s"] is None
    assert [part["workloads"][name]["requests"] for name in ("1.0-1", "burst-1")] == [20, 30]
    assert "requests" not in part["runs"][0]


def test_a_run_that_is_not_clean_is_made_twice_and_counted(bench: Bench, site: Site, engine: Engine) -> None:
    """1. once in a call 2. again in the next, where it may be clean 3. the clean one counts, the other is in the row."""
    bench = dataclasses.replace(bench, loads=("1.0",), starts=1)
    engine.does = lambda arm: happened(20, step_ms=30.0 if arm == "ours" else STEP_MS)
    row = {each["arm"]: each for each in runs_part(bench, gather(bench, site)[0])["rows"]}["ours"]
    assert [arm for arm, _, _ in engine.ran] == ["equal", "ours"]
    assert (row["starts"], row["tries"]) == (0, 1)
    assert "median step took" in row["not_clean"][0]
    assert "e2e_mean_s" not in row

    engine.does = lambda arm: happened(20, wait_s=0.5)
    part = runs_part(bench, gather(bench, site)[0])
    row = {each["arm"]: each for each in part["rows"]}["ours"]
    assert [arm for arm, _, _ in engine.ran] == ["equal", "ours", "ours"]
    assert (row["starts"], row["tries"], len(row["not_clean"])) == (1, 2, 1)
    assert row["e2e_mean_s"] == pytest.approx([0.7] * 3)
    assert [(run["arm"], run["try"], run["not_clean"] is None) for run in part["runs"]] == [
        ("equal", 1, True),
        ("ours", 1, False),
        ("ours", 2, True),
    ]


def test_after_two_tries_it_is_over(bench: Bench, site: Site, engine: Engine) -> None:
    bench = dataclasses.replace(bench, loads=("1.0",), starts=1, arms=("ours",))
    engine.does = lambda arm: happened(20, step_ms=30.0)
    for _ in range(4):
        gathering, _ = gather(bench, site)
    assert len(engine.ran) == vllm_gathering.MAX_TRIES == 2
    assert runs_part(bench, gathering)["rows"][0]["tries"] == 2


def test_an_engine_that_fails_costs_one_run_and_many_end_it(bench: Bench, site: Site, engine: Engine) -> None:
    def fails_for(failing: set[str]) -> Callable[[str], dict[str, Any]]:
        def does(arm: str) -> dict[str, Any]:
            if arm in failing:
                raise ProcessError("the engine ended early")
            return happened(20)

        return does

    engine.does = fails_for({"ours"})
    gathering, _ = gather(dataclasses.replace(bench, starts=1), site)
    rows = runs_part(bench, gathering)["rows"]
    assert [(row["arm"], row["starts"], row["not_clean"]) for row in rows[:2]] == [
        ("equal", 1, []),
        ("ours", 0, ["the engine ended early"]),
    ]
    engine.does = fails_for({"ours", "equal"})
    with pytest.raises(ProcessError, match="3 runs in a row failed"):
        gather(dataclasses.replace(bench, seed=9), site)


def test_a_connection_that_breaks_costs_one_run(bench: Bench, site: Site, engine: Engine) -> None:
    def does(arm: str) -> dict[str, Any]:
        if arm == "ours":
            raise http.client.RemoteDisconnected
        return happened(20)

    engine.does = does
    bench = dataclasses.replace(bench, starts=1, loads=("1.0",))
    rows = runs_part(bench, gather(bench, site)[0])["rows"]
    assert [(row["arm"], row["not_clean"]) for row in rows] == [("equal", []), ("ours", ["RemoteDisconnected()"])]


def test_how_much_later_requests_are_than_with_first_come(bench: Bench, site: Site, engine: Engine) -> None:
    engine.does = lambda arm: happened(20, wait_s=1.5 if arm == "ours" else 1.0)
    bench = dataclasses.replace(bench, starts=1, loads=("1.0",))
    equal, ours = runs_part(bench, gather(bench, site)[0])["rows"]
    assert ours["later_p99_s"] == ours["later_max_s"] == [0.5] * 3
    assert equal["later_max_s"] == [0.0] * 3


def test_from_the_command_line(
    site: Site, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1. a run that fails: a report, and exit code 1 2. the next call makes it good 3. report only, of all that there is, whatever was
    asked for 4. another arm, and of that alone 5. of nothing: the old report stays."""
    seen: list[Bench] = []

    @contextlib.contextmanager
    def made_up_site(bench: Bench, *_: object) -> Iterator[Site]:
        seen.append(bench)
        yield site

    def fails(arm: str) -> dict[str, Any]:
        raise ProcessError("the engine ended early")

    monkeypatch.setattr(bench_vllm, "site_of", made_up_site)
    out = tmp_path / "vllm.json"
    flags = ["--out", str(out), "--parts", "load", "--arms", "equal", "--loads", "1.0", "--starts", "1", "--requests", "20"]
    engine.does = fails
    assert bench_vllm.main(flags) == 1
    assert json.loads(out.read_text())["rows"][0]["not_clean"] == ["the engine ended early"]
    engine.does = lambda arm: happened(20)
    assert bench_vllm.main(flags) == 0
    out.unlink()
    assert bench_vllm.main(["--out", str(out), "--parts", "low_load", "--requests", "20", "--budget-minutes", "0"]) == 0
    document = json.loads(out.read_text())
    assert [run["not_clean"] for run in document["runs"]] == ["the engine ended early", None]
    assert {
        "stamp",
        "vllm",
        "model_name",
        "bundle_id",
        "scoring",
        "ratios",
        "ratio_ranges",
        "repetitions",
        "commits",
        "machines",
    } <= document.keys()
    assert len(engine.ran) == 2
    assert (seen[0].arms, seen[0].loads) == (("equal",), ("1.0",))
    assert "1.0 equal" in capsys.readouterr().out
    asked = ["ours" if flag == "equal" else flag for flag in flags]
    assert bench_vllm.main([*asked, "--asked-only"]) == 0
    assert [run["arm"] for run in json.loads(out.read_text())["runs"]] == ["ours"]
    assert bench_vllm.main(asked) == 0
    assert {run["arm"] for run in json.loads(out.read_text())["runs"]} == {"equal", "ours"}
    old = out.read_bytes()
    assert bench_vllm.main(["--out", str(out), "--requests", "21", "--budget-minutes", "0"]) == 1
    assert out.read_bytes() == old
    assert "has no run of these sources" in capsys.readouterr().err
    (tmp_path / "other.json").write_text('{"benchmark": "overhead"}')
    assert bench_vllm.main(["--out", str(out), "--reports", str(tmp_path / "other.json"), "--budget-minutes", "0"]) == 1
    assert "other.json is not a report of this benchmark" in capsys.readouterr().err
