"""From a report of bench_vllm to errors: the runs are simulated themselves here, so that what must be found is known."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_vllm.kept_runs import REPLACED, KeptRuns
from benchmarks.bench_vllm.requests import KEPT
from benchmarks.bench_vllm.site import what_scores
from benchmarks.replay import RecordsError, from_seed
from benchmarks.report import write_json
from benchmarks.simulator import __main__ as simulator
from benchmarks.simulator.arrivals import as_bench_serve
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.figures import simulated_figures
from benchmarks.simulator.fit import fitted_on
from benchmarks.simulator.fit_requests import around_times_ms, fit_requests
from benchmarks.simulator.hook import Hook
from benchmarks.simulator.rankers import oracle
from benchmarks.simulator.recorded import Sources, real_runs
from benchmarks.simulator.request import Outcome, Request
from benchmarks.simulator.simulate import Setup, simulate
from benchmarks.simulator.step_model import StepModel
from benchmarks.simulator.validation import COMPARED_FIGURES, errors_of, fitting_runs, summary_of, validated
from sidecar.bundle import open_bundle

REQUESTS, SLOTS, RATE = 120, 4, 3.3
AROUND_MS = 12.0
PADDED = StepModel(20.4)
PRICED = StepModel(9.0, per_sequence_ms=1.5, per_prefill_token_ms=0.2, per_context_token_ms=0.01)


def kept_of(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    """Without single tokens, as when they come several at a time."""
    return {
        "sent_s": [each.request.arrival_ms / 1000 for each in outcomes],
        "ttft_s": [(each.first_token_ms - each.request.arrival_ms) / 1000 for each in outcomes],
        "e2e_s": [(each.finished_ms - each.request.arrival_ms) / 1000 for each in outcomes],
        "gaps_s": [[]] * len(outcomes),
        "prompt_tokens": [each.request.prompt_tokens for each in outcomes],
        "output_tokens": [each.request.output_tokens for each in outcomes],
    }


def write_report(
    folder: Path, model: StepModel, arms: Sequence[str], repetitions: int, *, keeps: bool, rate: float = RATE
) -> Sources:
    """As bench_vllm writes it, of runs that the simulator made with `model`."""
    runs, replays = [], [from_seed(REQUESTS, seed) for seed in range(repetitions)]
    for number, replay in enumerate(replays):
        times_ms = as_bench_serve(REQUESTS, rate, number)
        prompts = np.random.default_rng(number).integers(5, 300, REQUESTS).tolist()
        requests = [
            Request(time, prompt_tokens, each.output_tokens)
            for time, prompt_tokens, each in zip(times_ms, prompts, replay.requests, strict=True)
        ]
        for arm in arms:
            hook = {"policy": "equal"} if arm == "equal" else {}
            setup = Setup(
                EngineSettings(SLOTS), model, hook=Hook(hook.get("policy", "ageing"), gate_in_flight=1), before_ms=AROUND_MS
            )
            run = simulate(setup, requests, oracle([each.output_tokens for each in requests]))
            figures = {**simulated_figures(run, model), "failed": 0}
            figures |= {"waiting_mean": figures["queue_mean"], "waiting_max": figures["queue_max"]}
            row = {
                "arm": arm,
                "load": "1.0",
                "repetition": number + 1,
                "date": f"day {number}",
                "hook": hook,
                "not_clean": None,
            }
            runs.append(row | {"figures": figures})
            if keeps:
                # The try that counts is not the only one.
                tries = [{"date": "the day before"}, row | {KEPT: kept_of(run.outcomes)}]
                write_json(folder / "runs" / f"{arm}-1.0-{number + 1}.json", {"key": "0123456789abcdef", "tries": tries})
    workloads = {
        f"1.0-{number + 1}": {
            "source": replay.source,
            "sha256": replay.sha256,
            "requests": REQUESTS,
            "vllm_bench_serve": f"--num-prompts 9 --request-rate {rate} --seed {number}",
        }
        for number, replay in enumerate(replays)
    }
    report = folder / "some_vllm.json"
    settings = {"max_num_seqs": SLOTS, "step_ms": 20.0}
    write_json(report, {"scoring": "abc", "settings": settings, "workloads": workloads, "runs": runs})
    return Sources(report, records=None, bundle=None, runs=[folder / "runs"])


def test_what_made_the_runs_is_found_in_their_figures(tmp_path: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["equal", "oracle"], 2, keeps=False)
    runs, left_out = real_runs(sources)
    assert (len(runs), left_out) == (4, {})
    fitted = fitted_on(runs)
    assert fitted.step_model.constant_ms == pytest.approx(PADDED.constant_ms, rel=5e-3)
    assert fitted.fitted_from == "figures"
    validation = validated(runs)
    assert {tuple(row["fitted_on"]) for row in validation["rows"]} == {
        ("some_vllm equal-1.0-1", "some_vllm oracle-1.0-1"),
        ("some_vllm equal-1.0-2", "some_vllm oracle-1.0-2"),
    }
    assert all(run.name not in row["fitted_on"] for run, row in zip(runs, validation["rows"], strict=True))
    # Prompts are guessed at two characters a token, and what lies around the engine is not in the figures: hence not quite 0.
    assert validation["summary"]["e2e_mean_s"]["largest"] < 0.02
    assert validation["summary"]["e2e_mean_s"]["within_target"] == 1.0


def test_what_made_the_runs_is_found_in_their_requests(tmp_path: Path) -> None:
    runs, _ = real_runs(write_report(tmp_path, PADDED, ["equal", "oracle"], 2, keeps=True))
    fitted = fitted_on(runs)
    assert fitted.step_model.step_ms(SLOTS, 0, 800) == pytest.approx(PADDED.constant_ms, rel=1e-3)
    summary = validated(runs)["summary"]
    assert summary["e2e_mean_s"]["largest"] < 0.01
    assert summary["queue_mean"]["largest"] < 0.02


def test_what_lies_around_the_engine_is_found_where_most_find_a_place(tmp_path: Path) -> None:
    """The median of 157 waits, each of them anywhere within a step of 20.4 ms, is off by 20.4 / 2 / √157 = 0.8 ms as a rule."""
    runs, _ = real_runs(write_report(tmp_path, PADDED, ["equal"], 2, keeps=True, rate=0.5))
    assert fitted_on(runs).around_ms == pytest.approx(AROUND_MS, abs=0.8)


def test_a_run_without_requests_changes_no_fit(tmp_path: Path) -> None:
    """One of four runs lost what it kept: 1. the fit is that of the other three 2. who is judged by it is judged by the other alone"""
    runs, _ = real_runs(write_report(tmp_path, PADDED, ["equal", "oracle"], 2, keeps=True))
    lost = dataclasses.replace(runs[1], kept=None)
    assert fitted_on([runs[0], lost, *runs[2:]]) == fitted_on([runs[0], *runs[2:]])
    row = validated([runs[0], lost, runs[2]])["rows"][2]
    assert row["fitted_on"] == ["some_vllm equal-1.0-1"]
    assert (row["fitted"], row["fitted"].fitted_from) == (fitted_on([runs[0]]), "requests")


def test_a_load_of_which_no_requests_were_kept_is_fitted_on_figures(tmp_path: Path) -> None:
    """1. steps whose length depends on their company, at a high and a low load 2. the low load's requests are lost: the fit is that of the
    figures of all, as if nobody had kept any"""
    crowded, _ = real_runs(write_report(tmp_path / "crowded", PRICED, ["equal"], 2, keeps=True))
    light = [
        dataclasses.replace(run, name=f"light {run.name}", load="0.3")
        for run in real_runs(write_report(tmp_path / "light", PRICED, ["equal"], 2, keeps=True, rate=0.5))[0]
    ]
    assert fitted_on([*crowded, *light]).fitted_from == "requests"
    lost = [dataclasses.replace(run, kept=None) for run in light]
    nobody = [dataclasses.replace(run, kept=None) for run in crowded] + lost
    assert fitted_on([*crowded, *lost]) == fitted_on(nobody)
    assert fitted_on([*crowded, *lost]).fitted_from == "figures"
    assert [each.name for each in fitting_runs(crowded[0], [*crowded, *lost])] == [crowded[1].name, lost[1].name]


def test_a_single_repetition_is_judged_by_its_other_runs(tmp_path: Path) -> None:
    runs, _ = real_runs(write_report(tmp_path, PADDED, ["equal", "oracle"], 1, keeps=True))
    assert [[each.name for each in fitting_runs(run, runs)] for run in runs] == [
        ["some_vllm oracle-1.0-1"],
        ["some_vllm equal-1.0-1"],
    ]
    assert validated(runs[:1])["left_out"] == {"some_vllm equal-1.0-1": "no other run to fit on"}
    assert validated(runs[:1])["summary"] == {}


def test_runs_that_cannot_be_rebuilt_are_left_out_and_named(tmp_path: Path, tiny_bundle: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["equal", "ours"], 1, keeps=False)
    document = json.loads(sources.report.read_text())
    document["runs"][0]["not_clean"] = "3 requests failed"
    write_json(sources.report, document)
    runs, left_out = real_runs(sources)
    assert runs == []
    assert left_out["some_vllm equal-1.0-1"] == "3 requests failed"
    assert "a bundle that says the same is not here" in left_out["some_vllm ours-1.0-1"]
    assert real_runs(dataclasses.replace(sources, bundle=tiny_bundle)) == (runs, left_out)


def test_a_bundle_that_says_the_same_is_asked_again(tmp_path: Path, tiny_bundle: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["ours"], 1, keeps=False)
    document = json.loads(sources.report.read_text())
    write_json(sources.report, {**document, "scoring": what_scores(open_bundle(tiny_bundle).manifest)})
    (run,), left_out = real_runs(dataclasses.replace(sources, bundle=tiny_bundle))
    assert left_out == {}
    assert run.estimates is not None
    assert len(run.estimates) == REQUESTS
    assert len({each.quantile for each in run.estimates}) > REQUESTS / 10


def test_a_run_that_was_made_again_is_not_left_out(tmp_path: Path) -> None:
    """Two tries of it are in the report, the first one not clean: 1. the second counts 2. nothing is missing."""
    sources = write_report(tmp_path, PADDED, ["equal"], 1, keeps=True)
    document = json.loads(sources.report.read_text())
    (second,) = document["runs"]
    document["runs"] = [{**second, "date": "the day before", "not_clean": "3 requests failed"}, second]
    write_json(sources.report, document)
    runs, left_out = real_runs(sources)
    assert ([run.name for run in runs], left_out) == (["some_vllm equal-1.0-1"], {})


@pytest.mark.parametrize(
    ("outcomes", "left_out"),
    [
        ({"equal_policy": 120}, {}),
        ({"gated": 60, "scored": 58, "deadline": 2}, {}),
        ({"gated": 60, "scored": 50, "deadline": 10}, {"some_vllm oracle-1.0-1"}),
        ({"overloaded": 120}, {"some_vllm oracle-1.0-1"}),
    ],
)
def test_a_run_whose_scores_came_too_late_is_left_out(tmp_path: Path, outcomes: dict[str, int], left_out: set[str]) -> None:
    sources = write_report(tmp_path, PADDED, ["oracle"], 1, keeps=True)
    document = json.loads(sources.report.read_text())
    document["runs"][0]["hook_outcomes"] = outcomes
    write_json(sources.report, document)
    assert real_runs(sources)[1].keys() == set(left_out)


def test_a_burst_is_there_at_once_and_a_window_is_the_runs_own(tmp_path: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["oracle"], 1, keeps=True)
    document = json.loads(sources.report.read_text())
    document["workloads"]["1.0-1"]["vllm_bench_serve"] = "--request-rate inf --seed 0"
    document["runs"][0]["hook"] = {"window_ms": "5000"}
    write_json(sources.report, document)
    (run,), _ = real_runs(sources)
    assert {request.arrival_ms for request in run.requests} == {0.0}
    assert run.setup.hook.settings.window_ms == 5000


def test_a_run_of_the_same_name_but_another_day_is_not_taken(tmp_path: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["equal"], 1, keeps=True)
    document = json.loads(sources.report.read_text())
    document["runs"][0]["date"] = "another day"
    write_json(sources.report, document)
    assert real_runs(sources)[0][0].kept is None


def test_a_run_that_was_replaced_since_is_found(tmp_path: Path) -> None:
    """1. the report's run is put aside, and another one of its name takes its place 2. what the report's run kept is taken."""
    sources = write_report(tmp_path, PADDED, ["equal"], 1, keeps=True)
    before = real_runs(sources)[0]
    kept = KeptRuns(tmp_path / "runs")
    kept.add("equal-1.0-1", {"sources": "of tomorrow"}, {"date": "tomorrow", KEPT: {}})
    assert (tmp_path / "runs" / REPLACED / "equal-1.0-1.0123456789ab.json").exists()
    assert real_runs(sources)[0] == before


def test_other_requests_than_those_replayed_are_an_error(tmp_path: Path) -> None:
    sources = write_report(tmp_path, PADDED, ["equal"], 1, keeps=False)
    document = json.loads(sources.report.read_text())
    document["workloads"]["1.0-1"]["sha256"] = "0" * 64
    write_json(sources.report, document)
    with pytest.raises(RecordsError, match="not what was replayed, which was built-in generator, seed 0"):
        real_runs(sources)


def test_what_a_ranker_said_then_counts(tmp_path: Path) -> None:
    """Of an arm whose ranker is asked: kept estimates are taken as they are, without a bundle."""
    sources = write_report(tmp_path, PADDED, ["ours"], 1, keeps=True)
    path = tmp_path / "runs" / "ours-1.0-1.json"
    document = json.loads(path.read_text())
    said = {"quantile": [0.25] * REQUESTS, "expected_tokens": [9.0] * REQUESTS, "expected_tokens_p90": [20.0] * REQUESTS}
    document["tries"][-1][KEPT] |= said
    write_json(path, document)
    report = json.loads(sources.report.read_text())
    report["runs"][0]["figures"]["hook_ask_mean_ms"] = 33.0
    write_json(sources.report, report)
    run = real_runs(sources)[0][0]
    assert run.estimates is not None
    assert {(each.quantile, each.expected_tokens, each.p90_tokens) for each in run.estimates} == {(0.25, 9.0, 20.0)}
    assert run.setup.hook == Hook("ageing", gate_in_flight=1, ask_ms=33.0)


def test_errors_are_relative_and_summed_up() -> None:
    real = dict.fromkeys(COMPARED_FIGURES, 10.0)
    errors = [errors_of(real, {**real, "e2e_mean_s": value}) for value in (9.5, 12.0, 10.0)]
    assert [row["e2e_mean_s"] for row in errors] == pytest.approx([-0.05, 0.2, 0.0])
    assert summary_of(errors)["e2e_mean_s"] == pytest.approx({"median": 0.05, "largest": 0.2, "within_target": 2 / 3})
    assert summary_of(errors)["duration_s"] == {"median": 0.0, "largest": 0.0, "within_target": 1.0}


def test_queues_are_compared_where_there_was_one() -> None:
    """Of three real runs one had no queue, and one is from before anybody looked."""
    same = dict.fromkeys(COMPARED_FIGURES, 10.0)
    simulated = same | {"queue_mean": 4.4, "queue_max": 9}
    queues = [{"queue_mean": 4.0, "queue_max": 9}, {"queue_mean": 0.0, "queue_max": 0}, {"queue_mean": None, "queue_max": None}]
    errors = [errors_of(same | queue, simulated) for queue in queues]
    assert [row.get("queue_mean") for row in errors] == [pytest.approx(0.1), None, None]
    assert summary_of(errors)["queue_max"] == {"median": 0.0, "largest": 0.0, "within_target": 1.0}
    assert "queue_mean" not in summary_of(errors[1:])


def stepped(model: StepModel, count: int, slots: int, late_ms: float) -> dict[str, list[Any]]:
    """Requests one after the other on an engine that is never empty, as its clients see them: every token up to `late_ms` late, and
    before the first one, at the same time, a chunk that has none."""
    rng = np.random.default_rng(7)
    prompts, outputs = rng.integers(5, 300, count).tolist(), rng.integers(1, 120, count).tolist()
    tokens: list[list[float]] = [[] for _ in range(count)]
    now_ms, waiting, running = 0.0, list(range(count)), list[int]()
    while waiting or running:
        decoding = list(running)
        read = [waiting.pop(0) for _ in range(min(rng.integers(0, 3), slots - len(running), len(waiting)))]
        running += read
        context = sum(prompts[each] + len(tokens[each]) for each in decoding)
        now_ms += model.step_ms(len(running), sum(prompts[each] for each in read), context)
        for each in running:
            tokens[each].append(now_ms + late_ms * rng.random())
        running = [each for each in running if len(tokens[each]) < outputs[each]]
    return {
        "sent_s": [0.0] * count,
        "ttft_s": [each[0] / 1000 for each in tokens],
        "e2e_s": [each[-1] / 1000 for each in tokens],
        "gaps_s": [(np.diff(each, prepend=each[0]) / 1000).tolist() for each in tokens],
        "prompt_tokens": prompts,
        "output_tokens": outputs,
    }


@pytest.mark.parametrize(("late_ms", "within"), [(0.0, 1e-3), (2.0, 0.05)], ids=["on time", "a little late"])
def test_the_regression_finds_every_part_of_a_step(late_ms: float, within: float) -> None:
    found = fit_requests([stepped(PRICED, 200, SLOTS, late_ms), stepped(PRICED, 50, 2 * SLOTS, late_ms)])
    for part, true in zip(dataclasses.astuple(found), dataclasses.astuple(PRICED), strict=True):
        assert part == pytest.approx(true, rel=within)


def test_what_lies_around_the_engine_is_seen_by_who_finds_a_place() -> None:
    """Of three the second finds one other there and a place beside it: 40 ms, of which a step of 16 and half of one of 12.5 are the
    engine's. The first has no step to wait for, the third no place."""
    kept = {
        "sent_s": [0.0, 0.1, 0.2],
        "ttft_s": [0.030, 0.040, 0.900],
        "e2e_s": [1.0, 1.0, 1.0],
        "gaps_s": [[]] * 3,
        "prompt_tokens": [10, 10, 10],
        "output_tokens": [9, 9, 9],
    }
    assert around_times_ms(kept, 2, StepModel(10.0, 2.5, 0.1)) == pytest.approx([40 - 16 - 12.5 / 2])


# --- from the command line


def test_validate_and_study_write_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1. validate 2. a study: both parts are there 3. another study: so is the first 4. what cannot be read says so, and writes nothing"""
    sources = write_report(tmp_path, PADDED, ["equal", "oracle"], 1, keeps=True)
    out = tmp_path / "out.json"
    flags = ["--real", str(sources.report), "--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert simulator.main(["validate", *flags]) == 0
    assert simulator.main(["study", "--requests", "60", "--studies", "orders,fleets", "--seeds", "2", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["benchmark"] == "simulator"
    assert len(document["validation"]["rows"]) == 2
    assert document["validation"]["stamp"]["command"].startswith("python -m benchmarks.simulator validate --real")
    assert list(document["studies"]) == ["orders", "fleets"]
    rows = [row for study in document["studies"].values() for row in study["workloads"]["made up"]["rows"]]
    assert len(rows) == 11 + 6
    assert all(row["simulated"] is True for row in rows)
    assert rows[0]["ratios_to_first_come"]["e2e_mean_s"] == 1.0
    assert simulator.main(["study", "--requests", "60", "--studies", "windows", "--out", str(out)]) == 0
    assert list(json.loads(out.read_text())["studies"]) == ["orders", "fleets", "windows"]
    assert "simulated: orders, made up" in capsys.readouterr().out

    shutil.copy(out, tmp_path / "before.json")
    assert simulator.main(["validate", "--real", str(tmp_path / "none.json"), "--out", str(out)]) == 1
    assert "simulator: " in capsys.readouterr().err
    assert out.read_text() == (tmp_path / "before.json").read_text()
