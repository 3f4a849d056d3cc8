"""Where a figure comes from: machine, versions, commit, command, date. A number without these is a rumour."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.cores import allotted_cores

REPOSITORY = Path(__file__).resolve().parents[1]

# The last three are what onnxruntime-gpu[cuda,cudnn] computes with. No constraint pins them: only this tells which they were.
PACKAGES = (
    *("pars-sidecar", "onnxruntime", "onnxruntime-gpu", "openvino", "grpcio", "tokenizers", "numpy"),
    *("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn-cu13"),
)

CHANGES = "+changes"

ASK_S = 20.0
"""For a tool that describes the machine. A driver that hangs must not hang the benchmark."""


@dataclass(frozen=True, slots=True)
class Machine:
    """cores: of the machine. allotted_cores: those this process may use. gpus: name, driver and memory of each.

    load_average_1_min: runnable threads before the run began. Well above zero means that figures are worth little.
    """

    cpu_model: str
    cores: int
    allotted_cores: int
    memory_gib: float
    gpus: tuple[str, ...]
    system: str
    load_average_1_min: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """Goes with every result. commit: with "+changes" when tracked files differed from it. date: UTC, ISO 8601."""

    machine: Machine
    versions: dict[str, str]
    commit: str
    command: str
    date: str


def make_stamp(module: str, arguments: Sequence[str]) -> Stamp:
    """The stamp of a run of `python -m module arguments`, to be made before it starts: afterwards the load is its own."""
    return Stamp(
        machine=Machine(
            cpu_model=_cpu_model(),
            cores=os.cpu_count() or 1,
            allotted_cores=allotted_cores(),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            gpus=_gpus(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            load_average_1_min=round(os.getloadavg()[0], 2),
        ),
        versions={"python": platform.python_version(), **_versions()},
        commit=commit_of(REPOSITORY),
        command=shlex.join(["python", "-m", module, *arguments]),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def commit_of(repository: Path) -> str:
    """The checked-out commit, or "unknown" where there is no repository."""
    # A checkout of another owner, as in a container, is one that git would refuse.
    git = ("git", "-c", "safe.directory=*", "-C", str(repository))
    commit = said_by(*git, "rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    # Results are left out: the first part of a longer measurement must not make the rest look changed.
    changes = said_by(*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    # Without an answer nobody knows that there are none.
    return commit if changes == "" else commit + CHANGES


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # there is one of ONNX Runtime's two wheels, CUDA only beside one of them, and OpenVINO is an extra
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass  # no /proc here
    return platform.processor() or platform.machine()


def _gpus() -> tuple[str, ...]:
    said = said_by("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return tuple(line.strip() for line in (said or "").splitlines() if line.strip())


def said_by(*command: str) -> str | None:
    """What a tool prints; None when it is not there, fails, or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
