"""Pure: samples and tallies → figures, and the promises that were broken."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

BASELINE = (5 / 30, 7 / 30)
"""Of the run: by then every thread pool, arena and bundle has been used and swapped several times."""

LAST_FROM = 28 / 30

MAX_RSS_GROWTH = 1.05

MAX_FD_GROWTH, MAX_THREAD_GROWTH = 16, 4
"""Connections of callers come and go; a leak of one in a reload or in a lost caller would be a hundred by the end."""

JUDGED_MINUTES = 10.0
"""In a shorter run the first allocations are still going on, so growth is shown and not judged."""


class Sample(NamedTuple):
    """What the process holds. at_s: since the load began."""

    at_s: float
    rss_mib: float
    fds: int
    threads: int


def growth(samples: Sequence[Sample], seconds: float) -> dict[str, Any] | None:
    """Means of memory and peaks of the rest, soon after the start and at the end. None when a window has no sample."""
    low_s, high_s = (share * seconds for share in BASELINE)
    before = [each for each in samples if low_s <= each.at_s <= high_s]
    after = [each for each in samples if each.at_s >= LAST_FROM * seconds]
    if not (before and after):
        return None
    rss_before, rss_after = (fmean(each.rss_mib for each in window) for window in (before, after))
    return {
        "rss_mib": [rss_before, rss_after],
        "rss_ratio": rss_after / rss_before,
        "rss_mib_highest": max(each.rss_mib for each in samples),
        "fds": [max(each.fds for each in window) for window in (before, after)],
        "threads": [max(each.threads for each in window) for window in (before, after)],
    }


def per_minute(samples: Sequence[Sample]) -> list[list[float]]:
    """[minute, mean RSS in MiB, most file descriptors, most threads] for each minute."""
    minutes: dict[int, list[Sample]] = {}
    for each in samples:
        minutes.setdefault(int(each.at_s // 60), []).append(each)
    return [
        [minute, fmean(one.rss_mib for one in within), max(one.fds for one in within), max(one.threads for one in within)]
        for minute, within in minutes.items()
    ]


def broken_promises(sidecar: Mapping[str, Any], minutes: float) -> list[str]:
    """Of one sidecar's part of the report, each with its figure. Empty when all were kept."""
    tally, grown = sidecar["callers"], sidecar["growth"]
    broken = [
        f"{tally['unanswered']} calls were not answered" if tally["unanswered"] else "",
        f"{tally['wrong']} calls ended wrongly" if tally["wrong"] else "",
        f"{len(sidecar['reload_faults'])} reloads went wrong" if sidecar["reload_faults"] else "",
        f"{sidecar['unexpected_log_records']} unexpected records in the log" if sidecar["unexpected_log_records"] else "",
        f"exit code {sidecar['exit_code']} after SIGTERM" if sidecar["exit_code"] != 0 else "",
        "" if tally["calls"] else "no calls were made",
    ]
    if minutes >= JUDGED_MINUTES:
        broken += _growth_faults(grown)
    return [f"{sidecar['over']}: {fault}" for fault in broken if fault]


def _growth_faults(grown: Mapping[str, Any] | None) -> list[str]:
    if grown is None:
        return ["there are no samples to see growth by"]
    (fds_before, fds_after), (threads_before, threads_after) = grown["fds"], grown["threads"]
    return [
        f"memory grew by a factor of {grown['rss_ratio']:.3f}" if grown["rss_ratio"] > MAX_RSS_GROWTH else "",
        f"file descriptors grew from {fds_before} to {fds_after}" if fds_after > fds_before + MAX_FD_GROWTH else "",
        f"threads grew from {threads_before} to {threads_after}" if threads_after > threads_before + MAX_THREAD_GROWTH else "",
    ]
