"""Columns of a local file: Parquet, CSV, JSONL or JSON (a list of objects). Whatever is wrong with one is a DataError naming it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import DataError

Columns = dict[str, list[Any]]
"""Name to values, all lists equally long. CSV values are texts; a value that a row lacks is None."""

LENGTH_LABEL_KEY = b"pars.length_label"
"""Where a Parquet file of ours says what its lengths were counted with."""

MAX_CELL_BYTES = 64 * 1024 * 1024
"""Largest CSV cell; Python's own limit of 128 kB is less than a long prompt."""


def read_columns(path: Path) -> Columns:
    """Read a whole file by its ending."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(_READERS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        columns = reader(path)
    except (pa.ArrowException, csv.Error, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as {path.suffix[1:]}: {error}") from error
    if not columns or not next(iter(columns.values())):
        raise DataError(f"{path}: the file has no rows")
    return columns


def column(columns: Columns, name: str, path: Path) -> list[Any]:
    """One column, or a DataError that says which there are."""
    if name not in columns:
        raise DataError(f"{path}: no column {name!r}; it has {', '.join(columns)}")
    return columns[name]


def length_label(path: Path) -> str | None:
    """What a file says its lengths were counted with; None when it does not say."""
    if path.suffix != ".parquet":
        return None
    label = (pq.read_schema(path).metadata or {}).get(LENGTH_LABEL_KEY)
    return label.decode() if label is not None else None


def _parquet(path: Path) -> Columns:
    table = pq.read_table(path)
    if len(set(table.column_names)) != len(table.column_names):
        raise ValueError("a column name occurs twice")
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _csv(path: Path) -> Columns:
    csv.field_size_limit(MAX_CELL_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        names = reader.fieldnames or []
        if len(set(names)) != len(names):
            raise ValueError("a column name occurs twice")
        return _from_rows(reader)


def _jsonl(path: Path) -> Columns:
    with path.open(encoding="utf-8-sig") as lines:
        return _from_rows(json.loads(line) for line in lines if line.strip())


def _json(path: Path) -> Columns:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise ValueError("expected a list of objects")
    return _from_rows(rows)


def _from_rows(rows: Iterable[Any]) -> Columns:
    kept = list(rows)
    if not all(isinstance(row, dict) for row in kept):
        raise ValueError("expected every row to be an object")
    # Over all rows: an optional column may first appear in the second.
    names = dict.fromkeys(name for row in kept for name in row)
    if None in names:
        raise ValueError("a row has more cells than the header has columns")
    return {name: [row.get(name) for row in kept] for name in names}


_READERS: dict[str, Callable[[Path], Columns]] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".json": _json}
