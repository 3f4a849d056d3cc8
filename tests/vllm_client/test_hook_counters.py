"""Counts, the line in the log, and what Prometheus sees of them. The latter in processes of their own: metrics are global."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

import vllm_client
from vllm_client.hook.counters import RECENT_ASKS, Counters
from vllm_client.hook.decision import Outcome

ROOT = Path(vllm_client.__file__).parent.parent


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def counters(clock: Clock, **options) -> Counters:
    return Counters(logger=logging.getLogger("hook.under.test"), monotonic_s=clock, **options)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "hook.under.test")
    return lambda: [record.getMessage() for record in caplog.records]


def test_every_outcome_is_there_from_the_start(clock):
    counted = counters(clock)
    assert counted.counts == dict.fromkeys(Outcome, 0)
    counted.count(Outcome.GATED)
    counted.count(Outcome.GATED)
    assert counted.counts == {**dict.fromkeys(Outcome, 0), Outcome.GATED: 2}


def test_the_line_says_what_was_counted_since_the_last_one(clock, lines):
    counted = counters(clock)
    for outcome, count in ((Outcome.SCORED, 1100), (Outcome.GATED, 90), (Outcome.DEADLINE, 13)):
        for _ in range(count):
            counted.count(outcome)
    for thousandth in range(100):
        counted.observe_ask_s(thousandth / 1000)
    assert lines() == []
    clock.now_s += 60.4
    counted.count(Outcome.DEADLINE)
    assert lines() == [
        "PARS hook, last 60 s: 1,204 requests: 1,100 scored, 90 gated, 14 deadline; ask p50 50.0 ms, p99 99.0 ms"
    ]
    counted.count(Outcome.GATED)
    clock.now_s += 60
    counted.count(Outcome.GATED)
    assert lines()[1:] == ["PARS hook, last 60 s: 2 requests: 2 gated"]


def test_one_line_an_interval_however_much_is_counted(clock, lines):
    counted = counters(clock, log_interval_s=10)
    for _ in range(1000):
        counted.count(Outcome.SCORED)
        clock.now_s += 0.1
    assert 8 <= len(lines()) <= 10


def test_counts_before_a_silence_come_out_with_the_next_request(clock, lines):
    counted = counters(clock)
    counted.count(Outcome.SCORED)
    clock.now_s += 3600
    assert lines() == []
    counted.count(Outcome.GATED)
    assert lines() == ["PARS hook, last 3,600 s: 2 requests: 1 scored, 1 gated"]


def test_an_interval_of_zero_means_no_lines(clock, lines):
    counted = counters(clock, log_interval_s=0)
    for _ in range(3):
        counted.count(Outcome.SCORED)
        clock.now_s += 1000
    assert lines() == []


def test_the_percentiles_are_of_the_latest_asks_and_no_more_are_kept(clock, lines):
    counted = counters(clock)
    counted.count(Outcome.SCORED)
    for seconds in [9.0] * 5000 + [0.002] * RECENT_ASKS:
        counted.observe_ask_s(seconds)
    assert len(counted._recent_asks_s) == RECENT_ASKS
    clock.now_s += 60
    counted.count(Outcome.SCORED)
    assert lines()[0].endswith("ask p50 2.0 ms, p99 2.0 ms")


BEGIN = """
import json, logging, os, sys
logging.basicConfig(stream=sys.stderr)
from vllm_client.hook.counters import Counters
from vllm_client.hook.decision import Outcome
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in a fresh interpreter that sees the same packages."""
    paths = json.dumps([str(ROOT), *sys.path])
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{BEGIN}{code}"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result


def test_prometheus_sees_the_sums_of_all_hooks_of_a_process():
    samples = json.loads(
        run("""
from prometheus_client import REGISTRY
first, second = Counters(), Counters()
for hook in (first, second, second):
    hook.count(Outcome.SCORED)
    hook.observe_ask_s(0.004)
first.set_gauge("in_flight", 3); first.set_gauge("in_flight", 2); second.set_gauge("in_flight", 5)
for hook in (first, second):
    hook.set_gauge("connected", 1)
    hook.set_gauge("connected", 1)
second.set_gauge("connected", 0)
first.set_gauge("backlog_seconds", 9.5); first.set_gauge("backlog_seconds", 2.5)
print(json.dumps([
    [sample.name, sample.labels, sample.value]
    for metric in REGISTRY.collect() if metric.name.startswith("pars_hook") for sample in metric.samples
]))
""").stdout
    )
    counts = {labels["outcome"]: value for name, labels, value in samples if name == "pars_hook_requests_total"}
    assert counts == {**{outcome.value: 0 for outcome in Outcome}, "scored": 3}
    gauges = {name: value for name, labels, value in samples if not labels}
    assert gauges["pars_hook_in_flight"] == 7
    assert gauges["pars_hook_backlog_seconds"] == 2.5
    assert gauges["pars_hook_connected"] == 1
    assert gauges["pars_hook_breaker_open"] == gauges["pars_hook_shadow"] == 0
    assert gauges["pars_hook_ask_seconds_count"] == 3
    buckets = {labels["le"]: value for name, labels, value in samples if name == "pars_hook_ask_seconds_bucket"}
    assert buckets["0.0005"] == buckets["0.003"] == 0
    assert buckets["0.005"] == buckets["0.1"] == buckets["+Inf"] == 3


def test_prometheus_sums_over_the_processes_of_a_server_and_forgets_the_gauges_of_dead_ones(tmp_path):
    work = """
hook = Counters()
hook.count(Outcome.GATED)
hook.set_gauge("in_flight", 4)
hook.set_gauge("backlog_seconds", {backlog_s})
hook.observe_ask_s(0.02)
print(os.getpid())
"""
    first, _ = (run(work.format(backlog_s=each), PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout for each in (7, 5))
    collect = f"""
from prometheus_client import CollectorRegistry, multiprocess
def shown():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    gated = registry.get_sample_value("pars_hook_requests_total", {{"outcome": "gated"}})
    asks = registry.get_sample_value("pars_hook_ask_seconds_count")
    return [gated, asks, *map(registry.get_sample_value, ("pars_hook_in_flight", "pars_hook_backlog_seconds"))]
before = shown()
multiprocess.mark_process_dead({int(first)})
print(json.dumps([before, shown()]))
"""
    assert json.loads(run(collect, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout) == [[2, 2, 8, 7], [2, 2, 4, 5]]


def test_without_prometheus_it_counts_all_the_same():
    result = run("""
sys.modules["prometheus_client"] = None
hook = Counters()
hook.count(Outcome.GATED); hook.observe_ask_s(1.0); hook.set_gauge("connected", 1)
print(hook.counts[Outcome.GATED])
""")
    assert result.stdout == "1\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("trouble", "environment", "why"),
    [
        pytest.param("", {"PROMETHEUS_MULTIPROC_DIR": "/nonexistent/folder"}, "FileNotFoundError", id="no metrics folder"),
        pytest.param(
            "import prometheus_client; prometheus_client.Gauge('pars_hook_shadow', 'not ours')\n",
            {},
            "Duplicated timeseries",
            id="a name that is taken",
        ),
    ],
)
def test_where_prometheus_refuses_it_says_so_and_counts_all_the_same(trouble, environment, why):
    code = trouble + "hook = Counters()\nhook.count(Outcome.GATED)\nprint(hook.counts[Outcome.GATED])"
    result = run(code, **environment)
    assert result.stdout == "1\n"
    assert "nothing is exported to Prometheus" in result.stderr
    assert why in result.stderr
