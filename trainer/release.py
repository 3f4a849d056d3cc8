"""Converts a checkpoint of the reference release (`best_model.pt`) into our checkpoint folder.

Its ranker is an encoder, the pooler's output and one linear layer, which is what `AutoModelForSequenceClassification` with one
label computes for BERT-like models; so converting is renaming keys. The attribute names are not relied on: the encoder is found by
the shape of its key names, the head as the only [1, hidden] matrix left over.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from trainer.checkpoint import Checkpoint, RankerCard, write_checkpoint
from trainer.errors import CheckpointError
from trainer.ranker import Ranker

_WRAPPERS = ("model_state_dict", "state_dict", "model")


def import_release(state_file: Path, backbone: str, out: Path, *, max_tokens: int = 128, command: str = "") -> None:
    """Read `state_file`, put its weights into `backbone`'s sequence-classification form, write a checkpoint folder.

    backbone: Hugging Face name or folder with the configuration and tokenizer, such as "bert-base-uncased"; its weights are not
    used. The result has no calibration yet. Raises CheckpointError when the keys do not fit.
    """
    state = _read_state(state_file)
    try:
        config = AutoConfig.from_pretrained(backbone, num_labels=1)
        tokenizer = AutoTokenizer.from_pretrained(backbone, use_fast=True)
        model = AutoModelForSequenceClassification.from_config(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load {backbone}: {str(error).splitlines()[0]}") from error
    converted = rename_keys(state, set(model.state_dict()), model.base_model_prefix)
    try:
        model.load_state_dict(converted)
    except RuntimeError as error:
        raise CheckpointError(f"{state_file}: does not fit {backbone}: {str(error).splitlines()[-1].strip()}") from error
    ranker = Ranker(model.eval(), tokenizer, max_tokens)
    ranker.check(backbone)
    card = RankerCard(
        name=f"release-{state_file.stem}",
        max_tokens=max_tokens,
        length_tokenizer="unknown",
        data_statement="Converted from a checkpoint of the PARS reference release; its training data is not recorded in the file.",
        config={"backbone": backbone, "min_gap": 0.2},
        command=command,
    )
    write_checkpoint(out, Checkpoint(ranker, card, ngram_weights=None))


def rename_keys(state: dict[str, torch.Tensor], wanted: set[str], base: str) -> dict[str, torch.Tensor]:
    """Pure: keys of the release to keys of the sequence-classification model.

    wanted: the model's own keys. base: its encoder's attribute, such as "bert".
    """
    encoder_keys = {key.removeprefix(f"{base}.") for key in wanted if key.startswith(f"{base}.")}
    head_keys = sorted(key for key in wanted if not key.startswith(f"{base}."))
    if head_keys != ["classifier.bias", "classifier.weight"] or not any(key.startswith("pooler.") for key in encoder_keys):
        raise CheckpointError("only encoders with a pooler and a single linear head, such as BERT, can be imported")
    prefix = _encoder_prefix(state, encoder_keys)
    converted: dict[str, torch.Tensor] = {}
    rest: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and name in encoder_keys:
            converted[f"{base}.{name}"] = tensor
        elif not key.endswith("position_ids"):  # a buffer that older transformers releases saved
            rest[key] = tensor
    missing = sorted(key for key in encoder_keys if f"{base}.{key}" not in converted)
    if missing:
        hint = ": a release trained without the pooler cannot be converted" if all("pooler" in key for key in missing) else ""
        raise CheckpointError(f"the file lacks {len(missing)} encoder weights, first {missing[0]}{hint}")
    matrices = [key for key, tensor in rest.items() if tensor.ndim == 2 and tensor.shape[0] == 1]
    if len(matrices) != 1 or len(rest) != 2:
        raise CheckpointError(
            f"expected one linear layer with one output beside the encoder, found {sorted(rest) or 'nothing'}"
        )
    (bias,) = (key for key in rest if key != matrices[0])
    return {**converted, "classifier.weight": rest[matrices[0]], "classifier.bias": rest[bias].reshape(1)}


def _encoder_prefix(state: dict[str, torch.Tensor], encoder_keys: set[str]) -> str:
    """What stands before the encoder's own key names, such as "bert." or "module.encoder."."""
    anchor = "embeddings.word_embeddings.weight"
    prefixes = [key.removesuffix(anchor) for key in state if key.endswith(anchor)]
    if anchor not in encoder_keys or len(prefixes) != 1:
        raise CheckpointError(f"the file holds {len(prefixes)} encoders that can be recognised by {anchor!r}; expected one")
    return prefixes[0]


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        # weights_only: a pickle from elsewhere must not run code.
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        # Without torch's own text: it advises to load the file unsafely.
        raise CheckpointError(f"{path}: not a PyTorch file of plain tensors") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected a dictionary of tensors")
    return content
