"""How many cores this process may really use: a container's limit shows neither in the machine's core count nor in affinity."""

import os
from pathlib import Path

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""cgroup v2, as seen from inside a container: "<quota> <period>" in microseconds, or "max <period>"."""


def allotted_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """The affinity mask's cores, or fewer where a cgroup quota allows fewer. At least 1; part of a core counts as none."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no cgroup v2 here, or no quota
    return max(cores, 1)
