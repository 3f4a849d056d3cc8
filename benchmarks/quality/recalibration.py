"""What a few of the operator's own prompts repair: expected tokens of a ranker with its own calibration, and with one made anew.

A calibration is monotone in the score, so it leaves the order, and tau with it, as it was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainer.calibrate import CalibrationTable, calibrate
from trainer.model_effects import Examples
from trainer.reliability import reliability

FloatArray = npt.NDArray[np.float64]

CALIBRATION_PROMPTS = 200
SUBSET_SEED = 0


def recalibration(
    own: CalibrationTable, validation_scores: FloatArray, validation: Examples, test_scores: FloatArray, test: Examples
) -> dict[str, dict[str, float | int]]:
    """Errors on the test part with the ranker's `own` table, and with one from 200 validation prompts (all, when there are fewer)."""
    rows = np.random.default_rng(SUBSET_SEED).permutation(len(validation))[:CALIBRATION_PROMPTS]
    anew = calibrate(validation_scores[rows], validation.sampled_tokens[rows])
    return {
        "own": errors(own, test_scores, test.sampled_tokens) | {"prompts": own.prompt_count},
        "anew": errors(anew, test_scores, test.sampled_tokens) | {"prompts": len(rows)},
    }


def errors(table: CalibrationTable, scores: FloatArray, tokens: FloatArray) -> dict[str, float]:
    """factor: the typical (median) factor between expected and real tokens, 1 at best. covered: share of responses up to the expected
    90th percentile, 0.9 at best. scores, tokens: float[n]; one real response's tokens for each prompt."""
    expected = np.interp(scores, table.scores, table.expected_tokens)
    return {
        "factor": round(float(np.exp(np.median(np.abs(np.log(expected / tokens))))), 3),
        "covered": round(reliability(scores, tokens, table).covered, 4),
    }
