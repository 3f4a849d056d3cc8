"""The rows trainers read: a prompt, how many tokens a response to it had, and which model gave it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import DataError
from trainer.tables import LENGTH_LABEL_KEY

UNKNOWN = "unknown"
COLUMNS = ("prompt", "response_tokens", "model", "source", "weight")
MAX_RESPONSE_TOKENS = 10_000_000
"""No response is longer; a number above is a mistake that would spoil every mean it enters."""


@dataclass(frozen=True)
class Records:
    """Columns of equal length; one row per prompt and answering model.

    prompt: text. response_tokens: float[n], positive, in tokens. model: who answered. source: the data set, for reporting.
    weight: float[n], how much the row counts in training. length_label: what the lengths were counted with.
    """

    prompt: list[str]
    response_tokens: npt.NDArray[np.float64]
    model: list[str]
    source: list[str]
    weight: npt.NDArray[np.float64]
    length_label: str = UNKNOWN

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise DataError(f"record columns differ in length: {lengths}")
        if not len(self):
            raise DataError("no records")
        tokens = self.response_tokens
        if not (np.isfinite(tokens).all() and (tokens > 0).all() and (tokens <= MAX_RESPONSE_TOKENS).all()):
            raise DataError(f"response_tokens must be positive numbers up to {MAX_RESPONSE_TOKENS:,}")
        if not (np.isfinite(self.weight).all() and (self.weight > 0).all()):
            raise DataError("weights must be positive numbers; leave a row out instead of giving it weight 0")

    def __len__(self) -> int:
        return len(self.prompt)

    @classmethod
    def build(
        cls,
        prompt: list[str],
        response_tokens: list[float] | npt.NDArray[np.float64],
        *,
        model: list[str] | None = None,
        source: str | list[str] = UNKNOWN,
        weight: list[float] | None = None,
        length_label: str = UNKNOWN,
    ) -> Records:
        """Fill the optional columns with their defaults: one unknown model, weight 1."""
        count = len(prompt)
        return cls(
            prompt=prompt,
            response_tokens=np.asarray(response_tokens, dtype=np.float64),
            model=model if model is not None else [UNKNOWN] * count,
            source=source if isinstance(source, list) else [source] * count,
            weight=np.asarray(weight if weight is not None else np.ones(count), dtype=np.float64),
            length_label=length_label,
        )

    @classmethod
    def concatenate(cls, parts: list[Records]) -> Records:
        """All rows of all parts. Raises DataError when their lengths were counted with different things."""
        labels = {part.length_label for part in parts}
        if len(labels) > 1:
            raise DataError(
                f"lengths were counted with different things, so they cannot be compared: {', '.join(sorted(labels))}"
            )
        return cls(
            prompt=[prompt for part in parts for prompt in part.prompt],
            response_tokens=np.concatenate([part.response_tokens for part in parts]),
            model=[model for part in parts for model in part.model],
            source=[source for part in parts for source in part.source],
            weight=np.concatenate([part.weight for part in parts]),
            length_label=labels.pop(),
        )

    def take(self, rows: list[int]) -> Records:
        """The given rows, in the given order."""
        return Records(
            prompt=[self.prompt[row] for row in rows],
            response_tokens=self.response_tokens[rows],
            model=[self.model[row] for row in rows],
            source=[self.source[row] for row in rows],
            weight=self.weight[rows],
            length_label=self.length_label,
        )

    def save(self, path: Path) -> None:
        """Write Parquet, zstd."""
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({name: getattr(self, name) for name in COLUMNS})
        pq.write_table(table.replace_schema_metadata({LENGTH_LABEL_KEY: self.length_label}), path, compression="zstd")

    def sha256(self) -> str:
        """Hash of the content, independent of the file format it came from."""
        digest = hashlib.sha256()
        for row in zip(self.prompt, self.response_tokens, self.model, self.weight, strict=True):
            digest.update(
                "\x00".join((row[0], repr(float(row[1])), row[2], repr(float(row[3])), "")).encode("utf-8", "surrogatepass")
            )
        return digest.hexdigest()
