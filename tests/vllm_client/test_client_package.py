"""What importing the client brings along, and what the thin wheel holds."""

import json
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import vllm_client

ROOT = Path(vllm_client.__file__).parent.parent
LOOK_AROUND = """
import json, logging, sys, threading
environment_reads = []
import os
class Watched(dict):
    def __getitem__(self, name): environment_reads.append(name); return super().__getitem__(name)
    def get(self, name, default=None): environment_reads.append(name); return super().get(name, default)
import grpc, google.protobuf.json_format  # Their doings at import are theirs.
os.environ = Watched(os.environ)
threads = threading.active_count()
import vllm_client
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)),
    "threads": threading.active_count() - threads,
    "log_handlers": len(logging.getLogger().handlers),
    "environment_reads": [name for name in environment_reads if "PARS" in name],
    "file": vllm_client.__file__,
}))
"""


def in_fresh_interpreter(code, *arguments, cwd):
    """Without the environment's .pth files, so that nothing but the standard library is importable by itself."""
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def search_path(*folders):
    """Code that makes `folders` importable, and after them what pip installed beside us, without its editable installs."""
    first, last = [str(folder) for folder in folders], sysconfig.get_path("purelib")
    return f"import sys; sys.path[:0] = {first}; sys.path.append({last!r})\n"


def test_importing_does_nothing_and_brings_nothing_heavy(tmp_path):
    found = json.loads(in_fresh_interpreter(search_path(ROOT, ROOT / "proto") + LOOK_AROUND, cwd=tmp_path))
    allowed = {"__main__", "grpc", "google", "cython_runtime", "typing_extensions", "pars", "vllm_client"}
    allowed |= {"grpc_tools", "grpc_health", "grpc_reflection"}  # grpc picks these up by itself when they are installed.
    assert {name for name in found["modules"] if not name.startswith("_cython_")} <= allowed
    assert found["threads"] == 0
    assert found["log_handlers"] == 0
    assert found["environment_reads"] == []


def test_public_names_are_listed_and_no_others_are_public():
    assert vllm_client.__all__ == sorted(vllm_client.__all__, key=lambda name: (not name.isupper(), name))
    own = {name for name, value in vars(vllm_client).items() if not name.startswith("_") and not isinstance(value, type(sys))}
    assert own == set(vllm_client.__all__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT / "vllm_client")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_two_packages_whole_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "vllm_client").rglob("*.py")}
    pars = {f"pars/{path.relative_to(ROOT / 'proto/pars')}" for path in (ROOT / "proto/pars").rglob("*.py*")}
    pars = {name for name in pars if "__pycache__" not in name} - {"pars/ngram.py"}
    protos = {"pars/v1/ranker.proto", "pars/v1/bundle.proto"}
    assert names == own | {"vllm_client/py.typed", "pars/py.typed"} | pars | protos


def test_the_wheel_asks_for_what_the_whole_distribution_asks_for(wheel):
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    thin = tomllib.loads((ROOT / "vllm_client/pyproject.toml").read_text())["project"]
    assert thin["dependencies"] == whole["dependencies"]
    assert thin["requires-python"] == whole["requires-python"]
    assert wheel.name == f"pars_vllm_client-{whole['version']}-py3-none-any.whl"


def test_the_installed_wheel_works_alone(wheel, ranker, tmp_path):
    installed = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(installed),
        str(wheel),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = json.loads(in_fresh_interpreter(search_path(installed) + LOOK_AROUND, cwd=tmp_path))
    assert found["file"] == str(installed / "vllm_client/__init__.py")
    assert "numpy" not in found["modules"]

    run_module = search_path(installed) + "import runpy; runpy.run_module('vllm_client', run_name='__main__', alter_sys=True)"
    lines = in_fresh_interpreter(run_module, "score", "a", "bb", "--json", "--address", ranker.address, cwd=tmp_path)
    assert [json.loads(line)["prompt"] for line in lines.splitlines()] == ["a", "bb"]
