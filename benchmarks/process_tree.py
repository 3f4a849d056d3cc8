"""What a process and all its descendants use, from /proc. Servers fork: to ask the first process alone would flatter them."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

STATE, PARENT, USER_TICKS, CHILDREN_SYSTEM_TICKS, STARTED_TICKS = 0, 1, 11, 14, 19
"""Fields of /proc/PID/stat, counted from the first one after the name."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident, summed over processes, in MiB.

    rss: what several of them share counts for each, which is too much. pss: what is shared counts in parts, also with processes that
    do not belong here, which is too little. The truth lies between.
    """

    rss_mib: float
    pss_mib: float


def tree_of(pid: int) -> list[int]:
    """The process and its descendants, whoever of them is there now."""
    children: dict[int, list[int]] = {}
    for path in PROC.iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            children.setdefault(int(fields[PARENT]), []).append(int(path.name))
    found = [pid]
    for each in found:  # grows as it goes
        found += children.get(each, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds used so far, all threads, user and system, those of children that have ended and been waited for included."""
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += sum(map(int, fields[USER_TICKS : CHILDREN_SYSTEM_TICKS + 1]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_of(pids: Iterable[int]) -> Memory:
    """Of the processes that are still there."""
    kib = {"Rss": 0, "Pss": 0}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(":")
                if name in kib:
                    kib[name] += int(value.split()[0])
    return Memory(kib["Rss"] / 1024, kib["Pss"] / 1024)


def started_ticks(pid: int) -> int | None:
    """When it began, which tells a process from a later one of the same number; None when it has ended, waited for or not."""
    fields = _stat(pid)
    return int(fields[STARTED_TICKS]) if fields and fields[STATE] not in "ZX" else None


def _stat(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    # The second field is the name and may hold blanks.
    return text.rpartition(")")[2].split()
