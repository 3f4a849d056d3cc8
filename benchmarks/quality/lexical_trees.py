"""The cheap competitor: gradient-boosted trees on lexical features of the prompt, in the manner of Clairvoyant (arXiv 2606.07248).

Clairvoyant sorts prompts into three classes of length from 19 lexical features. Here the trees predict the logarithm of the length, from
more features of the same kind: an order within a class is worth something to a scheduler, and a competitor should be met at its best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from benchmarks.quality.lexical_features import FEATURES, features

FloatArray = npt.NDArray[np.float64]

__all__ = ["FEATURES", "SETTINGS", "LexicalTrees", "features", "fit"]

SETTINGS: dict[str, float | int | str] = {
    "loss": "squared_error",  # of log tokens
    "learning_rate": 0.05,
    "max_iter": 600,  # early stopping ends sooner on all but the largest sets
    "max_leaf_nodes": 31,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "n_iter_no_change": 20,
}
VALIDATION_SHARE = 0.1
"""Of the training prompts, chosen by seed, for early stopping where no validation part is given."""


@dataclass(frozen=True)
class LexicalTrees:
    """trees: fitted on `features`."""

    trees: HistGradientBoostingRegressor

    def predict(self, prompts: Sequence[str]) -> FloatArray:
        """Expected log tokens, float64[n]; higher is longer."""
        return np.asarray(self.trees.predict(features(prompts)), dtype=np.float64)


def fit(
    prompts: Sequence[str],
    lengths: FloatArray,
    *,
    seed: int,
    validation: tuple[Sequence[str], FloatArray] | None = None,
) -> LexicalTrees:
    """lengths: float[n], positive, in tokens. validation: prompts and lengths that stop the boosting early, never learned from.

    The same seed and data give the same trees. Raises ValueError when prompts and lengths differ in number.
    """
    if len(prompts) != len(lengths):
        raise ValueError(f"{len(prompts)} prompts but {len(lengths)} lengths")
    trees = HistGradientBoostingRegressor(
        **SETTINGS, early_stopping=True, validation_fraction=VALIDATION_SHARE, random_state=seed
    )
    if validation is None:
        trees.fit(features(prompts), np.log(lengths))
    else:
        trees.fit(features(prompts), np.log(lengths), X_val=features(validation[0]), y_val=np.log(validation[1]))
    return LexicalTrees(trees)
