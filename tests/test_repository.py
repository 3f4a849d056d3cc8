"""The repository keeps its own promises: what is where, what the README says, what the versions are."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from benchmarks.quoted.__main__ import DOCUMENTS, read_results, with_figures
from trainer.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[1]


def tracked() -> list[str]:
    return subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    ).stdout.splitlines()


def test_top_level_is_exactly_this() -> None:
    assert {path.split("/")[0] for path in tracked()} == {
        *{"proto", "sidecar", "exporter", "trainer", "vllm_client", "benchmarks", "tests", "docs", "default_ranker"},
        *{"Makefile", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".ci", ".gitignore"},
    }


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        named = set(re.findall(r"`make ([a-z-]+)|^    make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert {one or other for one, other in named} <= targets, document.name


def test_links_in_the_docs_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} → {target}"


def test_the_tests_that_hold_the_promises_exist() -> None:
    tests = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "tests").glob("**/test_*.py")}
    named = re.findall(r"`(test_\w+)((?:::\w+)*)`", (ROOT / "docs" / "operations.md").read_text())
    assert named
    for module, inside in named:
        assert module in tests, module
        scope: ast.AST = tests[module]
        for name in inside.split("::")[1:]:
            defined = {getattr(node, "name", ""): node for node in ast.iter_child_nodes(scope)}
            assert name in defined, f"{module}{inside}"
            scope = defined[name]


def test_one_version_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_quoted_figures_are_the_measured_ones(document: str) -> None:
    text = (ROOT / document).read_text()
    assert with_figures(text, DOCUMENTS[document](read_results())) == text, "run python -m benchmarks.quoted"


def test_constraints_pin_what_the_project_asks_for() -> None:
    pins = {line.partition("==")[0].lower() for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines() if line}
    assert {
        "torch",
        "transformers",
        "optimum",
        "optimum-onnx",
        "onnxruntime",
        "grpcio",
        "protobuf",
        "numpy",
        "pytest",
        "mypy",
    } <= pins


def test_the_shipped_ranker_is_small_licensed_and_described() -> None:
    folder = ROOT / "default_ranker"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 50e6
    card = json.loads((folder / "ranker.json").read_text())
    assert card["licence"] == "Apache-2.0"
    assert card["calibration"] is not None
    assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0")


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("What is the capital of France?", "Write a detailed essay about the history of France."),
        ("Answer yes or no: is water wet?", "Explain step by step how to build a web server in Python, with code."),
        ("What is 7 times 8?", "Write a short story about a dragon who learns to cook."),
    ],
)
def test_the_shipped_ranker_knows_the_obvious(shorter: str, longer: str) -> None:
    ranker = read_checkpoint(ROOT / "default_ranker").ranker
    low, high = ranker.score(ranker.tokenize([shorter, longer]))
    assert low < high
