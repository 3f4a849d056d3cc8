"""How long a response is. Tokens of a chosen tokenizer; words or characters only when asked for by name.

Words and characters misorder code and non-English answers, which is why the unit is part of every result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from trainer.errors import DataError

BATCH = 1000
UNITS = ("tokens", "words", "chars")


@dataclass(frozen=True)
class LengthCounter:
    """Counts texts. `label` says with what; it stays with the records and ends up in the checkpoint."""

    label: str
    count_batch: Callable[[list[str]], list[int]]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text; a progress bar when it takes long."""
        starts = range(0, len(texts), BATCH)
        counts: list[int] = []
        for start in tqdm(starts, desc=f"counting {self.label}", unit="k", disable=len(starts) < 5):
            counts.extend(self.count_batch(list(texts[start : start + BATCH])))
        return counts


def length_counter(unit: str, tokenizer: str | None = None) -> LengthCounter:
    """Counter for `unit` (one of UNITS); `tokenizer` is a Hugging Face name or folder, needed for tokens only."""
    if unit == "words":
        return LengthCounter("words", lambda texts: [len(text.split()) for text in texts])
    if unit == "chars":
        return LengthCounter("chars", lambda texts: [len(text) for text in texts])
    if unit != "tokens":
        raise DataError(f"unknown length unit {unit!r}; expected one of {', '.join(UNITS)}")
    if tokenizer is None:
        raise DataError(
            "counting tokens needs a tokenizer: name the one of the model you serve, such as --length-tokenizer NAME"
        )
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load tokenizer {tokenizer!r}: {str(error).splitlines()[0]}") from error

    def count_batch(texts: list[str]) -> list[int]:
        # No begin and end tokens: they are not generated.
        encoded = loaded(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    return LengthCounter(tokenizer, count_batch)
