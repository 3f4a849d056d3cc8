"""Calls that come when they are due: when that is, and that nothing holds them back."""

import itertools
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from http_peer import TinyServer, scored

from benchmarks.jobs import HttpJob
from benchmarks.open_loop import due_times_s, start_on_time
from benchmarks.peers import caller
from benchmarks.peers.caller import HttpCaller

RATE, SECONDS, SEED = 200.0, 0.05, 3


def test_arrivals_are_those_of_the_seed_and_as_many_as_asked_for() -> None:
    due_s = list(due_times_s(100.0, 100.0, seed=1))
    assert due_s == sorted(due_s) == list(due_times_s(100.0, 100.0, seed=1))
    assert due_s != list(due_times_s(100.0, 100.0, seed=2))
    assert 0 < due_s[0] < due_s[-1] < 100.0
    assert len(due_s) == pytest.approx(10_000, rel=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due_s)]
    # Of independent arrivals: 1 - 1/e of the gaps are shorter than the mean.
    assert sum(gap < 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.03)


async def test_nothing_starts_before_it_is_due() -> None:
    began_s = time.monotonic()
    early: list[bool] = []

    async def call(due_s: float) -> None:
        early.append(time.monotonic() < began_s + due_s)

    for task in await start_on_time(began_s, RATE, SECONDS, SEED, call):
        await task
    assert len(early) == len(list(due_times_s(RATE, SECONDS, SEED)))
    assert not any(early)


def test_calls_do_not_wait_for_the_answers_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers nobody before all are there; each call counts from when it was due."""
    clock = itertools.chain([10.0], itertools.repeat(20.0))
    monkeypatch.setattr(caller, "time", SimpleNamespace(monotonic=lambda: next(clock), process_time=time.process_time))
    expected = [10.0 + due_s for due_s in due_times_s(RATE, SECONDS, SEED)]
    everybody = threading.Barrier(len(expected), timeout=10)

    def answer(prompts: list[str]) -> tuple[int, Any]:
        everybody.wait()
        return scored(prompts)

    server = TinyServer(answer)
    job = HttpJob(server.url, "reference", 0, 1, 10.0, 10.0 + SECONDS, SEED, calls_per_s=RATE)
    with server.running():
        recording = HttpCaller(["a", "b"]).do(job)
    assert not recording.failures
    assert sorted(call.began_s for call in recording.calls) == pytest.approx(expected)
    assert {call.ended_s for call in recording.calls} == {20.0}
