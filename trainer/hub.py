"""Records from the four GPT-4 data sets of the reference release, by their hub names, one small adapter each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
from tqdm import tqdm

from pars.text import chat_text
from trainer.errors import DataError
from trainer.lengths import LengthCounter
from trainer.records import Records

Row = Mapping[str, Any]
Turn = tuple[str, str] | None
"""A prompt and its response, or None for a row that is not wanted."""


@dataclass(frozen=True)
class HubSource:
    """One data set: `path` on the hub, and how a row becomes a prompt with its response."""

    name: str
    path: str
    columns: tuple[str, ...]
    to_turn: Callable[[Row], Turn]
    model: str = "gpt-4"
    split: str = "train"

    def load(self, counter: LengthCounter, *, limit: int | None = None) -> Records:
        """Download and convert. Raises DataError when the set is gated, absent, unreachable or has other columns."""
        return self.convert(self._download(), counter, limit=limit)

    def convert(self, rows: Iterable[Row], counter: LengthCounter, *, limit: int | None = None) -> Records:
        """Rows of the data set to records; the first `limit` usable ones."""
        turns: list[tuple[str, str]] = []
        for row in tqdm(rows, desc=f"reading {self.name}", unit=" rows"):
            missing = [column for column in self.columns if column not in row]
            if missing:
                raise DataError(f"{self.path}: no column {', '.join(missing)}; it has {', '.join(row)}")
            turn = self.to_turn(row)
            if turn is not None and turn[0].strip() and turn[1].strip():
                turns.append(turn)
            if limit is not None and len(turns) >= limit:
                break
        lengths = counter.count([response for _, response in turns])
        kept = [(prompt, float(length)) for (prompt, _), length in zip(turns, lengths, strict=True) if length > 0]
        return Records.build(
            [prompt for prompt, _ in kept],
            [length for _, length in kept],
            model=[self.model] * len(kept),
            source=self.name,
            length_label=counter.label,
        )

    def _download(self) -> Iterable[Row]:
        try:
            rows: Iterable[Row] = datasets.load_dataset(self.path, split=self.split)
        except datasets.exceptions.DatasetNotFoundError as error:
            # Raised for a gated set without access as well as for one that does not exist.
            raise DataError(
                f"{self.path}: not found or not open to you. If it is gated, accept its terms on its hub page and log in with "
                f"`hf auth login`. ({str(error).splitlines()[0]})"
            ) from error
        except (ConnectionError, OSError) as error:
            raise DataError(
                f"{self.path}: the hub cannot be reached, and no copy is cached: {str(error).splitlines()[0]}"
            ) from error
        return rows


def _alpaca(row: Row) -> Turn:
    """Instruction and optional input, as Alpaca joins them."""
    given = f"\n{row['input']}" if row["input"] else ""
    return f"{row['instruction']}{given}", row["output"]


def _instruction(row: Row) -> Turn:
    return row["instruction"], row["output"]


def _lmsys(row: Row) -> Turn:
    """Conversations with GPT-4 of exactly one exchange, as in the reference release. The text is the one that a server would score."""
    conversation = row["conversation"]
    if row["model"] != "gpt-4" or [turn["role"] for turn in conversation] != ["user", "assistant"]:
        return None
    return chat_text(conversation), conversation[-1]["content"]


HUB_SOURCES = {
    source.name: source
    for source in (
        HubSource("alpaca", "vicgalle/alpaca-gpt4", ("instruction", "input", "output"), _alpaca),
        HubSource("code", "theblackcat102/evol-codealpaca-v1", ("instruction", "output"), _instruction),
        HubSource("lmsys", "lmsys/lmsys-chat-1m", ("model", "conversation"), _lmsys),
        HubSource("math", "TIGER-Lab/MATH-plus", ("instruction", "output"), _instruction),
    )
}
"""The reference release's four sets. lmsys is gated: its terms must be accepted once."""
