"""Records from local files with named columns."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pars.text import encodable
from trainer.errors import DataError
from trainer.lengths import LengthCounter
from trainer.messages import conversation_texts
from trainer.records import UNKNOWN, Records
from trainer.tables import Columns, column, length_label, read_columns

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalSource:
    """Where the rows are and what their columns are called.

    Either `tokens_column` holds lengths, or `response_column` holds texts to be counted. `messages_column` holds conversations, and
    counts instead of `prompt_column`. `prompts_path` and `join_column` serve data sets that keep each prompt once and its many
    responses in another file. Rows where `drop_column` is true are left out.
    """

    path: Path
    prompt_column: str = "prompt"
    messages_column: str | None = None
    tokens_column: str = "response_tokens"
    response_column: str | None = None
    model_column: str | None = None
    weight_column: str | None = None
    source_column: str | None = None
    prompts_path: Path | None = None
    join_column: str | None = None
    drop_column: str | None = None
    name: str | None = None

    @classmethod
    def of_records(cls, path: Path) -> LocalSource:
        """A file with the column names of the contract, optional ones where it has them; `messages` where it has no `prompt`."""
        names = read_columns(path)
        return cls(
            path,
            messages_column="messages" if "messages" in names and "prompt" not in names else None,
            model_column="model" if "model" in names else None,
            weight_column="weight" if "weight" in names else None,
            source_column="source" if "source" in names else None,
        )

    def load(self, counter: LengthCounter | None = None) -> Records:
        """Read the rows. `counter` is needed with `response_column` only. Says in the log what was left out, and why."""
        columns = read_columns(self.path)
        prompts = self._prompts(columns)
        lengths = self._lengths(columns, counter)
        dropped = self._dropped(columns, len(prompts))
        no_prompt = "without a prompt" if self.messages_column is None else "without text from a user"
        causes = {
            "marked to be dropped": [index for index, drop in enumerate(dropped) if drop],
            no_prompt: [index for index, prompt in enumerate(prompts) if not dropped[index] and not prompt],
            "without a response": [
                index for index, prompt in enumerate(prompts) if not dropped[index] and prompt and not lengths[index]
            ],
        }
        summary = ", ".join(f"{len(rows)} {cause}" for cause, rows in causes.items() if rows)
        if summary:
            _log.info("%s: %d rows, left out: %s", self.path, len(prompts), summary)
        out = {index for rows in causes.values() for index in rows}
        keep = [index for index in range(len(prompts)) if index not in out]
        if not keep:
            raise DataError(f"{self.path}: no records: of {len(prompts)} rows, {summary}")
        models, sources = self._texts(columns, self.model_column), self._texts(columns, self.source_column)
        weights = column(columns, self.weight_column, self.path) if self.weight_column else None
        return Records.build(
            [prompts[index] for index in keep],
            [lengths[index] for index in keep],
            model=[models[index] for index in keep] if models else None,
            source=[sources[index] for index in keep] if sources else self.name or self.path.stem,
            weight=[self._number(weights[index], "weight") for index in keep] if weights else None,
            length_label=counter.label if self.response_column and counter else length_label(self.path) or UNKNOWN,
        )

    def _prompts(self, columns: Columns) -> list[str]:
        """The prompt of every row, "" where there is none."""
        if self.prompts_path is None:
            return self._prompt_texts(columns, self.path)
        if self.join_column is None:
            raise DataError(f"{self.prompts_path}: joining prompts needs a join column that both files have")
        prompts = read_columns(self.prompts_path)
        keys = [str(key) for key in column(prompts, self.join_column, self.prompts_path)]
        if len(set(keys)) != len(keys):
            raise DataError(f"{self.prompts_path}: column {self.join_column!r} has a value twice")
        text_of = dict(zip(keys, self._prompt_texts(prompts, self.prompts_path), strict=True))
        return [text_of.get(str(key), "") for key in column(columns, self.join_column, self.path)]

    def _prompt_texts(self, columns: Columns, path: Path) -> list[str]:
        """Of the file that has the prompts, or the conversations: the text of every row, "" where there is none."""
        if self.messages_column is not None:
            texts = conversation_texts(column(columns, self.messages_column, path), self.messages_column, path)
        else:
            texts = column(columns, self.prompt_column, path)
            wrong = next((text for text in texts if text is not None and not isinstance(text, str)), None)
            if wrong is not None:
                raise DataError(f"{path}: column {self.prompt_column!r} holds {type(wrong).__name__} values, expected texts")
        return [encodable(text) if text and text.strip() else "" for text in texts]

    def _lengths(self, columns: Columns, counter: LengthCounter | None) -> list[float]:
        """The length of every row's response, 0 where there is none."""
        if self.response_column is None:
            values = column(columns, self.tokens_column, self.path)
            return [0.0 if value is None or value == "" else self._number(value, "response length") for value in values]
        if counter is None:
            raise DataError(f"{self.path}: counting column {self.response_column!r} needs a length counter")
        texts = column(columns, self.response_column, self.path)
        return [float(count) for count in counter.count([text if isinstance(text, str) else "" for text in texts])]

    def _dropped(self, columns: Columns, count: int) -> list[bool]:
        if self.drop_column is None:
            return [False] * count
        values = column(columns, self.drop_column, self.path)
        known = {True: True, False: False, None: False, "true": True, "false": False, "": False}
        lowered = [value.lower() if isinstance(value, str) else value for value in values]
        wrong = next((value for value in lowered if value not in known), None)
        if wrong is not None:
            raise DataError(f"{self.path}: column {self.drop_column!r} holds {wrong!r}, expected true or false")
        return [known[value] for value in lowered]

    def _texts(self, columns: Columns, name: str | None) -> list[str] | None:
        return [str(value) for value in column(columns, name, self.path)] if name else None

    def _number(self, value: Any, what: str) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            raise DataError(f"{self.path}: {what} {value!r} is not a number") from None
