"""A ranker of lone prompts is asked about the same prompts inside chats. Rows of figures, a question at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quality.chat_config import ChatConfig
from benchmarks.quality.chat_figures import ChatRow, chat_row
from benchmarks.quality.chat_ways import FOLLOW_UP_WAYS, WAYS, Chat, Way, make_chats, make_follow_ups
from trainer.errors import DataError
from trainer.local import LocalSource
from trainer.model_effects import Examples, to_examples
from trainer.ranker import Ranker
from trainer.recipe import read_recipe
from trainer.run import split_examples
from trainer.split import seen_before

FloatArray = npt.NDArray[np.float64]

AROUND = "a chat around the prompt"
AGAIN = "a follow-up that wants the last response again"
SHORT = "a short prompt, the chat about something else"
TEMPERATURE = "temperature of the response"


@dataclass(frozen=True)
class Prompts:
    """Of one set: prompts that the ranker never saw, and lengths as training orders by them, float[n], in tokens."""

    name: str
    examples: Examples

    def some(self, count: int, seed: int, *, max_chars: int | None = None) -> Prompts:
        """At most `count`, drawn by seed, of those with at most `max_chars` characters; at least 2 or DataError."""
        fits = [row for row, prompt in enumerate(self.examples.prompt) if max_chars is None or len(prompt) <= max_chars]
        rows = np.sort(np.random.default_rng(seed).permutation(np.asarray(fits, dtype=np.int64))[:count])
        if len(rows) < 2:
            raise DataError(f"{self.name}: {len(rows)} unseen prompts of at most {max_chars} characters; at least 2 are needed")
        return Prompts(self.name, self.examples.take(rows))


def measure(config: ChatConfig, ranker: Ranker, data_folder: Path) -> list[ChatRow]:
    """All rows, a few minutes on one core. Raises TrainerError for data that is not there."""
    unseen = unseen_prompts(config, data_folder)
    rows = [row for prompts in unseen for row in _around(config, ranker, prompts.some(config.prompts, config.seed))]
    single = next((prompts for prompts in unseen if prompts.name == config.single_model_set), None)
    if single is None:
        raise DataError(f"single_model_set {config.single_model_set!r} is none of the sets")
    some = single.some(config.prompts, config.seed)
    follow_ups = make_follow_ups(some.examples.prompt, seed=config.seed)
    rows += _by_way(AGAIN, some, FOLLOW_UP_WAYS, follow_ups, config, ranker)
    short = single.some(config.prompts, config.seed, max_chars=config.short_prompt_chars)
    # What was asked before is of any length, as in real chats.
    earlier = make_chats(some.examples.prompt, some.examples.typical_tokens.tolist(), earlier=1, seed=config.seed)
    drawn = np.random.default_rng(config.seed).integers(0, len(earlier), size=len(short.examples))
    chats = [Chat(prompt, earlier[row].earlier) for prompt, row in zip(short.examples.prompt, drawn, strict=True)]
    rows += _by_way(SHORT, short, FOLLOW_UP_WAYS, chats, config, ranker)
    return rows + _temperatures(config, ranker, some, data_folder)


def unseen_prompts(config: ChatConfig, data_folder: Path) -> list[Prompts]:
    """Of every set the prompts that are neither among, nor near-duplicates of, those the recipe's ranker learned from."""
    recipe = read_recipe(config.recipe, data_folder)
    parts = split_examples(to_examples(recipe.records(), seed=recipe.config.seed), recipe.config)
    known = parts.train.prompt + parts.validation.prompt
    found = []
    for name in config.sets:
        examples = to_examples(_source(name, data_folder).load(), seed=config.seed)
        rows = np.nonzero(~seen_before(examples.prompt, known, recipe.config.similarity))[0]
        found.append(Prompts(name, examples.take(rows)))
    return found


def _source(name: str, folder: Path, tokens_column: str = "response_tokens") -> LocalSource:
    """A set by its name: one file, or one of responses and one of prompts."""
    path, prompts = folder / f"{name}.parquet", folder / f"{name}_prompts.parquet"
    if not prompts.is_file():
        return LocalSource(path, model_column="model", tokens_column=tokens_column)
    return LocalSource(
        path, model_column="model", prompts_path=prompts, join_column="prompt_id", drop_column="reasoning_hidden"
    )


def _around(config: ChatConfig, ranker: Ranker, prompts: Prompts) -> list[ChatRow]:
    lengths = prompts.examples.typical_tokens.tolist()
    chats = make_chats(prompts.examples.prompt, lengths, earlier=config.earlier_turns, seed=config.seed)
    return _by_way(AROUND, prompts, WAYS, chats, config, ranker)


def _by_way(
    question: str, prompts: Prompts, ways: Mapping[str, Way], chats: Sequence[Chat], config: ChatConfig, ranker: Ranker
) -> list[ChatRow]:
    """A row per way; the first is what the others are compared with. chats: one for each of the prompts' lengths."""
    texts = {name: [way(chat) for chat in chats] for name, way in ways.items()}
    scores = {name: ranker.score(ranker.tokenize(made), progress=f"{prompts.name}: {name}") for name, made in texts.items()}
    base = next(iter(scores.values()))
    return [
        chat_row(
            question,
            prompts.name,
            name,
            scores[name],
            base,
            prompts.examples.typical_tokens,
            min_gap=config.min_gap,
            resamples=config.resamples,
            unread=unread_share(ranker, texts[name], [chat.prompt for chat in chats]),
        )
        for name in ways
    ]


def unread_share(ranker: Ranker, texts: Sequence[str], prompts: Sequence[str]) -> float:
    """Share of the texts of which the ranker reads no token of the prompt that they hold. texts, prompts: equally many."""
    # The prompt ends a text that it does not begin, so its last place is its own, however short it is.
    starts = [0 if text.startswith(prompt) else text.rfind(prompt) for text, prompt in zip(texts, prompts, strict=True)]
    before = [text[:start] for text, start in zip(texts, starts, strict=True)]
    return float(np.mean([len(ids) >= ranker.max_tokens for ids in ranker.tokenize(before)]))


def _temperatures(config: ChatConfig, ranker: Ranker, prompts: Prompts, data_folder: Path) -> list[ChatRow]:
    """The same prompts and scores, against responses that were sampled otherwise."""
    scores = ranker.score(ranker.tokenize(prompts.examples.prompt))
    rows: list[ChatRow] = []
    first: FloatArray | None = None
    for name, tokens_column in config.temperatures.items():
        sampled = _source(prompts.name, data_folder, tokens_column).load()
        tokens_of = dict(zip(sampled.prompt, sampled.response_tokens.tolist(), strict=True))
        lengths = np.array([tokens_of[prompt] for prompt in prompts.examples.prompt])
        first = lengths if first is None else first
        rows.append(
            chat_row(
                TEMPERATURE,
                prompts.name,
                name,
                scores,
                scores,
                lengths,
                base_lengths=first,
                min_gap=config.min_gap,
                resamples=config.resamples,
            )
        )
    return rows
