"""soak's verdict: growth, every broken promise with its figure, and what in a log tells of a bug."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.soak.sidecar import unexpected_records
from benchmarks.soak.verdict import MAX_FD_GROWTH, Sample, broken_promises, growth, per_minute


def samples(minutes: int, rss_mib: Callable[[float], float], fds: Callable[[float], int] = lambda minute: 20) -> list[Sample]:
    return [Sample(minute * 60.0, rss_mib(minute), fds(minute), 17) for minute in range(minutes + 1)]


def test_growth_is_from_after_the_warm_up_to_the_end() -> None:
    grown = growth(samples(30, lambda minute: 100.0 if minute < 5 else 200.0 + minute), seconds=1800)
    assert grown is not None
    assert grown["rss_mib"] == [206.0, 229.0]  # minutes 5 to 7, and 28 to 30
    assert grown["rss_ratio"] == pytest.approx(229 / 206)
    assert grown["rss_mib_highest"] == 230.0
    assert growth([], seconds=1800) is None
    assert per_minute([Sample(1.0, 100.0, 5, 3), Sample(59.0, 200.0, 7, 2), Sample(61.0, 1.0, 1, 1)]) == [
        [0, 150.0, 7, 3],
        [1, 1.0, 1, 1],
    ]


def kept_promises() -> dict[str, Any]:
    return {
        "over": "tcp",
        "callers": {"calls": {"score": {"OK": 1}}, "unanswered": 0, "wrong": 0},
        "growth": growth(samples(30, lambda minute: 500.0), seconds=1800),
        "reload_faults": [],
        "unexpected_log_records": 0,
        "exit_code": 0,
    }


def test_promises_that_were_kept() -> None:
    assert broken_promises(kept_promises(), minutes=30) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"callers": {"calls": {"score": {"OK": 1}}, "unanswered": 2, "wrong": 0}}, "2 calls were not answered"),
        ({"callers": {"calls": {"score": {"OK": 1}}, "unanswered": 0, "wrong": 3}}, "3 calls ended wrongly"),
        ({"callers": {"calls": {}, "unanswered": 0, "wrong": 0}}, "no calls were made"),
        ({"reload_faults": ["x"]}, "1 reloads went wrong"),
        ({"unexpected_log_records": 1}, "1 unexpected records in the log"),
        ({"exit_code": -9}, "exit code -9 after SIGTERM"),
        ({"exit_code": None}, "exit code None after SIGTERM"),
        ({"growth": None}, "no samples"),
        ({"growth": growth(samples(30, lambda minute: 100 + minute), 1800)}, "memory grew by a factor of 1.217"),
        (
            {"growth": growth(samples(30, lambda minute: 1.0, lambda minute: int(minute)), 1800)},
            "file descriptors grew from 7 to 30",
        ),
    ],
)
def test_every_broken_promise_is_named_with_its_figure(change: dict[str, Any], fault: str) -> None:
    (found,) = broken_promises(kept_promises() | change, minutes=30)
    assert found.startswith("tcp: ")
    assert fault in found
    assert MAX_FD_GROWTH < 30 - 7


def test_a_short_run_does_not_judge_growth() -> None:
    change = {"growth": growth(samples(30, lambda minute: 100 + minute), 1800)}
    assert broken_promises(kept_promises() | change, minutes=5) == []


def test_what_in_a_log_tells_of_a_bug() -> None:
    time = "2026-01-01 00:00:00,000"
    fine = [
        f"{time} INFO sidecar: x",
        f"{time} WARNING sidecar: y",
        f"{time} ERROR sidecar.reload: reload refused, bundle=a goes on",
    ]
    assert unexpected_records(fine) == []
    traceback = [f"{time} INFO grpc: x", "Traceback (most recent call last):", "  File", "ValueError: y"]
    assert unexpected_records([*fine, *traceback, f"{time} ERROR sidecar: z", *fine]) == [
        f"{time} INFO grpc: x … ValueError: y",
        f"{time} ERROR sidecar: z",
    ]
    assert unexpected_records(["Segmentation fault"]) == ["Segmentation fault"]
