"""The benchmarks on a real vLLM, all that needs none: what is replayed, who ranks, how steps are padded, how figures are made."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from benchmarks import bench_hook, bench_vllm, vllm_pacing
from benchmarks.bench_hook import CASES, FROZEN, Case, case_row
from benchmarks.kept_runs import KeptRuns
from benchmarks.oracle_ranker import quantiles_of, recorded, shuffled
from benchmarks.process import ProcessError
from benchmarks.replay import RecordsError, Replay, Request, from_records, from_seed, read_workload
from benchmarks.tiny_llama import make_model
from benchmarks.vllm_arms import ARMS, oracle
from benchmarks.vllm_bench_serve import Load, bench_flags
from benchmarks.vllm_figures import BASELINE, arm_summary, arms_table, figures_of, ratios_to_baseline
from benchmarks.vllm_latency import VARIANTS, WITHOUT, latency_summary, latency_table, start_figures
from benchmarks.vllm_metrics import by_label, difference, parse_metrics, total
from benchmarks.vllm_process import VllmInstallation, chat_body, descendants, serve_flags
from vllm_client import ClientConfig, HookSettings, InvalidPromptsError, RankerClient
from vllm_client.hook.decision import Outcome
from vllm_client.hook.link import PROBE
from vllm_client.hook.settings import ENV_PREFIX

DEADLINE_MS = 20_000.0


# --- what is replayed


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_records_that_cannot_be_replayed_are_left_out(tmp_path: Path) -> None:
    rows = [(f"prompt {n}", n) for n in range(1, 9)]
    rows += [("too long\n" * 1000, 5), ("nothing", 0), ("endless", 5000), (" ", 5), ("prompt 1", 77)]
    named = [{"prompt": prompt, "response_tokens": tokens} for prompt, tokens in rows]
    replay = from_records(jsonl(tmp_path / "some.jsonl", *named, {"prompt": "unknown", "response_tokens": None}), 8, seed=3)
    assert {(each.prompt, each.output_tokens) for each in replay.requests} == {(f"prompt {n}", n) for n in range(1, 9)}
    assert replay.source == "some.jsonl, seed 3"
    assert replay.mean_output_tokens == 4.5


def test_both_kinds_of_files_give_the_same_replay(tmp_path: Path) -> None:
    columns = {"prompt": [f"Grüße {n}" for n in range(20)], "response_tokens": list(range(1, 21))}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "r.parquet")
    rows = [{"prompt": prompt, "response_tokens": tokens} for prompt, tokens in zip(*columns.values(), strict=True)]
    one = from_records(tmp_path / "r.parquet", 10, seed=1)
    assert one.requests == from_records(jsonl(tmp_path / "r.jsonl", *rows), 10, seed=1).requests
    assert one.sha256 == from_records(tmp_path / "r.parquet", 10, seed=1).sha256
    assert one.sha256 != from_records(tmp_path / "r.parquet", 10, seed=2).sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "response_tokens": 3}\n', "1 usable records, 2 are wanted"),
        ('{"prompt": "a"}\n', "no records with prompt and response_tokens"),
        ("not json\n", "no records with prompt and response_tokens"),
        (None, "no records with prompt and response_tokens"),
    ],
    ids=["too few", "no lengths", "no JSON", "no file"],
)
def test_unusable_records_are_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordsError, match=message):
        from_records(path, 2, seed=0)


def test_made_up_requests_are_all_different_and_fit(tmp_path: Path) -> None:
    replay = from_seed(200, seed=4)
    assert len({each.prompt for each in replay.requests}) == 200
    assert all(1 <= each.output_tokens <= 1000 for each in replay.requests)
    assert replay == from_seed(200, seed=4)
    replay.write(tmp_path / "w.jsonl")
    assert tuple(read_workload(tmp_path / "w.jsonl")) == replay.requests


# --- who ranks


def test_quantiles_count_the_shorter_ones() -> None:
    assert quantiles_of([30, 10, 20, 20]) == [7 / 8, 1 / 8, 4 / 8, 4 / 8]


def test_dealing_out_anew_changes_whose_length_it_is_and_nothing_else() -> None:
    lengths = {f"prompt {n}": n for n in range(50)}
    dealt = shuffled(lengths, seed=1)
    assert list(dealt) == list(lengths)
    assert sorted(dealt.values()) == sorted(lengths.values())
    assert dealt != lengths


def test_the_oracle_serves_like_the_sidecar(tmp_path: Path) -> None:
    """1. it knows the workload 2. a hook's probe is answered 3. any other prompt is refused."""
    long = "very long " * 150
    replay = Replay((Request("short", 5), Request("middling", 50), Request(long, 500)), "test")
    replay.write(tmp_path / "w.jsonl")
    address = f"unix:{tmp_path}/oracle.sock"
    with (
        oracle(address, "--workload", str(tmp_path / "w.jsonl")),
        RankerClient(ClientConfig(address=address, deadline_ms=DEADLINE_MS)) as client,
    ):
        scores = client.score(["short", "middling", long]).scores
        assert [score.quantile for score in scores] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
        assert [score.expected_tokens for score in scores] == [5, 50, 500]
        assert client.score([PROBE]).scores[0].quantile == 0.5
        with pytest.raises(InvalidPromptsError):
            client.score(["short", "unheard of"])
        assert client.get_bundle().manifest.bundle_id == "oracle"


def test_a_workload_that_holds_the_probe_keeps_its_length() -> None:
    known = recorded({PROBE: 900, "other": 1})
    score = known(PROBE)
    assert score is not None
    assert score.expected_tokens == 900


def test_every_arm_is_a_setting_that_the_hook_takes() -> None:
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names)
    assert BASELINE in names
    for arm in ARMS:
        HookSettings.from_environment({ENV_PREFIX + name.upper(): value for name, value in arm.hook.items()})
    for variant in VARIANTS:
        HookSettings.from_environment({ENV_PREFIX + name.upper(): value for name, value in (variant.hook or {}).items()})


# --- padded steps


class Clock:
    """Time that only passes when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(vllm_pacing, "time", made)
    return made


def paced_step(clock: Clock, step_s: float) -> Callable[[float], float]:
    """A step of a paced worker: seconds of work → when it ended."""

    class Wrapper:
        worker = SimpleNamespace(sample_tokens=lambda grammar: f"sampled {grammar}")

        def execute_model(self, work_s: float) -> str:
            clock.now_s += work_s
            return "executed"

    vllm_pacing.pace(Wrapper, step_s)
    wrapper: Any = Wrapper()

    def step(work_s: float) -> float:
        assert wrapper.execute_model(work_s) == "executed"
        assert wrapper.sample_tokens("grammar") == "sampled grammar"
        return clock.now_s

    return step


def test_steps_follow_each_other_at_the_padded_rate(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    assert step(0.003) == pytest.approx(100.020)
    clock.now_s += 0.002  # between two steps
    assert step(0.003) == pytest.approx(100.040)
    clock.now_s += 0.004
    assert step(0.015) == pytest.approx(100.060)


def test_a_step_after_a_pause_is_a_whole_one(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    step(0.003)
    clock.now_s += 5.0
    assert step(0.001) == pytest.approx(105.040)


def test_a_step_that_takes_longer_is_not_made_up_for(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    assert step(0.050) == pytest.approx(100.050)
    assert step(0.001) == pytest.approx(100.070)


def test_no_padding_takes_no_time(clock: Clock) -> None:
    step = paced_step(clock, 0.0)
    assert step(0.003) == pytest.approx(100.003)
    assert step(0.004) == pytest.approx(100.007)


def test_the_plugin_is_found_in_its_folder_and_installs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WorkerWrapperBase:
        def execute_model(self) -> str:
            return "executed"

    shared_memory = SimpleNamespace(sched_yield=None)
    monkeypatch.setitem(sys.modules, "vllm.distributed.device_communicators.shm_broadcast", shared_memory)
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.worker_base", SimpleNamespace(WorkerWrapperBase=WorkerWrapperBase))
    monkeypatch.setenv(vllm_pacing.STEP_VARIABLE, "20")
    folder = vllm_pacing.plugin_folder(tmp_path / "plugin")
    monkeypatch.syspath_prepend(folder)
    (found,) = importlib.metadata.entry_points(group="vllm.general_plugins", name=vllm_pacing.MODULE)
    install = found.load()
    install()
    wrapped = WorkerWrapperBase.execute_model
    install()
    assert WorkerWrapperBase.execute_model is wrapped
    assert shared_memory.sched_yield is not None


# --- processes


def test_the_model_is_made_twice_the_same_way(tmp_path: Path) -> None:
    one, other = make_model(tmp_path / "one"), make_model(tmp_path / "other")
    assert json.loads((one / "config.json").read_text())["vocab_size"] == 2048
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_what_a_process_started_is_known() -> None:
    script = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); sys.stdin.read(); c.kill()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert descendants(parent.pid) == [child]
        assert child in descendants(os.getpid())
        parent.communicate("", timeout=20)


def test_the_shells_settings_of_the_hook_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARS_HOOK_POLICY", "equal")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    environment = VllmInstallation(tmp_path, tmp_path, tmp_path / "plugin", 20.0).environment()
    assert not [name for name in environment if name.startswith(ENV_PREFIX)]
    assert environment["PYTHONPATH"] == f"{tmp_path}/plugin{os.pathsep}/ours"
    assert environment[vllm_pacing.STEP_VARIABLE] == "20.0"


def test_an_environment_without_vllm_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="make vllm-env"):
        VllmInstallation(tmp_path / "bin", tmp_path, tmp_path, 0.0).versions()
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to("/bin/false")
    with pytest.raises(ProcessError, match="make vllm-env"):
        VllmInstallation(folder, tmp_path, tmp_path, 0.0).versions()


def test_the_benchmark_ends_where_there_is_no_vllm(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vllm.json"
    flags = ["--out", str(out), "--bundle", str(tiny_bundle), "--vllm-bin", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert bench_vllm.main([*flags, "--smoke"]) == 1
    assert "make vllm-env" in capsys.readouterr().err
    assert not out.exists()


def test_only_servers_with_the_hook_have_the_middleware() -> None:
    bare, hooked = serve_flags(8, has_hook=False), serve_flags(8, has_hook=True)
    assert hooked == [*bare, "--middleware", "vllm_client.PriorityMiddleware"]
    assert bare[bare.index("--scheduling-policy") + 1] == "priority"


def test_recorded_lengths_are_asked_for_unless_one_is_given() -> None:
    replay = from_seed(4, seed=0)
    recorded_lengths, one_length = bench_flags(Load(replay, 4, 2.5, 7)), bench_flags(Load(replay, 4, float("inf"), 7, 120))
    assert recorded_lengths[recorded_lengths.index("--custom-output-len") + 1] == "-1"
    assert one_length[one_length.index("--custom-output-len") + 1] == "120"
    assert one_length[one_length.index("--request-rate") + 1] == "inf"
    assert json.loads(chat_body("Hé", 3))["messages"] == [{"role": "user", "content": "Hé"}]


# --- figures

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


def run_of(arm: str, repetition: int, e2e_s: float, *, failed: int = 0) -> dict[str, Any]:
    return {"arm": arm, "repetition": repetition, "figures": figures_of(result((0.5, e2e_s, 11), failed=failed))}


def test_a_run_with_failures_is_marked_and_used_for_nothing() -> None:
    runs = [run_of("ours", 1, 2.0), run_of("ours", 2, 4.0), run_of("ours", 3, 900.0, failed=1)]
    summary = arm_summary(runs)
    assert (summary["engine_starts"], summary["clean_engine_starts"], summary["failed_requests"]) == (3, 2, 1)
    assert summary["e2e_mean_s"] == [3.0, 2.0, 4.0]
    assert arms_table({"ours": summary})[1].split()[-1] == "1"
    assert "e2e_mean_s" not in arm_summary([run_of("ours", 1, 2.0, failed=1)])


def test_ratios_are_taken_within_a_repetition() -> None:
    runs = [run_of("equal", 1, 10.0), run_of("ours", 1, 5.0), run_of("equal", 2, 4.0), run_of("ours", 2, 3.0)]
    runs += [run_of("ours", 3, 1.0), run_of("equal", 3, 1.0, failed=1)]
    ratios = ratios_to_baseline(runs)
    assert ratios.keys() == {"ours"}
    assert ratios["ours"]["e2e_mean_s"] == pytest.approx((0.625, 0.5, 0.75))


def test_added_latency_is_the_difference_within_a_round() -> None:
    times = {WITHOUT: [10.0, 50.0, 30.0], "gated": [11.0, 50.5, 36.0]}
    figures = start_figures(times)
    assert figures["rounds"] == 3
    assert figures["e2e_ms"][WITHOUT]["p50"] == 30.0
    assert figures["added_ms"] == {"gated": {"p25": 0.75, "p50": 1.0, "p75": 3.5}}
    summary = latency_summary([figures, start_figures({WITHOUT: [10.0], "gated": [13.0]})])
    assert summary["added_ms"]["gated"] == (2.0, 1.0, 3.0)
    assert len(latency_table(summary)) == 3


def test_a_finished_run_is_kept_until_something_it_depends_on_changes(tmp_path: Path) -> None:
    kept, measured = KeptRuns(tmp_path / "runs"), []

    def measure() -> dict[str, Any]:
        measured.append(1)
        return {"value": 1 / 3, "number": len(measured)}

    first = kept.get("a-1", {"rate": 1.0, "arm": ARMS[0]}, measure)
    assert first == {"value": 0.33333, "number": 1}
    assert kept.get("a-1", {"rate": 1.0, "arm": ARMS[0]}, measure) == first
    assert kept.get("a-1", {"rate": 2.0, "arm": ARMS[0]}, measure)["number"] == 2
    assert kept.get("a-2", {"rate": 2.0, "arm": ARMS[0]}, measure)["number"] == 3


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> dict[str, Any]:
        raise ProcessError("the engine ended early")

    kept = KeptRuns(tmp_path)
    with pytest.raises(ProcessError):
        kept.get("a-1", {}, interrupted)
    assert kept.get("a-1", {}, lambda: {"value": 1}) == {"value": 1}


# --- the hook's own cost


def answer(*wall_us: int, outcomes: dict[str, int] | None = None) -> dict[str, Any]:
    walls = [1000 * each for each in wall_us]
    return {"wall_ns": walls, "wall_s": sum(walls) / 1e9, "cpu_s": sum(walls) / 1e9, "outcomes": outcomes or {}}


def test_what_the_hook_adds_is_taken_within_rounds() -> None:
    case = Case("gated", "gated", {})
    row = case_row(
        case, [answer(40, 60, outcomes={"gated": 2}), answer(90, 90, outcomes={"gated": 2})], [answer(10), answer(20)]
    )
    assert row["wall_p50_us"] == (70, 50, 90)
    assert row["added_wall_p50_us"] == (55, 40, 70)
    assert row["added_cpu_us"] == pytest.approx((55, 40, 70))
    assert (row["requests"], row["unexpected"], row["outcomes"]) == (4, 0, {"gated": 4})


def test_a_case_that_measured_something_else_is_marked() -> None:
    row = case_row(Case("scored", "scored", {}), [answer(40, 60, outcomes={"scored": 1, "deadline": 1})], [answer(10)])
    assert row["unexpected"] == 1


def test_the_hook_benchmark_runs_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hook.json"
    code = bench_hook.main(["--out", str(out), "--smoke"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    report = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"]}
    assert rows.keys() == {case.name for case in (*CASES, FROZEN)}
    assert rows["scored"]["outcomes"] == {"scored": bench_hook.SMOKE_REQUESTS}
    assert rows["scored_64kb"]["added_cpu_us"][0] > 0
    assert rows["frozen"]["outcomes"].keys() <= {
        each.value for each in (Outcome.DEADLINE, Outcome.BREAKER_OPEN, Outcome.UNCONNECTED)
    }
    assert report["stamp"]["command"].endswith("--smoke")
