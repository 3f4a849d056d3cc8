"""Runs that take minutes each are kept one by one, so that hours of them can be gathered in pieces."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import plain, write_json

DIGITS = 9
"""Significant digits that are kept: microseconds in a run of minutes. Reports round what they show."""

BENCHMARK, LOW_LOAD = "vllm", "low_load"
"""What a report says that it is of, and where it has its starts at low load."""

REPLACED = "replaced"
"""Folder, beside the runs, of those that depend on something else. Going back to what they depend on finds them again."""


KEY = "key"
"""Where a run in a report says what it depends on, as a digest: by that a gathering on another machine knows it again."""

Tries = list[dict[str, Any]]


class ReportError(ValueError):
    """A file that is no report; the message says why."""


class KeptRuns:
    """One JSON per run in a folder. A run is known by its name and by everything that it depends on; all its tries are in it.

    reported: tries by key, see `reported_tries`, which count as made where the folder has none: figures, without single requests.
    """

    def __init__(self, folder: Path, reported: Mapping[str, Tries] | None = None) -> None:
        self._folder, self._reported = folder, reported or {}

    def tries(self, name: str, depends_on: Mapping[str, Any]) -> Tries:
        """What was kept of this very run, oldest first; none when it was never made, or depended on something else then."""
        key = key_of(depends_on)
        for path in (self._path(name), self._replaced(name, key)):
            document = _read(path)
            if document is not None and document["key"] == key:
                found: Tries = document["tries"]
                return found
        return self.reported(depends_on)

    def reported(self, depends_on: Mapping[str, Any]) -> Tries:
        """What a report tells of it, whatever the folder has."""
        return list(self._reported.get(key_of(depends_on), ()))

    def add(self, name: str, depends_on: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """Keep one more try. Returns it as it is kept, so that a new and a kept result are the same to the last digit."""
        path, key = self._path(name), key_of(depends_on)
        tries = [*self.tries(name, depends_on), plain(result, DIGITS)]
        other = _read(path)
        if other is not None and other["key"] != key:
            # Hours of somebody's time: put aside, never overwritten.
            aside = self._replaced(name, other["key"])
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
        write_json(path, {"key": key, "depends_on": plain(depends_on), "tries": tries}, DIGITS)
        kept: dict[str, Any] = self.tries(name, depends_on)[-1]
        return kept

    def differs(self, name: str, depends_on: Mapping[str, Any]) -> list[str]:
        """Why a run that is there under this name is not this one: the names of what it depends on that are not the same."""
        document = _read(self._path(name))
        if document is None or self.tries(name, depends_on):
            return []
        then, now = document["depends_on"], plain(depends_on)
        return sorted(each for each in then.keys() | now.keys() if then.get(each) != now.get(each))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _replaced(self, name: str, key: str) -> Path:
        return self._folder / REPLACED / f"{name}.{key[:12]}.json"


def reported_tries(reports: Iterable[Path]) -> dict[str, Tries]:
    """key → tries: the runs under load, the starts at low load and the capacity that reports of bench_vllm tell of. Of a run that several
    of them have, those of the first. Raises ReportError, OSError."""
    found: dict[str, Tries] = {}
    for path in reports:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ReportError(f"{path} is not JSON: {error}") from error
        if not isinstance(report, dict) or report.get("benchmark") != BENCHMARK or not {"capacity", "runs"} <= report.keys():
            raise ReportError(f"{path} is not a report of this benchmark")
        tries: dict[str, Tries] = {}
        for one_try in (report["capacity"], *report["runs"], *report.get(LOW_LOAD, {}).get("starts", ())):
            if one_try and KEY in one_try:
                tries.setdefault(one_try[KEY], []).append(one_try)
        found = tries | found
    return found


def key_of(depends_on: Mapping[str, Any]) -> str:
    """The same for the same content, in whatever order it is written down."""
    return hashlib.sha256(json.dumps(plain(depends_on), sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """None: not there, or from before runs had tries."""
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document if "tries" in document else None
