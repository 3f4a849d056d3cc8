"""The HTTP caller and the comparison of scores, against a server that answers as each test wants."""

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from http_peer import TinyServer, score_of, scored

from benchmarks.jobs import HttpJob
from benchmarks.measurement import Recording, measure
from benchmarks.peers import caller
from benchmarks.peers.caller import HttpCaller
from benchmarks.peers.registry import PEERS, PeerError
from benchmarks.peers.same_scores import CALLERS, largest_difference

PROMPTS = ["x" * length for length in range(1, 33)]
REFERENCE = PEERS["reference"]

TICK_S = 0.01


class Clock:
    """Moves on by a tick whenever it is looked at, so that a job is over after so many calls and not after so long a time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += TICK_S
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(caller, "time", SimpleNamespace(monotonic=made.monotonic, process_time=time.process_time))
    return made


def do(server: TinyServer, *, callers: int = 1, prompts_per_call: int = 1, ticks: float, first_prompt: int = 0) -> Recording:
    job = HttpJob(server.url, "reference", callers, prompts_per_call, 0.0, ticks * TICK_S, first_prompt)
    with server.running():
        return HttpCaller(PROMPTS).do(job)


def test_every_answer_is_a_call_and_the_prompts_go_round(clock: Clock) -> None:
    server = TinyServer(scored)
    # Each call looks at the clock twice.
    recording = do(server, prompts_per_call=5, ticks=5.5, first_prompt=30)
    assert not recording.failures
    assert server.connections == [[[*PROMPTS[30:], *PROMPTS[:3]], PROMPTS[3:8], PROMPTS[8:13]]]
    assert [call.prompts for call in recording.calls] == [5, 5, 5]
    assert [call.ended_s - call.began_s for call in recording.calls] == [pytest.approx(TICK_S)] * 3
    assert recording.cpu_s > 0


def test_each_caller_keeps_one_connection(clock: Clock) -> None:
    everybody = threading.Barrier(4, timeout=10)
    mine = threading.local()  # one thread of the server is one connection

    def answer(prompts: list[str]) -> tuple[int, Any]:
        mine.calls = getattr(mine, "calls", 0) + 1
        if mine.calls <= 2:
            everybody.wait()  # nobody is answered before all four are there
        return scored(prompts)

    server = TinyServer(answer)
    recording = do(server, callers=4, ticks=50)
    assert len(server.connections) == 4
    assert all(len(each) >= 2 for each in server.connections)
    assert sum(map(len, server.connections)) == len(recording.calls)


def test_failed_calls_are_counted_by_what_they_failed_of(clock: Clock) -> None:
    answers = {
        PROMPTS[0]: (503, {"detail": "busy"}),
        PROMPTS[1]: (200, {"scores": []}),
        PROMPTS[2]: (200, {"score": float("nan")}),
        PROMPTS[3]: (200, {"score": None}),
        PROMPTS[4]: (200, ["no object"]),
    }
    server = TinyServer(lambda prompts: answers.get(prompts[0]) or scored(prompts))
    recording = do(server, callers=2, ticks=40)
    asked = Counter(call[0] for each in server.connections for call in each)
    assert recording.failures == {
        "HttpStatusError": asked[PROMPTS[0]],
        "WrongAnswerError": sum(asked[prompt] for prompt in PROMPTS[1:5]),
    }
    assert all(asked[prompt] for prompt in answers)
    assert len(recording.calls) == asked.total() - sum(recording.failures.values()) > 0
    assert measure([recording], server_cpu_s=0.0).failed


def test_nobody_there_is_a_failure(clock: Clock) -> None:
    server = TinyServer(scored)
    with server.running():
        job = HttpJob(server.url, "reference", 1, 1, 0.0, 2.5 * TICK_S, 0)
    recording = HttpCaller(PROMPTS).do(job)
    assert recording.failures == {"ClientConnectorError": 2}
    assert not recording.calls


def test_a_slow_answer_is_measured(clock: Clock) -> None:
    def answer(prompts: list[str]) -> tuple[int, Any]:
        clock.now_s += 20
        return scored(prompts)

    # Begun within the window, answered behind it.
    recording = do(TinyServer(answer), ticks=10)
    [call] = recording.calls
    assert call.ended_s - call.began_s > 20
    assert not recording.failures


def test_no_answer_ends_at_the_timeout(clock: Clock) -> None:
    ended = threading.Event()

    def answer(prompts: list[str]) -> tuple[int, Any]:
        ended.wait(60)
        return scored(prompts)

    server = TinyServer(answer)
    began_s = time.monotonic()
    with server.running():
        recording = HttpCaller(PROMPTS, timeout_s=0.2).do(HttpJob(server.url, "reference", 2, 1, 0.0, 2.5 * TICK_S, 0))
        took_s = time.monotonic() - began_s
        ended.set()
    assert recording.failures == {"TimeoutError": 2}
    assert not recording.calls
    assert took_s < 60


def test_equal_scores_pass_and_the_difference_is_told() -> None:
    expected = [score_of(prompt) for prompt in PROMPTS[:16]]
    expected[3] += 5e-4
    server = TinyServer(scored)
    with server.running():
        assert largest_difference(server.url, REFERENCE, PROMPTS[:16], expected) == pytest.approx(5e-4)
    asked = [call for each in server.connections for call in each]
    assert PROMPTS[:16] in asked
    assert sorted(call[0] for call in asked if len(call) == 1) == PROMPTS[:16]


def test_other_scores_are_refused() -> None:
    server = TinyServer(scored)
    with server.running(), pytest.raises(PeerError, match=r"reference and the bundle differ by 0\.01 on 16 prompts"):
        largest_difference(server.url, REFERENCE, PROMPTS[:16], [score_of(prompt) + 0.01 for prompt in PROMPTS[:16]])


def test_scores_given_to_the_wrong_callers_are_refused() -> None:
    """A server that batches and mixes answers up: alone and together each is right, from several callers none is."""
    waiting: list[str] = []
    everybody = threading.Barrier(CALLERS, timeout=10)

    def answer(prompts: list[str]) -> tuple[int, Any]:
        if len(prompts) > 1:
            return scored(prompts)
        waiting.append(prompts[0])
        everybody.wait()
        batch = sorted(waiting[-CALLERS:])
        everybody.wait()
        return scored([batch[batch.index(prompts[0]) - 1]])

    server = TinyServer(answer)
    with server.running(), pytest.raises(PeerError, match="not the same weights"):
        largest_difference(server.url, REFERENCE, PROMPTS[:16], [score_of(prompt) for prompt in PROMPTS[:16]])


def test_a_failure_while_scores_are_compared_is_told() -> None:
    server = TinyServer(lambda prompts: (500, {"detail": "out of memory"}))
    with server.running(), pytest.raises(PeerError, match=r"reference answered 500: .*out of memory"):
        largest_difference(server.url, REFERENCE, PROMPTS[:1], [1.0])
