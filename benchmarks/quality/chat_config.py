"""The committed settings of the chat measurement, and the ranges its figures must lie in."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.chat_figures import ChatRow
from trainer.errors import ConfigError, ExpectationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The row that it is about, and the lowest and highest change of tau-b against the first row of that question and set."""

    question: str
    dataset: str
    way: str
    change: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatConfig:
    """See chat.toml. prompts: at most, of each set and question. temperatures: name to column of `single_model_set`."""

    seed: int
    prompts: int
    min_gap: float
    resamples: int
    earlier_turns: int
    sets: tuple[str, ...]
    recipe: Path
    single_model_set: str
    short_prompt_chars: int
    temperatures: Mapping[str, str]
    expect: tuple[Expectation, ...] = ()


def read_config(path: Path) -> ChatConfig:
    """Raises ConfigError when the file cannot be read or has other keys."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        expect = tuple(Expectation(**{**each, "change": tuple(each["change"])}) for each in raw.pop("expect", ()))
        return ChatConfig(**{**raw, "sets": tuple(raw["sets"]), "recipe": Path(raw["recipe"]), "expect": expect})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def check_expectations(config: ChatConfig, rows: Sequence[ChatRow]) -> None:
    """Raise ExpectationError for the first change of tau that lies outside its range, or is not there."""
    for each in config.expect:
        of_row = {(row.question, row.dataset, row.way): row.change for row in rows}
        change = of_row.get((each.question, each.dataset, each.way))
        low, high = each.change
        if change is None or not low <= change <= high:
            raise ExpectationError(
                f"{each.question}, {each.dataset}, {each.way}: tau changes by {change}, expected {low} to {high}"
            )
