"""The fresh clone: what leaks into it, what is read out of it. A real git, a real make, a repository of two files."""

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.chain.fresh_clone import FreshClone, pytest_counts, stranger_environment
from benchmarks.chain.report import PartError

MAKEFILE = """\
demo:
\t@echo cache=$$XDG_CACHE_HOME bundle=$(BUNDLE) && mkdir .venv && touch .venv/.ready
broken:
\t@echo what went wrong && exit 3
slow:
\t@sleep 60
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "--quiet"], ["add", "Makefile"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True, timeout=30)
    (folder / "Makefile").write_text("not committed", encoding="utf-8")
    return folder


def test_the_clone_has_what_is_committed_and_nothing_cached(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE", "ours")
    work = tmp_path / "work"
    work.mkdir()
    clone = FreshClone.of(repository, work)
    assert not clone.has_environment
    done = clone.make("demo", 30)
    assert done.output == f"cache={clone.cache} bundle=\n"
    assert done.seconds > 0
    assert clone.has_environment


def test_a_command_that_fails_or_hangs_says_so(repository: Path, tmp_path: Path) -> None:
    clone = FreshClone.of(repository, tmp_path)
    with pytest.raises(PartError, match=r"(?s)`make broken` ended with exit code 2 .*what went wrong"):
        clone.make("broken", 30)
    with pytest.raises(PartError, match="`make slow` took longer than 0 s"):
        clone.make("slow", 0.3)


def test_a_stranger_has_none_of_our_settings() -> None:
    ours = {
        "VIRTUAL_ENV": "/our/.venv",
        "PATH": os.pathsep.join(["/our/.venv/bin", "/usr/bin"]),
        "MAKEFLAGS": "-j4",
        "MAKELEVEL": "1",
        "PYTHONPATH": "/our",
        "PARS_SIDECAR_WORKERS": "7",
        "PIP_CACHE_DIR": "/our/cache",
        "PIP_INDEX_URL": "https://mirror.example.org",
        "HOME": "/home/user",
    }
    assert stranger_environment(ours, Path("/new")) == {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://mirror.example.org",
        "HOME": "/home/user",
        "XDG_CACHE_HOME": "/new",
    }


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("....\n========= 412 passed in 61.20s (0:01:01) =========\n", {"passed": 412, "failed": 0, "skipped": 0}),
        ("1 failed, 3 passed, 2 skipped in 0.12s\n", {"passed": 3, "failed": 1, "skipped": 2}),
        ("== 1 passed in 0.1s ==\n== 5 passed, 1 xfailed in 2s ==\n", {"passed": 5, "failed": 0, "skipped": 0, "xfailed": 1}),
    ],
    ids=["a long run", "quiet, with failures", "the last summary counts"],
)
def test_the_summary_of_pytest_is_read(output: str, counts: dict[str, int]) -> None:
    assert pytest_counts(output) == counts


def test_output_without_a_summary_is_an_error() -> None:
    with pytest.raises(PartError, match="no summary"):
        pytest_counts("make: *** [test] Error 2\n")
