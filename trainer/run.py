"""One training run from records to checkpoint. Every subcommand that produces a checkpoint ends in `finish`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState

from pars.ngram import Weights
from trainer import loop
from trainer.audit import check_data
from trainer.calibrate import calibrate
from trainer.checkpoint import Checkpoint, RankerCard, round_weights_to_half, write_checkpoint
from trainer.config import TrainConfig
from trainer.errors import ConfigError, DataError
from trainer.evaluate import metrics_by_source
from trainer.losses.names import ONE_OUTPUT
from trainer.model_card import write_model_card
from trainer.model_effects import Examples, to_examples
from trainer.ngram_fit import fit_ngram_weights, score_all
from trainer.pairs import PromptPair
from trainer.ranker import Ranker
from trainer.recipe import Recipe, check_expectations
from trainer.records import Records
from trainer.report import write_report
from trainer.split import seen_before, split_by_hash

LEAST_ZERO_SHOT_PROMPTS = 1000
MEASURED_PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Parts:
    """The examples of a run by what they are for."""

    train: Examples
    validation: Examples
    test: Examples


def split_examples(examples: Examples, config: TrainConfig) -> Parts:
    """Split by prompt hash. Raises DataError when a part is too small to be of use."""
    rows = split_by_hash(
        examples.prompt,
        validation_share=config.validation_share,
        test_share=config.test_share,
        similarity=config.similarity,
    )
    for name, part in (("training", rows.train), ("validation", rows.validation), ("test", rows.test)):
        if len(part) < 2:
            raise DataError(f"{len(examples)} prompts leave {len(part)} for the {name} part; at least 2 are needed")
    train = rows.train
    if config.max_train_prompts:
        train = np.sort(np.random.default_rng(config.seed).permutation(train)[: config.max_train_prompts])
    return Parts(examples.take(train), examples.take(rows.validation), examples.take(rows.test))


def run(
    recipe: Recipe,
    records: Records,
    out: Path,
    *,
    command: str,
    pairs: Sequence[PromptPair] | None = None,
    backbone_folder: Path | None = None,
) -> dict[str, Any]:
    """Train, finish, write `out/checkpoint` and `out/report.md`; returns the metrics. Interrupted runs go on where `out/state` stands.

    backbone_folder: a local copy of the configured backbone, where the hub is out of reach.
    Of several processes only the main one finishes and writes; the others return nothing ({}).
    """
    config = recipe.config
    check_servable(config)
    commit = _commit()  # before hours pass and the repository moves on
    findings = check_data(records, config, recipe.length_tokenizer or records.length_label)
    parts = split_examples(to_examples(records, seed=config.seed), config)
    unseen = zero_shot_parts(recipe, parts)  # opened now: a missing file must not cost a training run
    torch.manual_seed(config.seed)  # a backbone's new head is drawn at random
    ranker = Ranker.load(backbone_folder or config.backbone, config.max_tokens, layers=config.layers)
    chosen = parts.validation.take(_some_rows(len(parts.validation), config.validation_prompts, config.seed))
    rows = _rows_of(pairs or (), parts.train.prompt) if config.pairs == "file" else ()
    data = training_set(ranker, parts.train, chosen, rows)
    progress = loop.train(config, data, ranker, out / "state")
    if not PartialState().is_main_process:
        return {}
    card = RankerCard(
        name=recipe.name,
        max_tokens=config.max_tokens,
        length_tokenizer=recipe.length_tokenizer or records.length_label,
        licence=recipe.licence,
        data_statement=recipe.data_statement,
        config=asdict(config),
        command=command,
        commit=commit,
        training={
            "best_step": progress.best_step,
            "best_validation_tau_b": round(progress.best_tau_b, 4),
            "steps": progress.step,
            "encoder_forwards": progress.encoded_prompts,
            "train_seconds": round(progress.train_seconds, 1),
            "train_cpu_seconds": round(progress.train_cpu_seconds, 1),
            "history": progress.history,
        },
    )
    checkpoint = finish(ranker, parts, records, config, card, unseen)
    write_checkpoint(out / "checkpoint", checkpoint)
    write_model_card(out / "checkpoint", checkpoint.card, recipe)
    write_report(out, checkpoint, train=parts.train, validation=parts.validation, test=parts.test, findings=findings)
    check_expectations(recipe, checkpoint.card.metrics)
    return checkpoint.card.metrics


def training_set(
    ranker: Ranker, train: Examples, validation: Examples, pairs: Sequence[tuple[int, int]] = ()
) -> loop.TrainingSet:
    """What the loop wants of examples. pairs: rows of `train`, the longer first, for file mode."""
    return loop.TrainingSet(
        token_ids=ranker.tokenize(train.prompt),
        lengths=train.typical_tokens,
        weights=train.weight,
        validation_token_ids=ranker.tokenize(validation.prompt),
        validation_lengths=validation.typical_tokens,
        pairs=pairs,
        noise=train.noise,
        source=np.unique(train.source, return_inverse=True)[1],
    )


def check_servable(config: TrainConfig) -> None:
    """Raise ConfigError for settings whose ranker a checkpoint cannot hold: one output, and a prompt's beginning, is the contract."""
    if config.loss not in ONE_OUTPUT:
        raise ConfigError(
            f"loss {config.loss!r} is for comparisons: a checkpoint has one output; choose {', '.join(ONE_OUTPUT)}"
        )
    if config.truncation != "head":
        raise ConfigError("truncation head_tail is for comparisons: a bundle reads the beginning of a prompt")


def finish(
    ranker: Ranker,
    parts: Parts,
    records: Records,
    config: TrainConfig,
    card: RankerCard,
    unseen: Mapping[str, Examples] | None = None,
) -> Checkpoint:
    """Fit the cheap scorer, calibrate both on the validation part, open the test part and the zero-shot sets once."""
    round_weights_to_half(ranker)
    train_ids, validation_ids = ranker.tokenize(parts.train.prompt), ranker.tokenize(parts.validation.prompt)
    weights = fit_ngram_weights(
        train_ids, parts.train.typical_tokens, validation_ids, parts.validation.typical_tokens, config.ngram_buckets
    )
    metrics: dict[str, Any] = {
        "prompts": {"train": len(parts.train), "validation": len(parts.validation), "test": len(parts.test)},
        **_judge("test", ranker, weights, parts.test, config),
    }
    for name, examples in (unseen or {}).items():
        if len(examples) < 2:
            continue  # nothing of it is unseen, so nothing can be said
        for key, figures in _judge("zero_shot", ranker, weights, examples, config).items():
            metrics.setdefault(key, {})[name] = figures["all"]
    scores = ranker.score(validation_ids, progress="calibrating")
    return Checkpoint(
        ranker=ranker,
        card=replace(
            card,
            calibration=calibrate(scores, parts.validation.sampled_tokens),
            ngram_calibration=calibrate(score_all(validation_ids, weights), parts.validation.sampled_tokens),
            data_sha256=records.sha256(),
            versions={package: version(package) for package in MEASURED_PACKAGES},
            metrics=metrics,
        ),
        ngram_weights=weights,
    )


def zero_shot_parts(recipe: Recipe, parts: Parts) -> dict[str, Examples]:
    """Of each zero-shot set the prompts that a run trained on it would hold out, less those that this run learns from.

    A set whose held-out part is too small to say much is judged whole: nothing of it is learned from anyway.
    """
    known = parts.train.prompt + parts.validation.prompt
    unseen = {}
    for source in recipe.zero_shot:
        whole = to_examples(source.load(), seed=recipe.config.seed)
        test = split_examples(whole, recipe.config).test
        if len(test) < LEAST_ZERO_SHOT_PROMPTS:
            test = whole
        unseen[source.name] = test.take(np.nonzero(~seen_before(test.prompt, known, recipe.config.similarity))[0])
    return unseen


def _judge(
    part: str, ranker: Ranker, ngram_weights: Weights, examples: Examples, config: TrainConfig
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Metrics of everything that could order these prompts, under `part` for the encoder and `part_…` for the rest.

    All are judged against the typical length; `part_one_response` is the encoder against one real response, noise and all.
    """
    token_ids = ranker.tokenize(examples.prompt)
    scores = ranker.score(token_ids, progress=f"scoring {part}")
    judged = {
        part: (scores, examples.typical_tokens),
        f"{part}_one_response": (scores, examples.sampled_tokens),
        f"{part}_ngram": (score_all(token_ids, ngram_weights), examples.typical_tokens),
        f"{part}_prompt_length": (np.array([float(len(prompt)) for prompt in examples.prompt]), examples.typical_tokens),
    }
    return {
        key: metrics_by_source(ordering, lengths, examples.source, min_gap=config.min_gap)
        for key, (ordering, lengths) in judged.items()
    }


def _rows_of(pairs: Sequence[PromptPair], prompts: list[str]) -> list[tuple[int, int]]:
    """Pairs as rows of the training part. Pairs that reach into another part are left out: learning from them would be peeking."""
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    rows = [(row_of[longer], row_of[shorter]) for longer, shorter in pairs if longer in row_of and shorter in row_of]
    if not rows:
        raise DataError("no pair of the pair file lies within the training part of the records")
    return rows


def _some_rows(count: int, at_most: int, seed: int) -> npt.NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(count)[:at_most])


def _commit() -> str:
    """Commit of the trainer's own repository, "" when it is not run from one."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
