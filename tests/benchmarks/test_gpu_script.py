"""benchmarks/gpu.sh without a GPU: copied beside a made-up repository, with a driver, an interpreter and a make that only write down."""

import os
import shutil
import subprocess
import time
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

WAITING = """#!/bin/sh
case "$*" in *"-m benchmarks.gpu "*) ;; *) exit 0;; esac
trap 'exit 42' TERM
touch "$CALLS"
while :; do sleep 0.05; done
"""

TIMEOUT = """#!/bin/sh
shift 2
echo "$*" >> "$CALLS.capped"
shift
exec "$@"
"""
"""With two options before the seconds."""

APT_GET = """#!/bin/sh
echo "apt-get $*" >> "$CALLS"
case "$*" in
  *update*) exit 100;;
  *"install"*" make") cp "$TOOLS/nothing" "$TOOLS/make";;
  *"install"*" python3.11 "*) exit 100;;
  *"install"*" python3 "*) cp "$TOOLS/nothing" "$TOOLS/python3";;
esac
"""
"""Of a distribution whose python3 is new enough, with a repository that does not answer. There is no git to be had."""


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
    ("says", "is_refused"), [("12.4", True), ("13.0", False), ("ERR!", False)], ids=["too old", "as the wheels", "unknown"]
)
def test_a_driver_that_is_too_old_is_found_out_before_anything_is_installed(
    repository: Path, tmp_path: Path, says: str, is_refused: bool
) -> None:
    driver = f"#!/bin/sh\necho 'GPU 0: NVIDIA H200'\necho '| NVIDIA-SMI 550.54   CUDA Version: {says} |'\n"
    program(tmp_path / "bin", "nvidia-smi", driver)
    done = run(repository, f"{tmp_path / 'bin'}:{os.environ['PATH']}", PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert (f"the driver says CUDA Version: {says}, and the wheels need 13" in done.stderr) == is_refused
    assert ("PYTHON=/nowhere/python is no Python 3.11" in done.stderr) == (not is_refused)


def test_no_other_interpreter_takes_the_place_of_the_one_that_was_named(repository: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tmp_path / "bin", "make", "#!/bin/sh\nexit 0\n")
    program(tmp_path / "bin", "python3.12", "#!/bin/sh\nexit 0\n")
    program(tmp_path / "old", "python3.10", "#!/bin/sh\nexit 1\n")
    named = str(tmp_path / "old" / "python3.10")
    done = run(repository, f"{tmp_path / 'bin'}:{os.environ['PATH']}", PYTHON=named)
    assert done.returncode == 2
    assert f"gpu.sh: PYTHON={named} is no Python 3.11 or newer with venv" in done.stderr
    assert made_files(repository) == ["benchmarks/gpu.sh"]


def test_a_repository_that_does_not_answer_keeps_no_tool_from_being_installed(repository: Path, tmp_path: Path) -> None:
    """A bare image, as root: neither make nor git nor Python."""
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    for name in ("head", "timeout", "cp"):
        program(tools, name, f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n')
    program(tools, "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tools, "id", "#!/bin/sh\necho 0\n")
    program(tools, "nothing", "#!/bin/sh\nexit 0\n")
    program(tools, "apt-get", APT_GET)
    program(repository / ".venv-gpu" / "bin", "python", INTERPRETER)
    given = {"CALLS": str(calls), "TOOLS": str(tools), "FP16_CODE": "0", "MEASURE_CODE": "0"}
    done = run(repository, str(tools), **given)
    assert done.returncode == 0, done.stderr
    installed = [line.split()[-1] for line in calls.read_text().splitlines() if line.startswith("apt-get -qq install")]
    assert installed == ["make", "git", "python3.11-venv", "python3-venv"]


@pytest.mark.parametrize(
    ("fp16_code", "measure_code", "why"),
    [
        ("0", "0", None),
        ("0", "1", None),
        ("0", "2", None),
        ("1", "1", "could not be exported, exit code 1"),
        ("124", "1", "not exported within 120 s"),
    ],
    ids=["all well", "a part failed", "nothing measured", "no export", "no export in time"],
)
def test_with_a_gpu_it_goes_all_the_way(
    repository: Path, tmp_path: Path, fp16_code: str, measure_code: str, why: str | None
) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tmp_path / "bin", "make", '#!/bin/sh\necho "make $*" >> "$CALLS"\n')
    program(tmp_path / "bin", "python3.12", "#!/bin/sh\nexit 0\n")
    program(tmp_path / "bin", "timeout", TIMEOUT)
    program(repository / ".venv-gpu" / "bin", "python", INTERPRETER)
    done = run(
        repository,
        f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        CALLS=str(calls),
        FP16_CODE=fp16_code,
        MEASURE_CODE=measure_code,
        BUDGET_S="500",
    )
    assert done.returncode == int(measure_code), done.stderr
    setup, fp32, fp16, measure = calls.read_text().splitlines()
    assert setup == "make setup RUNTIME=gpu VENV=.venv-gpu PYTHON=python3.12"
    assert fp32 == "-m exporter default_ranker --out bundles/default_ranker-fp32 --precision fp32"
    assert fp16 == "-m exporter default_ranker --out bundles/default_ranker-fp16 --precision fp16"
    # What could be exported is measured, the rest is said to have failed, there and in the report.
    assert ("--bundle fp16=bundles/default_ranker-fp16" in measure) == (why is None)
    assert (f"FAILED: the fp16 bundle: {why}" in done.stderr) == (f"--not-exported fp16={why}" in measure) == (why is not None)
    # One that hangs leaves time for the rest.
    capped = (tmp_path / "calls.capped").read_text().splitlines()
    assert [line.split()[0] for line in capped if "exporter" in line] == ["120", "120"]
    # To the repository's owner or not, git is to name the commit.
    assert f"directory = {repository}" in (repository / ".venv-gpu" / "gitconfig").read_text()
    assert measure.startswith("-m benchmarks.gpu --bundle fp32=bundles/default_ranker-fp32")
    budget_s = int(measure.split("--budget-s ")[1].split()[0])
    assert 470 <= budget_s <= 500
    assert measure.endswith("--out benchmarks/results/gpu.json")


def test_a_signal_reaches_the_measuring(repository: Path, tmp_path: Path) -> None:
    """It takes the script's place, and decides what becomes of the report."""
    calls = tmp_path / "calls"
    program(tmp_path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    program(tmp_path / "bin", "make", "#!/bin/sh\nexit 0\n")
    program(tmp_path / "bin", "python3.12", "#!/bin/sh\nexit 0\n")
    program(repository / ".venv-gpu" / "bin", "python", WAITING)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    process = subprocess.Popen([BASH, str(repository / "benchmarks" / "gpu.sh")], env=environment, stderr=subprocess.DEVNULL)
    give_up_s = time.monotonic() + 30.0
    while not calls.exists():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 42


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


def test_both_runtimes_are_pinned_to_one_version() -> None:
    """Parity and speed of a GPU are then of the same ONNX Runtime as the figures of a CPU."""
    pins = dict(line.split("==") for line in (REPOSITORY / ".ci" / "constraints.txt").read_text(encoding="utf-8").split())
    assert pins["onnxruntime-gpu"] == pins["onnxruntime"]
