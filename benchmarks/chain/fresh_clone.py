"""A clone of the repository as a stranger has it: a new folder, nothing installed, nothing cached."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chain.report import PartError
from benchmarks.process_group import process_group

CLONE_S = 300.0
TAIL_LINES = 15
"""Shown of a command that failed."""

# Beginnings of the names of what a shell or a `make` around us would leak into the clone: environments, caches, the Makefile's
# own variables (`make` exports those given on its command line).
_OURS = (
    *("VIRTUAL_ENV", "PYTHON", "PYTEST_", "PARS_", "GIT_", "MAKE", "MFLAGS"),
    *("XDG_CACHE_HOME", "PIP_CACHE_DIR", "PIP_NO_CACHE_DIR", "PIP_CONSTRAINT", "HF_", "TRANSFORMERS_"),
    *("VENV", "BUNDLE", "CHECKPOINT", "PRECISION", "ADDRESS", "RUNTIME", "DEADLINE_MS"),
)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended well. seconds: wall time. output: standard output and error."""

    seconds: float
    output: str


@dataclass(frozen=True, slots=True)
class FreshClone:
    """folder: the clone. cache: where everything that honours XDG_CACHE_HOME (pip, Hugging Face) caches; empty at first."""

    folder: Path
    cache: Path

    @classmethod
    def of(cls, repository: Path, work: Path) -> "FreshClone":
        """Clone what is checked out. Changes that are not committed are not in it. Raises PartError."""
        clone = cls(work / "clone", work / "cache")
        _run(["git", "clone", "--quiet", str(repository), str(clone.folder)], work, os.environ, CLONE_S)
        return clone

    @property
    def has_environment(self) -> bool:
        return (self.folder / ".venv" / ".ready").exists()

    def make(self, target: str, deadline_s: float) -> Done:
        """Run `make target` in it. Raises PartError when it fails or takes too long."""
        return _run(["make", target], self.folder, stranger_environment(os.environ, self.cache), deadline_s)


def stranger_environment(environment: Mapping[str, str], cache: Path) -> dict[str, str]:
    """The environment without what belongs to this checkout, and with an empty cache. Where packages come from stays."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_OURS)}
    own = environment.get("VIRTUAL_ENV") or (sys.prefix if sys.prefix != sys.base_prefix else None)
    if own:
        folders = kept.get("PATH", "").split(os.pathsep)
        kept["PATH"] = os.pathsep.join(folder for folder in folders if not Path(folder).is_relative_to(own))
    return kept | {"XDG_CACHE_HOME": str(cache)}


def pytest_counts(output: str) -> dict[str, int]:
    """passed, failed, skipped and whatever else pytest's last line counts. Raises PartError when there is no such line."""
    summaries = re.findall(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s\b", output, flags=re.MULTILINE)
    if not summaries:
        raise PartError("the output has no summary of pytest")
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for number, outcome in re.findall(r"(\d+) ([a-z]+)", summaries[-1]):
        counts[outcome] = int(number)
    return counts


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], deadline_s: float) -> Done:
    """Run with a deadline; what it starts ends with it."""
    shown = " ".join(command)
    began_s = time.monotonic()
    with process_group(command, folder, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            output, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise PartError(f"`{shown}` took longer than {deadline_s:.0f} s") from error
    seconds = time.monotonic() - began_s
    if process.returncode:
        tail = "".join(f"\n  | {line}" for line in output.splitlines()[-TAIL_LINES:])
        raise PartError(f"`{shown}` ended with exit code {process.returncode} after {seconds:.0f} s:{tail}")
    return Done(seconds, output)
