"""benchmarks/gpu.sh without a GPU: copied beside a made-up repository, with a driver, an interpreter and a make that only write down."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.stamp import REPOSITORY

BASH = shutil.which("bash") or "/bin/bash"

INTERPRETER = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  *"-m benchmarks.gpu "*) exit "$MEASURE_CODE";;
  *"-m exporter"*fp16*) exit "$FP16_CODE";;
esac
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The script in a folder of its own, so that it can neither find nor make anything of ours."""
    (tmp_path / "repository" / "benchmarks").mkdir(parents=True)
    shutil.copy(REPOSITORY / "benchmarks" / "gpu.sh", tmp_path / "repository" / "benchmarks")
    return tmp_path / "repository"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def run(repository: Path, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BASH, str(repository / "benchmarks" / "gpu.sh")],
        env={"PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def made_files(repository: Path) -> list[str]:
    return sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())


def test_without_a_driver_it_says_so_and_does_nothing(repository: Path) -> None:
    done = run(repository, "/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu.sh: no usable NVIDIA GPU here: nvidia-smi is not installed\n"
    assert made_files(repository) == ["benchmarks/gpu.sh"]


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        ("echo 'Failed to initialize NVML'; echo more; exit 9", "nvidia-smi failed: Failed to initialize NVML"),
        ("echo 'No devices were found'", "nvidia-smi lists none"),
    ],
)
def test_a_driver_without_a_gpu_is_no_gpu(repository: Path, tmp_path: Path, driver: str, why: str) -> None:
    program(tmp_path / "bin", "nvidia-smi", f"#!/bin/sh\n{driver}\n")
    done = run(repository, f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert done.stderr == f"gpu.sh: no usable NVIDIA GPU here: {why}\n"
    assert made_files(repository) == ["benchmarks/gpu.sh"]


@pytest.mark.parametrize(
    ("fp16_code", "measure_code", "code"), [("0", "0", 0), ("0", "1", 1), ("1", "0", 1)], ids=["all well", "part", "export"]
)
def test_with_a_gpu_it_goes_all_the_way(repository: Path, tmp_path: Path, fp16_code: str, measure_code: str, code: int) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tmp_path / "bin", "make", '#!/bin/sh\necho "make $*" >> "$CALLS"\n')
    program(tmp_path / "bin", "python3.12", "#!/bin/sh\nexit 0\n")
    program(repository / ".venv-gpu" / "bin", "python", INTERPRETER)
    done = run(
        repository,
        f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        CALLS=str(calls),
        FP16_CODE=fp16_code,
        MEASURE_CODE=measure_code,
        BUDGET_S="500",
    )
    assert done.returncode == code, done.stderr
    setup, fp32, fp16, measure = calls.read_text().splitlines()
    assert setup == "make setup RUNTIME=gpu VENV=.venv-gpu PYTHON=python3.12"
    assert fp32 == "-m exporter default_ranker --out bundles/default_ranker-fp32 --precision fp32"
    assert fp16 == "-m exporter default_ranker --out bundles/default_ranker-fp16 --precision fp16"
    # What could be exported is measured, the rest is said to have failed.
    assert ("--bundle fp16=bundles/default_ranker-fp16" in measure) == (fp16_code == "0")
    assert ("FAILED: the fp16 bundle" in done.stderr) == (fp16_code == "1")
    assert measure.startswith("-m benchmarks.gpu --bundle fp32=bundles/default_ranker-fp32")
    budget_s = int(measure.split("--budget-s ")[1].split()[0])
    assert 470 <= budget_s <= 500
    assert measure.endswith("--out benchmarks/results/gpu.json")


def test_wheels_are_installed_without_an_index(repository: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tmp_path / "bin", "make", "#!/bin/sh\nexit 1\n")
    program(tmp_path / "bin", "python3.12", "#!/bin/sh\nexit 0\n")
    program(repository / ".venv-gpu" / "bin", "python", INTERPRETER)
    program(repository / ".venv-gpu" / "bin", "pip", '#!/bin/sh\necho "pip $*" >> "$CALLS"\n')
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    given = {"CALLS": str(calls), "FP16_CODE": "0", "MEASURE_CODE": "0"}
    missing = run(repository, path, PARS_WHEELS=str(tmp_path / "none"), **given)
    assert (missing.returncode, calls.exists()) == (2, False)
    (tmp_path / "wheels").mkdir()
    assert run(repository, path, PARS_WHEELS=str(tmp_path / "wheels"), **given).returncode == 0
    assert calls.read_text().startswith(f"pip install --quiet --no-index --find-links {tmp_path / 'wheels'} ")
