"""The cheap tier: a linear model on hashed token n-grams. The features live in `pars.ngram`, shared with the trainer."""

from collections.abc import Sequence

import numpy as np

from pars import ngram
from sidecar.scorer import Scores, TokenizedPrompt


class NgramScorer:
    """Tens of microseconds per prompt, no state, any thread. weights: float32[pars.ngram.weight_count(bucket_count)]."""

    def __init__(self, weights: ngram.Weights) -> None:
        self._weights = weights

    def score(self, batch: Sequence[TokenizedPrompt]) -> Scores:
        """Return float32[len(batch)]."""
        return np.array([ngram.score(prompt.token_ids, self._weights) for prompt in batch], dtype=np.float32)
