"""Memory of the GPU, as nvidia-smi tells it."""

from collections.abc import Collection
from dataclasses import dataclass

from benchmarks.stamp import said_by


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """device_mib: used by everybody on the first GPU. process_mib: of the processes asked for, None where nvidia-smi does not know
    them: in a container it shows the host's numbers."""

    device_mib: float
    process_mib: float | None


def gpu_memory(pids: Collection[int]) -> GpuMemory | None:
    """Now; None without nvidia-smi, or when it does not answer."""
    device = _said("--query-gpu=memory.used")
    if device is None:
        return None
    return GpuMemory(first_number(device), process_mib(_said("--query-compute-apps=pid,used_memory") or "", pids))


def first_number(text: str) -> float:
    """Of the first GPU's line."""
    return float(text.splitlines()[0])


def process_mib(text: str, pids: Collection[int]) -> float | None:
    """Lines `pid, MiB` → the sum over the processes asked for; None when none of them is there with a number."""
    found = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    mib = [float(used) for pid, used in found if int(pid) in pids and used.strip().replace(".", "").isdigit()]
    return sum(mib) if mib else None


def _said(query: str) -> str | None:
    return said_by("nvidia-smi", query, "--format=csv,noheader,nounits") or None
