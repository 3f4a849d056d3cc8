"""docs/clients/README.md keeps its word: every command in it is run as it stands there."""

import filecmp
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_clients import BUILT, EXAMPLES, REPOSITORY, WAIT_S
from sidecar_process import Sidecar

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
DOCUMENTED_ADDRESS = "127.0.0.1:50151"
CALLS = [
    command
    for command in re.findall(
        rf"(?<=`)[^`\n]*{DOCUMENTED_ADDRESS}[^`\n]*(?=`)|(?<=^    ).*{DOCUMENTED_ADDRESS}.*$", README, re.M
    )
    if not command.startswith("grpcurl")  # Debian has no such package
]


def bash(command: str, **environment: str) -> str:
    """Run a command of the README from the repository's root; its output. Fails the test when the command fails."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", command],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stub_commands(heading: str) -> str:
    """The commands that make the stubs, in the section of a language: its first block."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"\n\n((?:    .+\n)+)", section)
    assert block is not None
    return block.group(1)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("call", CALLS)
def test_a_documented_call(call: str, sidecar: Sidecar) -> None:
    out = bash(call.replace(DOCUMENTED_ADDRESS, sidecar.address))
    if call.endswith(" list"):
        assert "pars.v1.RankerService" in out.split()
    else:
        assert {"scores", "status"} & set(json.loads(out))


def test_calls_are_documented_for_every_language() -> None:
    assert len(CALLS) == 6
    for place in (".clients/go/client", ".clients/cpp/client", "node/client.js", "reflection/client.py"):
        assert any(place in call for call in CALLS), place


@pytest.mark.parametrize(
    ("heading", "built"), [("Go", BUILT / "go" / "src" / "pars-client"), ("C++", BUILT / "cpp" / "stubs")], ids=["go", "cpp"]
)
def test_the_documented_stub_command_makes_what_the_client_is_built_with(heading: str, built: Path, tmp_path: Path) -> None:
    bash(stub_commands(heading), OUT=str(tmp_path))
    names = files_below(tmp_path)
    assert names == files_below(built)
    assert filecmp.cmpfiles(tmp_path, built, names, shallow=False)[1:] == ([], [])


def test_the_documented_types_for_typescript(tmp_path: Path) -> None:
    bash(stub_commands("Node.js"), OUT=str(tmp_path))
    assert {"ranker.ts", "health.ts", "pars/v1/RankerService.ts", "pars/v1/ScoreRequest.ts"} <= files_below(tmp_path)
    assert "'prompt_tokens': (number);" in (tmp_path / "pars/v1/PromptScore.ts").read_text()


def test_the_examples_are_short_and_formatted() -> None:
    """Short enough to be read, which is what they are for."""
    for name in ("go/main.go", "cpp/client.cc", "node/client.js", "reflection/client.py"):
        assert len((EXAMPLES / name).read_text().splitlines()) <= 120, name
    assert bash("gofmt -l docs/clients/go") == ""


def test_the_packages_for_node_are_pinned_without_saying_where_from() -> None:
    folder = EXAMPLES / "node"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert wanted
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert all("integrity" in package and "resolved" not in package for name, package in packages.items() if name)
