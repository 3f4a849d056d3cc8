"""Models that fail, each in its own way: the `outcome` of a HeldScorer."""

from collections.abc import Sequence

import numpy as np

from sidecar.errors import ModelError
from sidecar.scorer import TokenizedPrompt


def raises_model_error(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    raise ModelError("told to fail")


def raises_foreign_error(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    raise ZeroDivisionError("told to fail")


def one_score_too_many(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.zeros(len(batch) + 1, dtype=np.float32)


def two_dimensional(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.zeros((len(batch), 1), dtype=np.float32)


def not_a_number(batch: Sequence[TokenizedPrompt]) -> np.ndarray:
    return np.full(len(batch), np.nan, dtype=np.float32)


FAILURES = [raises_model_error, raises_foreign_error, one_score_too_many, two_dimensional, not_a_number]
