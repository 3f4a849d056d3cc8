"""From a run's settings to scores: what each kind of method knows of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.quality import lexical_trees
from benchmarks.quality.experiment import Run
from trainer import loop
from trainer.ngram_fit import fit_ngram_weights, score_all
from trainer.pairs import sampled_pairs
from trainer.ranker import Ranker
from trainer.run import Parts, training_set

FloatArray = npt.NDArray[np.float64]
Score = Callable[[Sequence[str]], FloatArray]

PAIRS_PER_PROMPT = 10
"""Partners drawn for each prompt, as the reference release draws them."""


@dataclass(frozen=True)
class Fitted:
    """score: prompts to scores, higher means longer. training: what learning it took, for the run's JSON; empty for untrained ones."""

    score: Score
    training: dict[str, Any] = field(default_factory=dict)


def fit(run: Run, parts: Parts, backbone: Path, state: Path) -> Fitted:
    """Make the scorer of a run. backbone: folder of the encoder. state: where an interrupted training goes on."""
    match run.kind:
        case "arrival":
            rng = np.random.default_rng(run.seed)
            return Fitted(lambda prompts: rng.permutation(len(prompts)).astype(np.float64))
        case "max_tokens":
            # One limit for every request, which is what the sources had.
            return Fitted(lambda prompts: np.zeros(len(prompts)))
        case "prompt_length":
            return Fitted(lambda prompts: np.array([float(len(prompt)) for prompt in prompts]))
        case "ngram":
            return _ngram(run, parts, backbone)
        case "trees":
            trees = lexical_trees.fit(
                parts.train.prompt,
                parts.train.typical_tokens,
                seed=run.seed,
                validation=(parts.validation.prompt, parts.validation.typical_tokens),
            )
            return Fitted(trees.predict)
        case "checkpoint":
            ranker = Ranker.load(Path(run.start), run.config.max_tokens)
            return Fitted(lambda prompts: ranker.score(ranker.tokenize(prompts)))
    return _encoder(run, parts, backbone, state)


def _ngram(run: Run, parts: Parts, backbone: Path) -> Fitted:
    ranker = Ranker.load(backbone, run.config.max_tokens)  # for its tokenizer
    weights = fit_ngram_weights(
        ranker.tokenize(parts.train.prompt),
        parts.train.typical_tokens,
        ranker.tokenize(parts.validation.prompt),
        parts.validation.typical_tokens,
        run.config.ngram_buckets,
    )
    return Fitted(lambda prompts: score_all(ranker.tokenize(prompts), weights))


def _encoder(run: Run, parts: Parts, backbone: Path, state: Path) -> Fitted:
    config = run.config
    torch.manual_seed(config.seed)
    outputs = loop.objective_of(config, parts.train.typical_tokens).outputs
    ranker = Ranker.load(
        Path(run.start) if run.start else backbone,
        config.max_tokens,
        outputs=outputs,
        layers=config.layers,
        truncation=config.truncation,
    )
    pairs: list[tuple[int, int]] = []
    if config.pairs == "file":
        drawn = sampled_pairs(parts.train.typical_tokens, per_prompt=PAIRS_PER_PROMPT, min_gap=config.min_gap, seed=config.seed)
        pairs = list(zip(*(side.tolist() for side in drawn), strict=True))
    data = training_set(ranker, parts.train, parts.validation, pairs)
    progress = loop.train(config, data, ranker, state)
    return Fitted(
        lambda prompts: ranker.score(ranker.tokenize(prompts)),
        {
            "validation_tau": round(progress.best_tau_b, 4),
            "train_seconds": round(progress.train_seconds, 1),
            "train_cpu_seconds": round(progress.train_cpu_seconds, 1),
            "encoder_forwards": progress.encoded_prompts,
            "history": progress.history,
        },
    )
