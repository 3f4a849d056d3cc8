"""The checkpoint as transformers alone would serve it: fp32 on the CPU, one padded forward for all prompts given."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class Classifier:
    """Tokenizer and model. How many threads a forward uses is left to whoever starts it, as PyTorch does."""

    def __init__(self, checkpoint: Path, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        # Stored as fp16; the widened numbers are exact.
        self._model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def score(self, prompts: Sequence[str]) -> list[float]:
        """One score each, in the order given."""
        encoded = self._tokenizer(
            list(prompts), padding="longest", truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with torch.no_grad():
            scores: list[float] = self._model(**encoded).logits.squeeze(-1).tolist()
        return scores
