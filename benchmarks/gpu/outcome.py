"""What a part has found so far. Kept on disk as it grows: a part that is killed at its deadline keeps what it had."""

from pathlib import Path
from typing import Any

from benchmarks.report import write_json


class Outcome:
    """figures: free to fill, then `keep`. failures: reasons by what failed; not_here: likewise, what this machine cannot do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.figures: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.not_here: dict[str, str] = {}

    def keep(self) -> None:
        """Write it down."""
        write_json(self._path, {"figures": self.figures, "failures": self.failures, "not_here": self.not_here})


def reason(error: BaseException) -> str:
    """One line: ONNX Runtime's and a child's messages have many."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:300] if first else 'without a message'}"
