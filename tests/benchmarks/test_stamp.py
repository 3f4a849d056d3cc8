"""Which commit a figure is said to be of: a real git, a repository of two files."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.stamp import CHANGES, commit_of


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for name in ("code.py", "benchmarks/results/figures.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("first", encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_changed_code_is_said_and_changed_results_are_not(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "benchmarks" / "results" / "figures.json").write_text("second", encoding="utf-8")
    assert commit_of(repository) == commit
    (repository / "code.py").write_text("second", encoding="utf-8")
    assert commit_of(repository) == commit + CHANGES


def test_a_checkout_of_another_owner_has_a_commit_too(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    # git's own switch for its tests of that.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "rev-parse", "HEAD")
    assert commit_of(repository) == commit


def test_without_a_repository_the_commit_is_unknown(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"


def test_what_nobody_can_tell_is_not_said_to_be_unchanged(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / ".git" / "index").write_bytes(b"broken")
    assert commit_of(repository) == commit + CHANGES
