"""The recipe: step, evaluate, keep the best; resumable at every evaluation."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_model, save_model
from tqdm import tqdm

from trainer.batches import Batch, file_pairs, in_batch_pairs, parts_of_similar_size
from trainer.config import TrainConfig
from trainer.errors import ConfigError, DataError, TrainerError
from trainer.evaluate import rank_metrics
from trainer.losses.objective import LengthScale, Objective, make_objective, make_target
from trainer.ranker import Ranker

FloatArray = npt.NDArray[np.float64]
TokenLists = Sequence[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class TrainingSet:
    """Tokenised prompts to learn from and to choose by. lengths and weights are float[n]; pairs are rows, longer first, file mode
    only. noise is float[n], the standard deviation of log tokens between responses to one prompt, where it is known.
    source is int64[n], a number for each data set."""

    token_ids: TokenLists
    lengths: FloatArray
    weights: FloatArray
    validation_token_ids: TokenLists
    validation_lengths: FloatArray
    pairs: Sequence[tuple[int, int]] = ()
    noise: FloatArray | None = None
    source: npt.NDArray[np.int64] | None = None

    def sha256(self) -> str:
        """Hash of everything that steers training, so that a run is not resumed on other data."""
        digest = hashlib.sha256()
        for token_ids in (self.token_ids, self.validation_token_ids):
            digest.update(np.array([len(ids) for ids in token_ids]).tobytes() + b"".join(ids.tobytes() for ids in token_ids))
        optional = [np.empty(0) if values is None else values for values in (self.noise, self.source)]
        for values in (self.lengths, self.weights, self.validation_lengths, np.asarray(self.pairs, dtype=np.int64), *optional):
            digest.update(values.tobytes())
        return digest.hexdigest()


@dataclass
class Progress:
    """Where a run stands. Saved with the weights, so that a killed run goes on exactly as if it had not been."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_tau_b: float = -2.0
    best_step: int = 0
    train_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    encoded_prompts: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def train(config: TrainConfig, data: TrainingSet, ranker: Ranker, state_folder: Path) -> Progress:
    """Train `ranker` in place and leave it with the weights of the best validation tau-b.

    Resumes from `state_folder` when it holds a state of the same configuration; raises ConfigError when of another.
    """
    torch.manual_seed(config.seed)
    # Accelerate keeps the precision of a process's first run for good and refuses another: a later run may have another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=autocast_precision(config.precision))
    steps_per_epoch = len(_batches(config, data, 0)) // accelerator.num_processes
    if not steps_per_epoch:
        raise DataError("no pair to learn from: too few prompts, or all lengths closer than min_gap")
    total_steps = steps_per_epoch * config.epochs
    # In epochs of unequal length (a batch without a pair is left out) the last steps simply run at learning rate zero.
    optimizer = torch.optim.AdamW(_parameter_groups(ranker.model, config.weight_decay), lr=config.learning_rate)
    warmup = max(math.ceil(total_steps * config.warmup_share), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(total_steps - step, 0) / max(total_steps - warmup, 1))
    )
    scale = LengthScale.of(data.lengths)
    objective = objective_of(config, data.lengths)
    noise = data.noise if data.noise is not None else np.zeros(len(data.lengths))
    source = data.source if data.source is not None else np.zeros(len(data.lengths), dtype=np.int64)
    if not noise.any() and (config.noise_gap or config.loss == "soft_logistic"):
        raise ConfigError("noise_gap and soft_logistic need prompts that one model answered more than once; there are too few")
    ranker.to_score = objective.score
    ranker.model.to(accelerator.device)
    model, optimizer = accelerator.prepare(ranker.model, optimizer)
    accelerator.register_for_checkpointing(schedule)
    store = _StateStore(state_folder, _identity(config, data, accelerator), accelerator)
    progress = store.resume()
    evaluate_every = math.ceil(steps_per_epoch / config.evaluations_per_epoch)
    model.train()
    with tqdm(
        total=total_steps, initial=progress.step, desc="training", unit=" steps", disable=not accelerator.is_main_process
    ) as bar:
        while progress.epoch < config.epochs:
            epoch = progress.epoch
            batches = _batches(config, data, epoch)
            mine = batches[accelerator.process_index :: accelerator.num_processes][: len(batches) // accelerator.num_processes]
            for batch in mine[progress.step_in_epoch :]:
                began, began_cpu = time.perf_counter(), time.process_time()
                with accelerator.autocast():
                    token_ids = [data.token_ids[row] for row in batch.rows]
                    outputs = encode(model, ranker, token_ids, may_split=accelerator.num_processes == 1)
                target = make_target(
                    data.lengths[batch.rows],
                    data.weights[batch.rows],
                    batch.longer,
                    batch.shorter,
                    scale,
                    noise[batch.rows],
                    np.where(
                        source[batch.rows[batch.longer]] == source[batch.rows[batch.shorter]], 1.0, config.cross_source_weight
                    ),
                    outputs.device,
                )
                loss = objective.loss(outputs, target)
                accelerator.backward(loss)
                if config.clip_norm:
                    accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                progress.step += 1
                progress.step_in_epoch += 1
                progress.encoded_prompts += len(batch.rows) * accelerator.num_processes
                progress.train_seconds += time.perf_counter() - began
                progress.train_cpu_seconds += time.process_time() - began_cpu
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}", tau_b=f"{progress.best_tau_b:.3f}" if progress.history else "?")
                if not math.isfinite(loss.item()):
                    raise TrainerError(f"the loss became {loss.item()} at step {progress.step}: lower the learning rate")
                ends_epoch = progress.step_in_epoch == len(mine)
                due = ends_epoch or progress.step_in_epoch % evaluate_every == 0
                if ends_epoch:
                    progress.epoch, progress.step_in_epoch = epoch + 1, 0
                if due:
                    _evaluate(progress, data, ranker, store, loss.item())
            progress.epoch, progress.step_in_epoch = epoch + 1, 0  # also when an epoch had no batch left
    store.load_best(ranker)
    return progress


def encode(model: torch.nn.Module, ranker: Ranker, token_ids: TokenLists, *, may_split: bool) -> torch.Tensor:
    """Outputs of the model in the order of the prompts, float32[batch, outputs]; several processes must not split a batch."""
    parts = parts_of_similar_size([len(ids) for ids in token_ids]) if may_split else [np.arange(len(token_ids))]
    outputs = torch.cat([model(**ranker.collate([token_ids[row] for row in part])).logits.float() for part in parts])
    return outputs[torch.from_numpy(np.argsort(np.concatenate(parts))).to(outputs.device)]


def objective_of(config: TrainConfig, lengths: FloatArray) -> Objective:
    """What a run of this configuration on these training lengths minimises."""
    return make_objective(config.loss, LengthScale.of(lengths), margin=config.margin)


def autocast_precision(wanted: str) -> str:
    """Accelerate's name for the precision: bf16 halves the work only where the hardware multiplies it natively."""
    if wanted == "auto":
        native = (
            torch.cuda.is_bf16_supported() if torch.cuda.is_available() else bool(torch.cpu.get_capabilities().get("amx_bf16"))
        )
        wanted = "bf16" if native else "fp32"
    return {"fp32": "no", "bf16": "bf16"}[wanted]


def _batches(config: TrainConfig, data: TrainingSet, epoch: int) -> list[Batch]:
    if config.pairs == "file":
        return file_pairs(data.pairs, batch_pairs=config.batch_prompts, seed=config.seed, epoch=epoch)
    return in_batch_pairs(
        data.lengths,
        np.array([len(ids) for ids in data.token_ids]),
        batch_prompts=config.batch_prompts,
        bucket_batches=config.bucket_batches,
        min_gap=config.min_gap,
        seed=config.seed,
        epoch=epoch,
        noise=data.noise,
        noise_gap=config.noise_gap,
    )


def _identity(config: TrainConfig, data: TrainingSet, accelerator: Accelerator) -> dict[str, Any]:
    """What must be equal for a state to be resumed."""
    return {**asdict(config), "training data": data.sha256(), "number of processes": accelerator.num_processes}


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    # Biases and layer norms are not decayed, as usual for BERT-like models.
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _evaluate(progress: Progress, data: TrainingSet, ranker: Ranker, store: _StateStore, loss: float) -> None:
    """Score the validation prompts, keep the weights if they are the best so far, and save where we are."""
    accelerator = store.accelerator
    if accelerator.is_main_process:
        scores = ranker.score(data.validation_token_ids)
        tau_b = rank_metrics(scores, data.validation_lengths, min_gap=0.0).tau_b
        progress.history.append(
            {
                "step": progress.step,
                "loss": loss,
                "validation_tau_b": tau_b,
                "encoded_prompts": progress.encoded_prompts,
                "train_seconds": round(progress.train_seconds, 1),
                "train_cpu_seconds": round(progress.train_cpu_seconds, 1),
            }
        )
        if tau_b > progress.best_tau_b:
            progress.best_tau_b, progress.best_step = tau_b, progress.step
            store.save_best(ranker)
    store.save(progress)


@dataclass
class _StateStore:
    """The resumable state on disk: Accelerate's own files, our progress, and the best weights so far."""

    folder: Path
    identity: dict[str, Any]
    accelerator: Accelerator

    def resume(self) -> Progress:
        """Load the last state, if there is one of this very run."""
        written, last, previous = self.folder / "identity.json", self.folder / "last", self.folder / "previous"
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            if previous.is_dir() and not last.exists():
                previous.rename(last)  # killed between the two renames of save()
            if not last.is_dir():
                written.write_text(json.dumps(self.identity, indent=2))
        self.accelerator.wait_for_everyone()
        if not last.is_dir():
            return Progress()
        before = json.loads(written.read_text())
        changed = [name for name, value in self.identity.items() if before.get(name) != value]
        if changed:
            raise ConfigError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); remove it or use another folder"
            )
        self.accelerator.load_state(str(last))
        return Progress(**json.loads((last / "progress.json").read_text()))

    def save(self, progress: Progress) -> None:
        """Write the state beside the last one, then take its place. Every process writes its own random state."""
        coming, last, previous = (self.folder / name for name in ("coming", "last", "previous"))
        if self.accelerator.is_main_process:
            shutil.rmtree(coming, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(coming))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (coming / "progress.json").write_text(json.dumps(asdict(progress)))
            # A folder cannot replace another in one step; resume() knows both halves.
            shutil.rmtree(previous, ignore_errors=True)
            if last.exists():
                last.rename(previous)
            coming.rename(last)
            shutil.rmtree(previous, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def save_best(self, ranker: Ranker) -> None:
        coming = self.folder / "best.coming"
        save_model(ranker.model, str(coming))
        coming.replace(self.folder / "best.safetensors")

    def load_best(self, ranker: Ranker) -> None:
        load_model(ranker.model, str(self.folder / "best.safetensors"))
