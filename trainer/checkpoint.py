"""The checkpoint folder, trainer → exporter: a Hugging Face sequence-classification model, its tokenizer, the cheap scorer's
weights, and `ranker.json`, which says how it came about and what its scores mean."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pars.ngram import Weights
from trainer.calibrate import CalibrationTable
from trainer.errors import CheckpointError
from trainer.ranker import Ranker

CARD_FILE = "ranker.json"
NGRAM_FILE = "ngram.npy"


@dataclass(frozen=True)
class RankerCard:
    """What `ranker.json` holds. Absent calibrations mean the checkpoint cannot be exported yet (see `trainer calibrate`)."""

    name: str
    max_tokens: int
    length_tokenizer: str
    calibration: CalibrationTable | None = None
    ngram_calibration: CalibrationTable | None = None
    licence: str = ""
    data_statement: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    calibration_command: str = ""
    commit: str = ""
    data_sha256: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A ranker in memory with everything known about it. ngram_weights: float32, or None without a cheap scorer."""

    ranker: Ranker
    card: RankerCard
    ngram_weights: Weights | None


def round_weights_to_half(ranker: Ranker) -> None:
    """Round the weights to what 16-bit floats can hold, in place: what is calibrated is then exactly what will be saved."""
    with torch.no_grad():
        for parameter in ranker.model.parameters():
            parameter.copy_(parameter.half())


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write under a temporary name and rename. Weights are stored as fp16.

    An existing checkpoint at `folder` is replaced; anything else there raises CheckpointError and stays.
    """
    folder = folder.resolve()
    if folder.exists() and not (folder / CARD_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not a checkpoint; not overwriting it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    coming = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    coming.chmod(0o755)  # mkdtemp's own is for secrets
    model = checkpoint.ranker.model
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(coming, state_dict=halves)
    # Tokenizers save the state of their last call as well; padding and truncation are decided by whoever loads them.
    backend = getattr(checkpoint.ranker.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    checkpoint.ranker.tokenizer.save_pretrained(coming, legacy_format=False)
    if checkpoint.ngram_weights is not None:
        np.save(coming / NGRAM_FILE, checkpoint.ngram_weights)
    (coming / CARD_FILE).write_text(json.dumps(asdict(checkpoint.card), indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        replaced = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        folder.rename(replaced / "old")
        coming.rename(folder)
        shutil.rmtree(replaced)
    else:
        coming.rename(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint folder, weights widened to 32-bit floats. Raises CheckpointError, naming what is wrong."""
    card_path = folder / CARD_FILE
    if not card_path.is_file():
        raise CheckpointError(f"{folder}: no {CARD_FILE}; not a checkpoint folder of this trainer")
    try:
        raw = json.loads(card_path.read_text(encoding="utf-8"))
        for key in ("calibration", "ngram_calibration"):
            raw[key] = CalibrationTable(**raw[key]) if raw.get(key) is not None else None
        card = RankerCard(**raw)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{card_path}: {error}") from error
    ngram_path = folder / NGRAM_FILE
    try:
        weights = np.load(ngram_path, allow_pickle=False) if ngram_path.is_file() else None
    except (ValueError, EOFError) as error:
        raise CheckpointError(f"{ngram_path}: {error}") from error
    return Checkpoint(Ranker.load(folder, card.max_tokens), card, weights)
