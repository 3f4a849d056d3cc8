"""Records from local files: JSONL, JSON (a list of objects), CSV or Parquet, with named columns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from trainer.errors import DataError
from trainer.lengths import LengthCounter
from trainer.records import UNKNOWN, Records


@dataclass(frozen=True)
class LocalSource:
    """Where the rows are and what their columns are called.

    Either `tokens_column` holds lengths, or `response_column` holds texts to be counted. `prompts_path` and `join_column` serve
    data sets that keep each prompt once and its many responses in another file. Rows where `drop_column` is true are left out.
    """

    path: Path
    prompt_column: str = "prompt"
    tokens_column: str = "response_tokens"
    response_column: str | None = None
    model_column: str | None = None
    weight_column: str | None = None
    prompts_path: Path | None = None
    join_column: str | None = None
    drop_column: str | None = None
    name: str | None = None

    def load(self, counter: LengthCounter | None = None) -> Records:
        """Read the rows. `counter` is needed with `response_column` only."""
        table = read_table(self.path)
        if self.prompts_path is not None:
            table = self._join(table)
        if self.drop_column is not None:
            drop = [bool(value) for value in self._column(table, self.drop_column)]
            table = table.filter(pa.array([not value for value in drop]))
        prompts = [value if isinstance(value, str) else "" for value in self._column(table, self.prompt_column)]
        if self.response_column is not None:
            if counter is None:
                raise DataError(f"{self.path}: counting column {self.response_column!r} needs a length counter")
            texts = [value if isinstance(value, str) else "" for value in self._column(table, self.response_column)]
            lengths = [float(count) for count in counter.count(texts)]
        else:
            lengths = [self._number(value) for value in self._column(table, self.tokens_column)]
        models = (
            [str(value) for value in self._column(table, self.model_column)] if self.model_column else [UNKNOWN] * len(prompts)
        )
        weights = [self._number(value) for value in self._column(table, self.weight_column)] if self.weight_column else None
        keep = [index for index, prompt in enumerate(prompts) if prompt.strip() and lengths[index] > 0]
        return Records.build(
            [prompts[index] for index in keep],
            [lengths[index] for index in keep],
            model=[models[index] for index in keep],
            source=self.name or self.path.stem,
            weight=[weights[index] for index in keep] if weights is not None else None,
        )

    def _join(self, table: pa.Table) -> pa.Table:
        assert self.prompts_path is not None
        if self.join_column is None:
            raise DataError(f"{self.prompts_path}: joining prompts needs a join column that both files have")
        prompts = read_table(self.prompts_path)
        keys = _column_of(prompts, self.join_column, self.prompts_path)
        texts = _column_of(prompts, self.prompt_column, self.prompts_path)
        text_of = dict(zip(keys, texts, strict=True))
        joined = [text_of.get(key) for key in self._column(table, self.join_column)]
        return table.append_column(self.prompt_column, pa.array(joined, type=pa.string()))

    def _column(self, table: pa.Table, column: str) -> list[Any]:
        return _column_of(table, column, self.path)

    def _number(self, value: Any) -> float:
        try:
            return 0.0 if value is None else float(value)
        except (TypeError, ValueError):
            raise DataError(f"{self.path}: {value!r} is not a number") from None


def read_table(path: Path) -> pa.Table:
    """Read a whole file by its ending. Raises DataError for anything that is not a table with rows."""
    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".parquet": pyarrow.parquet.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": _read_jsonl,
        ".json": _read_json,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        table = reader(path)
    except (pa.ArrowException, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not readable as {path.suffix[1:]}: {error}") from error
    if table.num_rows == 0:
        raise DataError(f"{path}: the file has no rows")
    return table


def _read_jsonl(path: Path) -> pa.Table:
    with path.open(encoding="utf-8") as lines:
        return _rows_to_table(path, [json.loads(line) for line in lines if line.strip()])


def _read_json(path: Path) -> pa.Table:
    return _rows_to_table(path, json.loads(path.read_text(encoding="utf-8")))


def _rows_to_table(path: Path, rows: Any) -> pa.Table:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected a list of objects")
    return pa.Table.from_pylist(rows)


def _column_of(table: pa.Table, column: str, path: Path) -> list[Any]:
    if column not in table.column_names:
        raise DataError(f"{path}: no column {column!r}; it has {', '.join(table.column_names)}")
    values: list[Any] = table.column(column).to_pylist()
    return values
