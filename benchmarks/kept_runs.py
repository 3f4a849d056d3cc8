"""Runs that take minutes each are kept one by one, so that an interrupted benchmark goes on where it was."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import plain, write_json


class KeptRuns:
    """One JSON per run in a folder. A run is known by its name and by everything that it depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, depends_on: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The kept result, or a new one when there is none, or when it depends on something else than it did."""
        key = hashlib.sha256(json.dumps(plain(depends_on), sort_keys=True).encode()).hexdigest()
        path = self._folder / f"{name}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if kept is None or kept["key"] != key:
            write_json(path, {"key": key, "result": measure()})
            # Read back, so that a kept and a new result are the same to the last digit.
            kept = json.loads(path.read_text(encoding="utf-8"))
        result: dict[str, Any] = kept["result"]
        return result
