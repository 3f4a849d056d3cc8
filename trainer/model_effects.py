"""Many models' response lengths into one: log length = prompt effect + model effect + noise.

Models differ in verbosity far more than prompts differ in what they ask of a model; taking the model effect out lets answers of
different models train one ranker, and prompts answered by chatty models are not mistaken for long ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from trainer.records import Records
from trainer.repeat_noise import fit_noise_curve

FloatArray = npt.NDArray[np.float64]

MODEL_RIDGE = 1.0
"""A model's effect is pulled towards zero as if it had one more prompt with no effect. It also fixes the level of a group of models
that shares no prompt with any other, which the data alone cannot."""


@dataclass(frozen=True)
class Examples:
    """One row per distinct prompt.

    typical_tokens: float[n], the geometric mean over models with their effects removed; what training orders by.
    sampled_tokens: float[n], one real response with its model's effect removed; keeps the noise that calibration must show.
    noise: float[n], standard deviation of log tokens between responses of one model to one prompt of this length; 0 where no prompt was
    answered twice by the same model.
    """

    prompt: list[str]
    typical_tokens: FloatArray
    sampled_tokens: FloatArray
    source: list[str]
    weight: FloatArray
    noise: FloatArray

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, rows: npt.NDArray[np.int64]) -> Examples:
        """The given rows, in the given order."""
        return Examples(
            prompt=[self.prompt[row] for row in rows],
            typical_tokens=self.typical_tokens[rows],
            sampled_tokens=self.sampled_tokens[rows],
            source=[self.source[row] for row in rows],
            weight=self.weight[rows],
            noise=self.noise[rows],
        )


def to_examples(records: Records, *, seed: int = 0) -> Examples:
    """Merge the rows of each prompt. Prompts keep the order of their first row; a prompt belongs to the source it came from first."""
    prompts, first_row, prompt_of = _codes(records.prompt)
    _, _, model_of = _codes(records.model)
    log_tokens = np.log(records.response_tokens)
    effects = fit_model_effects(log_tokens, prompt_of, model_of)
    adjusted = log_tokens - effects[model_of]
    weight = np.bincount(prompt_of, records.weight)
    typical = np.bincount(prompt_of, adjusted * records.weight) / weight
    # A random row per prompt: shuffle, then keep the first of each.
    order = np.random.default_rng(seed).permutation(len(records))
    sampled_row = np.empty(len(prompts), dtype=np.int64)
    sampled_row[prompt_of[order[::-1]]] = order[::-1]
    return Examples(
        prompt=prompts,
        typical_tokens=np.exp(typical),
        sampled_tokens=np.exp(adjusted[sampled_row]),
        source=[records.source[row] for row in first_row],
        weight=weight / np.bincount(prompt_of),
        noise=fit_noise_curve(log_tokens, prompt_of * (int(model_of.max()) + 1) + model_of).at(np.exp(typical)),
    )


def fit_model_effects(log_tokens: FloatArray, prompt_of: npt.NDArray[np.int64], model_of: npt.NDArray[np.int64]) -> FloatArray:
    """Effect of each model in log tokens: least squares with a small ridge on the models, solved exactly.

    log_tokens, prompt_of, model_of: [n], a row per response; the codes are 0-based. Returns float[models].
    """
    models = int(model_of.max()) + 1
    answers = csr_array((np.ones(len(log_tokens)), (prompt_of, model_of)))  # [prompts, models], how often each answered
    rows_of_prompt = np.bincount(prompt_of)
    # With the prompts eliminated, one equation per model is left.
    within = log_tokens - (np.bincount(prompt_of, log_tokens) / rows_of_prompt)[prompt_of]
    shared = (answers.T @ (answers / rows_of_prompt[:, None])).toarray()
    system = np.diag(np.bincount(model_of) + MODEL_RIDGE) - shared
    effects: FloatArray = np.linalg.solve(system, np.bincount(model_of, within, minlength=models))
    return effects


def _codes(values: list[str]) -> tuple[list[str], list[int], npt.NDArray[np.int64]]:
    """Distinct values in order of appearance, the row of each first appearance, and the code of every row."""
    code_of: dict[str, int] = {}
    first_row: list[int] = []
    codes = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        code = code_of.setdefault(value, len(code_of))
        if code == len(first_row):
            first_row.append(row)
        codes[row] = code
    return list(code_of), first_row, codes
