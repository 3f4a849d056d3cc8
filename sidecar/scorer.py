"""What the engine asks of a model: one float per prompt. The encoder session, the n-gram scorer and test fakes all fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

ProviderChoice = Literal["auto", "cpu", "cuda"]
"""Where an encoder may run. auto: CUDA where it works, else CPU. The others: there or not at all."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """One prompt as the ranker reads it.

    token_ids: int64[n], special tokens included, cut to the model's length. n may be 0 where a tokenizer adds nothing to the
    empty text.
    truncated: true when the ranker reads only the beginning of the prompt.
    """

    token_ids: npt.NDArray[np.int64]
    truncated: bool


class Scorer(Protocol):
    """Scores a batch. Called from several threads at once."""

    def score(self, batch: Sequence[TokenizedPrompt]) -> Scores:
        """Return float32[len(batch)], higher meaning a longer expected response."""
        ...
