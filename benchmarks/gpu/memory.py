"""Memory of the GPU, as nvidia-smi tells it. What it does not tell is None: that is never a reason to measure nothing."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from benchmarks.stamp import said_by


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """device_mib: used by everybody on the first GPU that CUDA sees. process_mib: of the processes asked for, None where nvidia-smi
    does not know them: in a container it shows the host's numbers."""

    device_mib: float | None
    process_mib: float | None


def gpu_memory(pids: Collection[int]) -> GpuMemory | None:
    """Now; None without nvidia-smi, or when it does not answer."""
    devices = _said("--query-gpu=index,uuid,memory.used")
    if devices is None:
        return None
    used_mib = device_mib(devices, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    return GpuMemory(used_mib, process_mib(_said("--query-compute-apps=pid,used_memory") or "", pids))


def device_mib(text: str, visible: str) -> float | None:
    """Lines `index, uuid, MiB` → the first of the GPUs in `visible`, which is CUDA_VISIBLE_DEVICES; of all, where that is empty.

    It names them by index or by how their uuid begins. None where none of the lines is meant, a slice of a GPU for one, or it has no
    number.
    """
    first = visible.partition(",")[0].strip()
    for index, uuid, used in _rows(text, columns=3):
        if not first or index == first or uuid.startswith(first):
            return _number(used)
    return None


def process_mib(text: str, pids: Collection[int]) -> float | None:
    """Lines `pid, MiB` → the sum over the processes asked for; None when none of them is there with a number."""
    asked = {str(pid) for pid in pids}
    mib = [number for pid, used in _rows(text, columns=2) if pid in asked and (number := _number(used)) is not None]
    return sum(mib) if mib else None


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns]


def _number(text: str) -> float | None:
    """None for [N/A], [Insufficient Permissions], and whatever else is said in place of a number."""
    try:
        return float(text)
    except ValueError:
        return None


def _said(query: str) -> str | None:
    return said_by("nvidia-smi", query, "--format=csv,noheader,nounits") or None
