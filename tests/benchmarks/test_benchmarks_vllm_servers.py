"""The processes of the benchmarks on a real vLLM, without one: their model, flags, environment and descendants."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench_vllm import __main__ as bench_vllm
from benchmarks.bench_vllm import pacing
from benchmarks.bench_vllm.bench_serve import Load, bench_flags
from benchmarks.bench_vllm.process import VllmInstallation, chat_body, descendants, serve_flags
from benchmarks.bench_vllm.tiny_llama import make_model
from benchmarks.process import ProcessError
from benchmarks.replay import from_seed
from vllm_client.hook.settings import ENV_PREFIX


def test_the_model_is_made_twice_the_same_way(tmp_path: Path) -> None:
    one, other = make_model(tmp_path / "one"), make_model(tmp_path / "other")
    assert json.loads((one / "config.json").read_text())["vocab_size"] == 2048
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_what_a_process_started_is_known() -> None:
    script = (
        "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); sys.stdin.read(); c.kill()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert descendants(parent.pid) == [child]
        assert child in descendants(os.getpid())
        parent.communicate("", timeout=20)


def test_the_shells_settings_of_the_hook_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARS_HOOK_POLICY", "equal")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    environment = VllmInstallation(tmp_path, tmp_path, tmp_path / "plugin", 20.0).environment()
    assert not [name for name in environment if name.startswith(ENV_PREFIX)]
    assert environment["PYTHONPATH"] == f"{tmp_path}/plugin{os.pathsep}/ours"
    assert environment[pacing.STEP_VARIABLE] == "20.0"


def test_an_environment_without_vllm_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="make vllm-env"):
        VllmInstallation(tmp_path / "bin", tmp_path, tmp_path, 0.0).versions()
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to("/bin/false")
    with pytest.raises(ProcessError, match="make vllm-env"):
        VllmInstallation(folder, tmp_path, tmp_path, 0.0).versions()


def test_the_benchmark_ends_where_there_is_no_vllm(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "vllm.json"
    flags = ["--out", str(out), "--bundle", str(tiny_bundle), "--vllm-bin", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert bench_vllm.main([*flags, "--smoke"]) == 1
    assert "make vllm-env" in capsys.readouterr().err
    assert not out.exists()


def test_only_servers_with_the_hook_have_the_middleware() -> None:
    bare, hooked = serve_flags(8, has_hook=False), serve_flags(8, has_hook=True)
    assert hooked == [*bare, "--middleware", "vllm_client.PriorityMiddleware"]
    assert bare[bare.index("--scheduling-policy") + 1] == "priority"


def test_recorded_lengths_are_asked_for_unless_one_is_given() -> None:
    replay = from_seed(4, seed=0)
    recorded_lengths, one_length = bench_flags(Load(replay, 4, 2.5, 7)), bench_flags(Load(replay, 4, float("inf"), 7, 120))
    assert recorded_lengths[recorded_lengths.index("--custom-output-len") + 1] == "-1"
    assert one_length[one_length.index("--custom-output-len") + 1] == "120"
    assert one_length[one_length.index("--request-rate") + 1] == "inf"
    assert json.loads(chat_body("Hé", 3))["messages"] == [{"role": "user", "content": "Hé"}]
