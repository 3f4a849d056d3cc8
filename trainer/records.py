"""The rows trainers read: a prompt, how many tokens a response to it had, and which model gave it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import DataError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Records:
    """Columns of equal length; one row per prompt and answering model.

    prompt: text. response_tokens: float[n], positive, in tokens. model: who answered. source: the data set, for reporting.
    weight: float[n], how much the row counts in training.
    """

    prompt: list[str]
    response_tokens: npt.NDArray[np.float64]
    model: list[str]
    source: list[str]
    weight: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise DataError(f"record columns differ in length: {lengths}")
        if not len(self):
            raise DataError("no records: nothing left after dropping empty prompts and responses")
        if not (np.isfinite(self.response_tokens).all() and (self.response_tokens > 0).all()):
            raise DataError("response_tokens must be positive numbers")

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
    ) -> Records:
        """Fill the optional columns with their defaults: one unknown model, weight 1."""
        count = len(prompt)
        return cls(
            prompt=prompt,
            response_tokens=np.asarray(response_tokens, dtype=np.float64),
            model=model if model is not None else [UNKNOWN] * count,
            source=source if isinstance(source, list) else [source] * count,
            weight=np.asarray(weight if weight is not None else np.ones(count), dtype=np.float64),
        )

    @classmethod
    def concatenate(cls, parts: list[Records]) -> Records:
        return cls(
            prompt=[prompt for part in parts for prompt in part.prompt],
            response_tokens=np.concatenate([part.response_tokens for part in parts]),
            model=[model for part in parts for model in part.model],
            source=[source for part in parts for source in part.source],
            weight=np.concatenate([part.weight for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write Parquet, zstd."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({field.name: getattr(self, field.name) for field in fields(self)}), path, compression="zstd")

    def sha256(self) -> str:
        """Hash of the content, independent of the file format it came from."""
        digest = hashlib.sha256()
        for prompt, tokens, model in zip(self.prompt, self.response_tokens, self.model, strict=True):
            digest.update(f"{prompt}\x00{tokens!r}\x00{model}\x01".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
